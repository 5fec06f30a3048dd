/**
 * The WASM form of attention; `mod.ts` has the formula and the shapes.
 *
 * Of many rows, an item is a block of rows of one head, which walks over the keys that they see, a tile of 64 at a time, with a running
 * maximum and sum for each row (Dao, FlashAttention-2, 2023). Of one row, it is the query heads that share keys, over one tile of them:
 * so keys and values come from memory once, and threads share any context; what tiles leave is then put together.
 *
 * @module
 */
import { call, f32x4, i32, type ModuleBuilder, v128 } from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import { eachFour, storeLanes } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import type { WasmEntry, WasmTarget } from "../contract.ts";
import { type AttentionCall, attentionOperands } from "./mod.ts";
import { blockRows, manyScratch, manyWasm } from "./wasm_many.ts";
import {
  type AttentionWasm,
  fetchWasm,
  firstKey,
  LOWEST,
  QUERY_BYTES,
  TILE,
  tileWasm,
  TOP,
  TOTAL,
} from "./wasm_tile.ts";

/** The call on the CPU. Layers of one shape follow each other, and so can share their scratch. */
export function attentionEntries(call: AttentionCall, target: WasmTarget): WasmEntry[] {
  const { options, shape } = call;
  const constants = { ...shape, T: call.q.shape[0], options };
  const { kernels, scratch } = target.once("attention", constants, (constants) => {
    const { kernels, scratch } = attentionWasm(target.module, target.math, constants);
    const queries = target.scratch(scratch.queries);
    const spans = target.scratch(scratch.spans);
    return { kernels, scratch: { queries, spans, own: target.threadScratch(scratch.own) } };
  });
  const all = { ...attentionOperands(call), ...scratch };
  return kernels.map(({ operands, ...entry }) => ({
    ...entry,
    operands: operands.map((name) => all[name]),
  }));
}

/** Kernels in order: with their operands' names, their items, and the bytes of the scratch that they share or that each thread needs. */
interface AttentionPlan {
  readonly kernels: readonly {
    readonly kernel: Kernel;
    readonly operands: readonly ("y" | "q" | "k" | "v" | "queries" | "spans" | "own")[];
    readonly items: Items;
  }[];
  readonly scratch: { readonly queries: number; readonly spans: number; readonly own: number };
}

/** The WASM form: what is to be called. */
function attentionWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
): AttentionPlan {
  const { T, H, G, D, S } = shape;
  const item = (count: number): Items => ({ count, perRow: false });
  if (T > 1) {
    return {
      kernels: [{
        kernel: manyWasm(m, math, shape),
        operands: ["y", "q", "k", "v", "own"],
        items: item(Math.ceil(T / blockRows(T)) * H),
      }],
      scratch: { queries: 0, spans: 0, own: manyScratch(shape) },
    };
  }
  const spans = Math.ceil(S / TILE);
  const one = {
    kernel: oneWasm(m, math, shape),
    operands: ["spans", "q", "k", "v", "queries"] as const,
    items: { count: G, perRow: false, perKeys: TILE },
  };
  const together = {
    kernel: togetherWasm(m, math, shape, spans),
    operands: ["y", "spans", "queries"] as const,
    items: item(H),
  };
  return {
    kernels: [one, together],
    scratch: { queries: spans * H * QUERY_BYTES, spans: 4 * spans * H * D, own: 0 },
  };
}

/** One row: the query heads of a key/value head, over a tile of keys, are an item. */
function oneWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
): Kernel {
  const { H, G, D, S, options: { window } } = shape;
  const R = H / G;
  const tile = tileWasm(m, math, shape);
  const fetch = fetchWasm(m, D);
  return defineKernel(m, 5, (f, [sums, q, k, v, queries], { rows, length, begin, end }) => {
    const [item, head, kv, state, first] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
    const [to, from, last, start] = [0, 1, 2, 3].map(() => f.local("i32"));
    f.if(rows, () => {
      f.set(start, firstKey(length, window));
      f.for(item, begin, end, 1, () => {
        f.set(first, i32.mul(i32.divU(item, G), TILE));
        f.set(last, i32.add(first, TILE));
        f.set(last, i32.select(last, length, i32.ltU(last, length)));
        f.set(first, i32.select(first, start, i32.gtU(first, start)));
        f.if(i32.ltU(first, last), () => {
          f.set(head, i32.mul(i32.remU(item, G), R));
          f.set(kv, i32.mul(i32.remU(item, G), 4 * S * D));
          f.set(from, i32.add(q, i32.mul(head, 4 * D)));
          f.set(state, i32.add(i32.mul(i32.divU(item, G), H), head));
          f.set(to, i32.add(sums, i32.mul(state, 4 * D)));
          f.set(state, i32.add(queries, i32.mul(state, QUERY_BYTES)));
          const [keys, values] = [i32.add(k, kv), i32.add(v, kv)];
          f.do(call(fetch, state, keys, values, first, last));
          f.do(call(tile, to, from, keys, values, state, first, last));
        });
      });
    });
  });
}

/** Puts the spans of one row together; a head is an item. */
function togetherWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { H, D, options: { window } }: AttentionWasm,
  spans: number,
): Kernel {
  return defineKernel(m, 3, (f, [y, sums, queries], { rows, length, begin, end }) => {
    const [head, span, state, from, to, at] = [0, 1, 2, 3, 4, 5].map(() => f.local("i32"));
    const [first, last] = [f.local("i32"), f.local("i32")];
    const [top, total, part] = [0, 1, 2].map(() => f.local("v128"));
    const each = (body: () => void) => {
      f.for(span, first, last, 1, () => {
        f.set(from, i32.add(i32.mul(span, H), head));
        f.set(state, i32.add(queries, i32.mul(from, QUERY_BYTES)));
        f.set(from, i32.add(sums, i32.mul(from, 4 * D)));
        body();
      });
    };
    f.if(rows, () => {
      f.set(first, i32.divU(firstKey(length, window), TILE));
      f.set(last, i32.divU(i32.add(length, TILE - 1), TILE));
      f.set(last, i32.select(last, spans, i32.ltU(last, spans)));
      f.for(head, begin, end, 1, () => {
        f.set(to, i32.add(y, i32.mul(head, 4 * D)));
        eachFour(f, at, D, (lanes) => storeLanes(f, i32.add(to, at), f32x4.splat(0), lanes));
        f.set(top, f32x4.splat(LOWEST));
        f.set(total, f32x4.splat(0));
        each(() => f.set(top, f32x4.pmax(v128.load32Splat(state, TOP), top)));
        each(() => {
          f.set(part, math.exp2(f, f32x4.sub(v128.load32Splat(state, TOP), top)));
          f.set(total, math.madd(v128.load32Splat(state, TOTAL), part, total));
          eachFour(f, at, D, (lanes) => {
            const sum = math.madd(part, v128.load(i32.add(from, at)), v128.load(i32.add(to, at)));
            storeLanes(f, i32.add(to, at), sum, lanes);
          });
        });
        eachFour(f, at, D, (lanes) => {
          storeLanes(f, i32.add(to, at), f32x4.div(v128.load(i32.add(to, at)), total), lanes);
        });
      });
    });
  });
}

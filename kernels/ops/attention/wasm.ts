/**
 * Attention in WASM: prefill by blocks of rows, decode by split and reduce over the keys. `mod.ts`
 * has the formula and the shapes.
 *
 * Prefill (T > 1), `wasm_prefill.ts`: an item is a block of rows of one head. It loops over the
 * visible keys in tiles of 64, with a running max and sum per row (Dao, FlashAttention-2, 2023).
 *
 * Decode (T = 1): split over the keys, then reduce. Keys and values are loaded once for the R = H/G
 * query heads that share them, and a long context is shared among threads.
 *
 *     keys of kv head g     0          64         128       length
 *                           │  tile 0  │  tile 1  │  tile 2  │   split: item = tile · G + g,
 *                           └────┬─────┴────┬─────┴────┬─────┘   heads g·R … g·R + R − 1
 *     state  [tiles, H]       max, sum   max, sum   max, sum      and the scores of the tile
 *     splits [tiles, H, D]    Σ w · v    Σ w · v    Σ w · v       w = 2^(score − max)
 *                                └──────────┼──────────┘          reduce: item = head
 *     y      [H, D]           Σₜ 2^(maxₜ − max) · splitₜ / Σₜ 2^(maxₜ − max) · sumₜ
 *
 * @module
 */
import { call, f32x4, ints, v128, vectors } from "../../asm/assembler.ts";
import type { Int, Local, ModuleBuilder } from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import { eachFour, storeLanes } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import type { WasmEntry, WasmTarget } from "../contract.ts";
import { kvRowBytes } from "../../formats/kv.ts";
import { kvFormatOfShape } from "../kv_cache/mod.ts";
import { type AttentionCall, attentionOperands } from "./mod.ts";
import { prefillScratch, prefillWasm } from "./wasm_prefill.ts";
import { blockRows } from "./wasm_prefill_layout.ts";
import {
  type AttentionWasm,
  firstKey,
  LOWEST,
  MAX,
  prefetchWasm,
  STATE_BYTES,
  SUM,
  TILE,
  tileWasm,
} from "./wasm_tile.ts";
import { unpackedBytes, unpackWasm } from "./wasm_unpack.ts";

/** Lowers the call to WASM kernels. Layers run one after another, so equal shapes share scratch. */
export function attentionEntries(call: AttentionCall, target: WasmTarget): WasmEntry[] {
  const { options, shape } = call;
  const constants = { ...shape, T: call.q.shape[0], options };
  const { kernels, scratch } = target.once("attention", constants, (constants) => {
    const { kernels, scratch } = attentionWasm(target.module, target.math, constants);
    const states = target.scratch(scratch.states);
    const splits = target.scratch(scratch.splits);
    const threadScratch = target.threadScratch(scratch.threadScratch);
    return { kernels, scratch: { states, splits, threadScratch } };
  });
  const all = { ...attentionOperands(call), ...scratch };
  return kernels.map(({ operands, ...entry }) => ({
    ...entry,
    operands: operands.map((name) => all[name]),
  }));
}

/** Kernels in order, with operands and items, and the scratch they share. */
interface AttentionPlan {
  readonly kernels: readonly {
    readonly kernel: Kernel;
    readonly operands: readonly ("y" | "q" | "k" | "v" | keyof AttentionScratch)[];
    readonly items: Items;
  }[];
  readonly scratch: AttentionScratch;
}

/**
 * Bytes of scratch. Decode: states and splits, shared by all threads. Prefill: per thread.
 */
interface AttentionScratch {
  readonly states: number;
  readonly splits: number;
  readonly threadScratch: number;
}

/** The WASM form: prefill is one kernel, decode is split and reduce. */
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
        kernel: prefillWasm(m, math, shape),
        operands: ["y", "q", "k", "v", "threadScratch"],
        items: item(Math.ceil(T / blockRows(T)) * H),
      }],
      scratch: { states: 0, splits: 0, threadScratch: prefillScratch(shape) },
    };
  }
  const tiles = Math.ceil(S / TILE);
  const split = {
    kernel: splitWasm(m, math, shape),
    operands: ["splits", "q", "k", "v", "states", "threadScratch"] as const,
    items: { count: G, perRow: false, perKeys: TILE },
  };
  const reduce = {
    kernel: reduceWasm(m, math, shape, tiles),
    operands: ["y", "splits", "states"] as const,
    items: item(H),
  };
  return {
    kernels: [split, reduce],
    scratch: {
      states: tiles * H * STATE_BYTES,
      splits: 4 * tiles * H * D,
      threadScratch: unpackedBytes(shape),
    },
  };
}

/** Decode, split: an item is a tile of keys of one kv head, with the query heads that share it. */
function splitWasm(m: ModuleBuilder, math: VectorMath, shape: AttentionWasm): Kernel {
  const { H, G, D, S, options: { window } } = shape;
  const R = H / G;
  const tile = tileWasm(m, math, shape);
  const prefetch = prefetchWasm(m, D);
  const unpack = unpackWasm(m, shape);
  const operands = ["splits", "q", "k", "v", "states", "unpacked"] as const;
  return defineKernel(m, operands, (f, params) => {
    const { splits, q, k, v, states, unpacked, rows, length, begin, end } = params;
    const { item, head, kv, state, first, split, query, last, start } = f.locals(
      ints("item", "head", "kv", "state", "first", "split", "query", "last", "start"),
    );
    f.if(rows, () => {
      start.set(firstKey(length, window));
      if (unpack) unpacked.advance(m.thread.get.times(unpackedBytes(shape)));
      f.for(item, begin, end, 1, () => {
        first.set(item.div(G).times(TILE));
        last.set(first.plus(TILE));
        last.atMost(length);
        first.atLeast(start);
        f.if(first.lt(last), () => {
          head.set(item.rem(G).times(R));
          kv.set(item.rem(G).times(S * kvRowBytes(kvFormatOfShape(shape), D)));
          query.set(q.plus(head.times(4 * D)));
          state.set(item.div(G).times(H).plus(head));
          split.set(splits.plus(state.times(4 * D)));
          state.set(states.plus(state.times(STATE_BYTES)));
          const stored = { k: k.plus(kv), v: v.plus(kv), first, last };
          if (!unpack) f.do(call(prefetch, { state, ...stored }));
          const keys = unpack?.(f, unpacked, stored) ?? stored;
          f.do(call(tile, { sums: split, q: query, state, first, last, ...keys }));
        });
      });
    });
  });
}

/** Decode, reduce: combines the splits; an item is a query head. */
function reduceWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { H, D, options: { window } }: AttentionWasm,
  tiles: number,
): Kernel {
  return defineKernel(m, ["y", "splits", "states"], (f, params) => {
    const { y, splits, states, rows, length, begin, end } = params;
    const { head, tile, state, split, to, at } = f.locals(
      ints("head", "tile", "state", "split", "to", "at"),
    );
    const { first, last } = f.locals(ints("first", "last"));
    const { max, sum, factor } = f.locals(vectors("max", "sum", "factor"));
    const eachTile = (body: () => void) => {
      f.for(tile, first, last, 1, () => {
        split.set(tile.times(H).plus(head));
        state.set(states.plus(split.times(STATE_BYTES)));
        split.set(splits.plus(split.times(4 * D)));
        body();
      });
    };
    const load = (row: Local<Int>) => v128.load(row.plus(at));
    const store = (value: ReturnType<typeof load>, lanes: number) =>
      storeLanes(f, to.plus(at), value, lanes);
    const rescaleAndAdd = () => {
      factor.set(math.exp2(f, v128.load32Splat(state, MAX).minus(max)));
      sum.set(math.madd(v128.load32Splat(state, SUM), factor, sum));
      eachFour(f, at, D, (lanes) => store(math.madd(factor, load(split), load(to)), lanes));
    };
    f.if(rows, () => {
      first.set(firstKey(length, window).div(TILE));
      last.set(length.plus(TILE - 1).div(TILE));
      last.atMost(tiles);
      f.for(head, begin, end, 1, () => {
        to.set(y.plus(head.times(4 * D)));
        eachFour(f, at, D, (lanes) => store(f32x4.splat(0), lanes));
        max.set(LOWEST);
        sum.set(0);
        eachTile(() => max.set(v128.load32Splat(state, MAX).pmax(max)));
        eachTile(rescaleAndAdd);
        eachFour(f, at, D, (lanes) => store(load(to).div(sum), lanes));
      });
    });
  });
}

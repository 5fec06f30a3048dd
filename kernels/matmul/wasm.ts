/**
 * The WASM form of the matrix product; `mod.ts` has the formula and the shapes.
 *
 * The weight lies in panels of 16 outputs, which `wasm/panels.ts` has the order of. A panel is a work item, and passes through the cache
 * once, under all rows. 16-bit panels are widened in the inner loop of a single row, which is bound by memory. Many rows are bound by
 * what the processor multiplies and adds, and have a loop of their own: `wasm_rows.ts`.
 *
 * An engine without guard pages (Deno's V8) tests each access, which costs as much as a multiply-add: so inputs are read four at a
 * time and spread by shuffles.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "../tensor.ts";
import { call, f32x4, type Func, i32, type ModuleBuilder, v128 } from "../wasm/assembler.ts";
import type { FunctionBuilder, Local, Value } from "../wasm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../wasm/kernel.ts";
import type { VectorMath } from "../wasm/math.ts";
import { PANEL_COLUMNS } from "../wasm/panels.ts";
import { placeHigh, placeLow, UNIT } from "../wasm/widen.ts";
import type { MatmulOptions } from "./mod.ts";
import { type Places, type Store, storeInline, storeTileWasm, storeWasm } from "./wasm_epilogue.ts";
import { MANY, packWasm, rowsScratch, rowsWasm } from "./wasm_rows.ts";

/** The constants that the WASM form is specialised on. */
export interface MatmulWasm {
  /** The most rows of a run. */
  readonly T: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDtype;
  /** Whether the processor may fuse a product and its sum. */
  readonly relaxed: boolean;
  readonly options: MatmulOptions<unknown>;
}

/** Bytes of a panel's line, wide: the outputs of one input. */
const LINE = 4 * PANEL_COLUMNS;
/** Parts of a panel that are read side by side under one row: memory answers several streams faster than one. */
const STREAMS = 4;
/** Inputs of a turn of the inner loop: a vector of x. */
const STEP = 4;

/** Items of `matmulWasm`: panels. */
export function matmulItems({ N }: Pick<MatmulWasm, "N">): Items {
  return { count: Math.ceil(N / PANEL_COLUMNS), perRow: false };
}

/** Bytes of scratch that each thread needs. */
export function matmulScratch(shape: Pick<MatmulWasm, "T" | "K" | "dtype">): number {
  return shape.T < MANY ? 0 : rowsScratch(shape);
}

/** The WASM form: addresses of y, x, weight, bias, gate and the threads' scratch. */
export function matmulWasm(m: ModuleBuilder, math: VectorMath, shape: MatmulWasm): Kernel {
  const { T, N, K, dtype } = shape;
  const store = storeWasm(m, math, shape);
  const panelBytes = PANEL_COLUMNS * K * BYTES[dtype];
  const tall = dtype === "F32" ? [2, 1].filter((rows) => rows <= T) : [1];
  const few = tall.map((rows) => ({ rows, tile: tileWasm(m, math, store, rows, shape) }));
  const many = T < MANY ? null : { pack: packWasm(m, K), product: rowsWasm(m, math, store, shape) };
  return defineKernel(m, 6, (f, [y, x, w, bias, gate, scratch], { rows, begin, end }) => {
    const [n, t, yt, xt, gt] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
    const advance = (at: Local<"i32">, bytes: number) => f.set(at, i32.add(at, bytes));
    const byTiles = () => {
      f.set(t, 0);
      f.set(yt, y);
      f.set(xt, x);
      f.set(gt, gate);
      for (const { rows: height, tile } of few) {
        f.while(i32.leU(i32.add(t, height), rows), () => {
          f.do(call(tile, yt, xt, w, bias, gt, i32.sub(N, n)));
          advance(t, height);
          advance(yt, height * N * 4);
          advance(xt, height * K * 4);
          advance(gt, height * N * 4);
        });
      }
    };
    f.set(w, i32.add(w, i32.mul(begin, panelBytes)));
    for (const at of [y, bias, gate]) f.set(at, i32.add(at, i32.mul(begin, LINE)));
    if (many) {
      f.set(scratch, i32.add(scratch, i32.mul(m.thread.get, matmulScratch(shape))));
      f.if(i32.and(m.unprepared.get, i32.geU(rows, MANY)), () => {
        f.do(call(many.pack, scratch, x, rows));
        f.do(m.unprepared.set(0));
      });
    }
    f.for(n, i32.mul(begin, PANEL_COLUMNS), i32.mul(end, PANEL_COLUMNS), PANEL_COLUMNS, () => {
      if (many) {
        const all = () => f.do(call(many.product, y, scratch, w, bias, gate, i32.sub(N, n), rows));
        f.if(i32.geU(rows, MANY), all, byTiles);
      } else {
        byTiles();
      }
      advance(w, panelBytes);
      for (const at of [y, bias, gate]) advance(at, LINE);
    });
  });
}

/** One or two rows by a panel: y, x, weight, bias, gate of the corner, and the outputs that are left from there. */
function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  rows: number,
  { N, K, dtype, options }: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const columns = PANEL_COLUMNS;
  // One row has few sums: twice as many wait less for each other.
  const chains = rows > 1 ? 1 : 2;
  const stride = PANEL_COLUMNS * BYTES[dtype];
  // Placed F16 numbers lack a factor, of which x takes one root and the sums take the other: none is lost below F32's least.
  const root = dtype === "F16" ? Math.sqrt(UNIT) : 1;
  // Sums in order of rows and columns, and where they go.
  const corners = Array.from({ length: rows * columns / 4 }, (_, i) => {
    const [r, j] = [Math.floor(4 * i / columns), i % (columns / 4)];
    return { row: r, ofRow: 4 * (r * N + 4 * j), column: 4 * j };
  });
  const storeAll = options.activation || options.softCap
    ? storeTileWasm(m, math, corners, options)
    : null;
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left) => {
      const end = f.local("i32");
      const xr = f.local("v128");
      const inputs = Array.from({ length: rows }, () => f.local("v128"));
      const weights = Array.from({ length: columns / 4 }, () => f.local("v128"));
      const sums = Array.from(
        { length: chains },
        () => inputs.map(() => weights.map(() => f.local("v128"))),
      );
      const scaled = (v: Value<"v128">) => root === 1 ? v : f32x4.mul(v, f32x4.splat(root));

      /** One input of each row by its line of the panel, `ahead` inputs on. */
      const multiply = (ahead: number, chain: number, input: (row: number) => Value<"v128">) => {
        loadWeights(f, weights, w, ahead * stride, dtype);
        for (const [r, sum] of sums[chain].entries()) {
          f.set(xr, input(r));
          for (const [j, s] of sum.entries()) f.set(s, math.madd(xr, weights[j], s));
        }
      };
      const streams = rows > 1 ? 1 : STREAMS;
      const length = Math.floor(K / (streams * STEP)) * STEP;
      const turn = () => {
        for (let stream = 0; stream < streams; stream++) {
          const first = stream * length;
          for (const [r, v] of inputs.entries()) {
            f.set(v, scaled(v128.load(x, 4 * (r * K + first))));
          }
          for (let k = 0; k < STEP; k++) {
            const spread = (r: number) => v128.shuffle(inputs[r], inputs[r], [k, k, k, k]);
            multiply(first + k, k % chains, spread);
          }
        }
        f.set(w, i32.add(w, STEP * stride));
      };
      f.set(end, i32.add(x, 4 * length));
      f.for(x, x, end, 4 * STEP, turn);
      for (let k = (streams - 1) * length; k < K - length; k++) {
        multiply(k, k % chains, (r) => scaled(v128.load32Splat(x, 4 * (r * K + k))));
      }
      const [totals, ...others] = sums;
      for (const [r, total] of totals.entries()) {
        for (const [j, s] of total.entries()) {
          for (const other of others) f.set(s, f32x4.add(s, other[r][j]));
          f.set(s, scaled(s));
        }
      }

      const outputs = totals.flat();
      const each = (put: (s: Local<"v128">, at: Places) => void) => {
        for (const [i, s] of outputs.entries()) put(s, { y, gate, bias, ...corners[i] });
      };
      const one = (s: Local<"v128">, { ofRow, column }: Places) => {
        const at = (row: Local<"i32">) => i32.add(row, ofRow);
        f.do(call(store, s, at(y), i32.add(bias, 4 * column), at(gate), i32.sub(left, column)));
      };
      const whole = () => {
        if (storeAll) f.do(call(storeAll, ...outputs, y, bias, gate));
        else each((s, at) => storeInline(f, math, s, at, options));
      };
      f.if(i32.geS(left, columns), whole, () => each(one));
    },
  );
}

/** Vectors of four weights from `at` on; 16-bit ones come in pairs, and F16 without their factor. */
function loadWeights(
  f: FunctionBuilder,
  weights: readonly Local<"v128">[],
  at: Local<"i32">,
  offset: number,
  dtype: WeightDtype,
): void {
  if (dtype === "F32") {
    for (const [j, w] of weights.entries()) f.set(w, v128.load(at, offset + 16 * j));
    return;
  }
  for (let j = 0; j < weights.length; j += 2) {
    const [low, high] = [weights[j], weights[j + 1]];
    f.set(high, v128.load(at, offset + 8 * j));
    f.set(low, placeLow(high, dtype));
    f.set(high, placeHigh(high, dtype));
  }
}

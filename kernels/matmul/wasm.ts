/**
 * The WASM form of the matrix product; `mod.ts` has the formula and the shapes.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "../tensor.ts";
import { call, f32x4, type Func, i32, i32x4, type ModuleBuilder, v128 } from "../wasm/assembler.ts";
import type { FunctionBuilder, Local } from "../wasm/assembler.ts";
import { mapLanes, storeLanes } from "../wasm/lanes.ts";
import type { MathFuncs } from "../wasm/math.ts";
import { PANEL_COLUMNS } from "../wasm/panels.ts";
import type { MatmulOptions } from "./mod.ts";

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

/**
 * The WASM form: y, x, weight, bias, gate and the number of rows in, addresses all but the last. The weight lies in panels
 * of 16 outputs; each passes through the cache once, under all rows. Kernels, and so the sums, do not depend on who runs them.
 */
export function matmulWasm(
  m: ModuleBuilder,
  math: MathFuncs,
  shape: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { T, N, K, dtype } = shape;
  const store = storeWasm(m, math, shape);
  // 6 rows by 8 outputs fill the 16 registers; one row takes a whole panel, and is bound by memory.
  const heights = [6, 2, 1].filter((rows) => rows <= T);
  const tiles = heights.map((rows) => ({ rows, tile: tileWasm(m, store, rows, shape) }));
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, rows) => {
      const [n, t, yt, xt, gt] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
      const advance = (at: Local<"i32">, bytes: number) => f.set(at, i32.add(at, bytes));
      f.for(n, 0, N, PANEL_COLUMNS, () => {
        f.set(t, 0);
        f.set(yt, y);
        f.set(xt, x);
        f.set(gt, gate);
        for (const { rows: height, tile } of tiles) {
          f.while(i32.leU(i32.add(t, height), rows), () => {
            f.do(call(tile, yt, xt, w, bias, gt, i32.sub(N, n)));
            advance(t, height);
            advance(yt, height * N * 4);
            advance(xt, height * K * 4);
            advance(gt, height * N * 4);
          });
        }
        advance(w, PANEL_COLUMNS * K * BYTES[dtype]);
        for (const at of [y, bias, gate]) advance(at, PANEL_COLUMNS * 4);
      });
    },
  );
}

/** Some rows by one panel: y, x, weight, bias, gate of its corner, and the outputs that are left from there. */
function tileWasm(
  m: ModuleBuilder,
  store: Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void">,
  rows: number,
  { N, K, dtype, relaxed }: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const vectors = rows > 2 ? 2 : 4;
  const unroll = rows > 2 ? 2 : 4;
  const stride = PANEL_COLUMNS * BYTES[dtype];
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left) => {
      const [xk, wk, end] = [0, 1, 2].map(() => f.local("i32"));
      const xr = f.local("v128");
      const weights = Array.from({ length: vectors }, () => f.local("v128"));
      const sums = Array.from({ length: rows }, () => weights.map(() => f.local("v128")));

      const multiply = (k: number, first: number) => {
        widenWasm(f, weights, wk, k * stride + first * BYTES[dtype], dtype);
        for (const [r, sum] of sums.entries()) {
          f.set(xr, v128.load32Splat(xk, 4 * (r * K + k)));
          for (const [j, s] of sum.entries()) {
            f.set(
              s,
              relaxed
                ? f32x4.relaxedMadd(xr, weights[j], s)
                : f32x4.add(f32x4.mul(xr, weights[j]), s),
            );
          }
        }
      };
      f.set(end, i32.add(x, 4 * (K - K % unroll)));
      for (let first = 0; first < PANEL_COLUMNS; first += 4 * vectors) {
        f.if(i32.gtS(left, first), () => {
          for (const s of sums.flat()) f.set(s, f32x4.splat(0));
          f.set(wk, w);
          f.for(xk, x, end, 4 * unroll, () => {
            for (let k = 0; k < unroll; k++) multiply(k, first);
            f.set(wk, i32.add(wk, unroll * stride));
          });
          for (let k = 0; k < K % unroll; k++) multiply(k, first);
          for (const [r, sum] of sums.entries()) {
            for (const [j, s] of sum.entries()) {
              const n = first + 4 * j;
              const at = (row: Local<"i32">) => i32.add(row, 4 * (r * N + n));
              f.do(call(store, s, at(y), i32.add(bias, 4 * n), at(gate), i32.sub(left, n)));
            }
          }
        });
      }
    },
  );
}

/** Vectors of four weights from `at` on; 16-bit ones come in pairs, see `wasm/panels.ts`. */
function widenWasm(
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
    f.set(low, i32x4.shl(high, 16));
    if (dtype === "BF16") {
      f.set(high, v128.and(high, i32x4.splat(0xffff0000)));
    } else {
      // Sign, exponent and mantissa to their places in an F32, whose exponent counts from 112 further up.
      for (const w of [low, high]) {
        f.set(w, v128.and(i32x4.shrS(w, 3), i32x4.splat(0x8fffe000)));
        f.set(w, f32x4.mul(w, f32x4.splat(2 ** 112)));
      }
    }
  }
}

/** The epilogue of four outputs: their sums, y, bias, gate, and the outputs that are left from there. */
function storeWasm(
  m: ModuleBuilder,
  math: MathFuncs,
  { N, options }: MatmulWasm,
): Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void"> {
  const { activation, scale = 1, softCap, residual = false } = options;
  return m.define(["v128", "i32", "i32", "i32", "i32"], "void", (f, v, y, bias, gate, left) => {
    if (options.bias) f.set(v, f32x4.add(v, v128.load(bias)));
    if (activation === "relu") f.set(v, f32x4.max(v, f32x4.splat(0)));
    else if (activation) mapLanes(f, v, math[activation]);
    if (options.gate) f.set(v, f32x4.mul(v, v128.load(gate)));
    if (scale !== 1) f.set(v, f32x4.mul(v, f32x4.splat(scale)));
    if (softCap) {
      f.set(v, f32x4.div(v, f32x4.splat(softCap)));
      mapLanes(f, v, math.tanh);
      f.set(v, f32x4.mul(v, f32x4.splat(softCap)));
    }
    if (residual) f.set(v, f32x4.add(v128.load(y), v));
    f.if(
      i32.geS(left, 4),
      () => storeLanes(f, y, v, 4),
      () => f.if(i32.gtS(left, 0), () => storeLanes(f, y, v, N % 4)),
    );
  });
}

/**
 * The WASM form of the matrix product under one row, which is what decoding is made of; `wasm.ts` has that of many rows.
 *
 * Each number of the weight is used once, so that memory is the limit. It answers eight streams faster than four, and long ones
 * faster than short ones: so the parts of two panels are read side by side, and a number of x is spread once for both.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "../../formats/mod.ts";
import { call, f32x4, type Func, i32, type ModuleBuilder, v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Local, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import { PANEL_COLUMNS, panelLayout, panelStreams } from "../../formats/panels.ts";
import { placeHigh, placeLow, UNIT } from "../../formats/f16.ts";
import { type MatmulWasm, type Store, storeTileWasm } from "./wasm_epilogue.ts";

/** Inputs of a turn of the inner loop in each stream: a vector of x. */
const STEP = 4;

/** Vectors of four outputs that a panel has. */
const VECTORS = PANEL_COLUMNS / 4;

/** Items of `matmulRowWasm`: pairs of panels, one of each half of the weight's, so that reading goes on from item to item. */
export function rowItems(N: number): number {
  return Math.ceil(N / (2 * PANEL_COLUMNS));
}

/** The kernel of runs of one row: addresses of y, x, weight, bias and gate, and one for which it has no use. */
export function matmulRowWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
): Kernel {
  const { N, K, dtype } = shape;
  const { pitch } = panelLayout([N, K], dtype);
  const pairs = rowItems(N);
  const pair = panelsWasm(m, math, store, shape, [0, pairs]);
  // Of an odd number, the panel in the middle has no partner.
  const single = Math.ceil(N / PANEL_COLUMNS) < 2 * pairs
    ? panelsWasm(m, math, store, shape, [0])
    : null;
  return defineKernel(m, 6, (f, [y, x, w, bias, gate], { begin, end }) => {
    const left = f.local("i32");
    f.set(left, i32.sub(N, i32.mul(begin, PANEL_COLUMNS)));
    f.set(w, i32.add(w, i32.mul(begin, pitch)));
    for (const at of [y, bias, gate]) f.set(at, i32.add(at, i32.mul(begin, 4 * PANEL_COLUMNS)));
    const item = (panels: typeof pair) => () => f.do(call(panels, y, x, w, bias, gate, left));
    f.for(begin, begin, end, 1, () => {
      if (single) f.if(i32.gtS(left, pairs * PANEL_COLUMNS), item(pair), item(single));
      else item(pair)();
      f.set(left, i32.sub(left, PANEL_COLUMNS));
      f.set(w, i32.add(w, pitch));
      for (const at of [y, bias, gate]) f.set(at, i32.add(at, 4 * PANEL_COLUMNS));
    });
  });
}

/**
 * One row by some panels side by side, so many panels behind the first: y, x, weight, bias, gate at the first one's, and the outputs
 * that are left from there.
 */
export function panelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  panels: readonly number[],
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { N, K, dtype, options } = shape;
  const line = PANEL_COLUMNS * BYTES[dtype];
  const { pitch } = panelLayout([N, K], dtype);
  const { length, starts } = panelStreams([N, K], dtype);
  // Placed F16 numbers lack a factor, of which x takes one root and the sums take the other: none is lost below F32's least.
  const root = dtype === "F16" ? Math.sqrt(UNIT) : 1;
  const scaled = (v: Value<"v128">) => root === 1 ? v : f32x4.mul(v, f32x4.splat(root));
  const columns = panels.flatMap((panel) =>
    Array.from({ length: VECTORS }, (_, i) => panel * PANEL_COLUMNS + 4 * i)
  );
  const corners = columns.map((column) => ({ row: 0, column, ofRow: 4 * column }));
  const storeAll = storeTileWasm(m, math, corners, options);
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left) => {
      const end = f.local("i32");
      const [input, spread] = [f.local("v128"), f.local("v128")];
      const weights = [f.local("v128"), f.local("v128")];
      const sums = columns.map(() => f.local("v128"));
      // An engine that tests each access prepares the test once for all accesses of one offset.
      const bases = panels.map((panel) => panel === 0 ? w : f.local("i32"));
      for (const [i, base] of bases.entries()) f.set(base, i32.add(w, panels[i] * pitch));

      /** Multiplies an input by its line of each panel, so many bytes from where they stand. */
      const multiply = (offset: number, value: Value<"v128">) => {
        f.set(spread, value);
        for (const [i, sum] of sums.entries()) {
          const [panel, j] = [Math.floor(i / VECTORS), i % VECTORS];
          if (j % 2 === 0) {
            loadPair(f, weights, bases[panel], offset + 4 * j * BYTES[dtype], dtype);
          }
          f.set(sum, math.madd(spread, weights[j % 2], sum));
        }
      };
      f.set(end, i32.add(x, 4 * length));
      f.for(x, x, end, 4 * STEP, () => {
        for (const [stream, start] of starts.entries()) {
          f.set(input, scaled(v128.load(x, 4 * stream * length)));
          for (let k = 0; k < STEP; k++) {
            multiply(start + k * line, v128.shuffle(input, input, [k, k, k, k]));
          }
        }
        for (const base of bases) f.set(base, i32.add(base, STEP * line));
      });
      // x and the panels stand at the end of the first stream now, and what is left lies behind the last one.
      const last = starts.length - 1;
      for (let k = 0; k < K - starts.length * length; k++) {
        multiply(starts[last] + k * line, scaled(v128.load32Splat(x, 4 * (last * length + k))));
      }
      for (const sum of sums) f.set(sum, scaled(sum));

      f.if(
        i32.geS(left, columns[columns.length - 1] + 4),
        () => f.do(call(storeAll, ...sums, y, bias, gate)),
        () => {
          for (const [i, { ofRow, column }] of corners.entries()) {
            const [to, ofGate] = [y, gate].map((at) => i32.add(at, ofRow));
            f.do(
              call(store, sums[i], to, i32.add(bias, 4 * column), ofGate, i32.sub(left, column)),
            );
          }
        },
      );
    },
  );
}

/** Two vectors of four weights, side by side from `at` on; F16 without its factor. */
function loadPair(
  f: FunctionBuilder,
  [low, high]: readonly Local<"v128">[],
  at: Local<"i32">,
  offset: number,
  dtype: WeightDtype,
): void {
  if (dtype === "F32") {
    f.set(low, v128.load(at, offset));
    f.set(high, v128.load(at, offset + 16));
  } else {
    f.set(high, v128.load(at, offset));
    f.set(low, placeLow(high, dtype));
    f.set(high, placeHigh(high, dtype));
  }
}

/**
 * The WASM form of the matrix product under one row, which is what decoding is made of;
 * `wasm.ts` has that of many rows.
 *
 * Each number of the weight is used once, so that memory is the limit. It answers eight streams
 * faster than four, and long ones faster than short ones: so the parts of two panels are read side
 * by side, and a number of x is spread once for both.
 *
 * @module
 */
import { FORMATS } from "../../formats/mod.ts";
import { call, f32x4, type Func, i32, type ModuleBuilder, v128 } from "../../asm/assembler.ts";
import type { Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { type MatmulWasm, type Store, storeTileWasm } from "./wasm_epilogue.ts";

/** Inputs of a turn of the inner loop in each stream: a vector of x. */
const STEP = 4;

/** Vectors of four outputs that a panel has. */
const VECTORS = PANEL_COLUMNS / 4;

/**
 * Items of `matmulRowWasm`: pairs of panels, one of each half of the weight's, so that reading
 * goes on from item to item.
 */
export function rowItems(N: number): number {
  return Math.ceil(N / (2 * PANEL_COLUMNS));
}

/**
 * The kernel of runs of one row: addresses of y, x, weight, bias and gate, and one
 * for which it has no use.
 */
export function matmulRowWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
): Kernel {
  const { N, K, dtype } = shape;
  const { pitch } = FORMATS[dtype].wasm.layout([N, K]);
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
 * One row by some panels side by side, so many panels behind the first: y, x, weight, bias, gate at
 * the first one's, and the outputs that are left from there.
 */
export function panelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  panels: readonly number[],
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { N, K, dtype, options } = shape;
  const { wasm } = FORMATS[dtype];
  const { pitch } = wasm.layout([N, K]);
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

      const reader = wasm.reader(f, [N, K], bases);
      const { streams, length } = reader;
      // Loaded weights lack a factor: x is scaled by its root and the sums by the root again, so
      // that no product falls below F32's least number.
      const root = Math.sqrt(reader.unit);
      const scaled = (v: Value<"v128">) => root === 1 ? v : f32x4.mul(v, f32x4.splat(root));

      /** Multiplies an input by its line of each panel, `line` behind where the stream is. */
      const multiply = (stream: number, line: number, value: Value<"v128">) => {
        f.set(spread, value);
        for (const [i, sum] of sums.entries()) {
          const [panel, j] = [Math.floor(i / VECTORS), i % VECTORS];
          if (j % 2 === 0) reader.load(weights, { panel, stream, line, column: 4 * j });
          f.set(sum, math.madd(spread, weights[j % 2], sum));
        }
      };
      f.set(end, i32.add(x, 4 * length));
      f.for(x, x, end, 4 * STEP, () => {
        for (let stream = 0; stream < streams; stream++) {
          f.set(input, scaled(v128.load(x, 4 * stream * length)));
          for (let k = 0; k < STEP; k++) {
            multiply(stream, k, v128.shuffle(input, input, [k, k, k, k]));
          }
        }
        reader.advance(STEP);
      });
      // x and the panels are at the end of the first stream now, and what is
      // left follows the last one.
      const last = streams - 1;
      for (let k = 0; k < K - streams * length; k++) {
        multiply(last, k, scaled(v128.load32Splat(x, 4 * (last * length + k))));
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

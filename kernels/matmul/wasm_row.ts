/**
 * The WASM form of the matrix product under one row, which is what decoding is made of; `wasm.ts` has that of many rows.
 *
 * Each number of the weight is used once, so that memory is the limit. What a processor fetches ahead it fetches for each page by
 * itself, and it answers a dozen streams faster than four: so parts of several panels are read side by side, and each number of x is
 * spread once for all of them.
 *
 * @module
 */
import { BYTES } from "../tensor.ts";
import { call, f32x4, type Func, i32, type ModuleBuilder, v128 } from "../wasm/assembler.ts";
import type { Value } from "../wasm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../wasm/kernel.ts";
import type { VectorMath } from "../wasm/math.ts";
import { PANEL_COLUMNS } from "../wasm/panels.ts";
import { UNIT } from "../wasm/widen.ts";
import { loadWeights, type MatmulWasm, storeTileWasm, storeWasm } from "./wasm.ts";

/** Panels of a work item: their sums are as many as registers hold. */
const PANELS = 3;
/** Parts of a panel that are read side by side. */
const STREAMS = 4;
/** Inputs of a turn of the inner loop in each part: a vector of x. */
const STEP = 4;

/** Vectors of four outputs that a panel has. */
const VECTORS = PANEL_COLUMNS / 4;

/** Items of `matmulRowWasm`: so many panels each, and the last what is left. */
export function matmulRowItems({ N }: { N: number }): Items {
  return { count: Math.ceil(N / (PANELS * PANEL_COLUMNS)), perRow: false };
}

/** The WASM form under one row: addresses of y, x, weight, bias and gate, and one for which it has no use. */
export function matmulRowWasm(m: ModuleBuilder, math: VectorMath, shape: MatmulWasm): Kernel {
  const { N, K, dtype } = shape;
  const columns = PANELS * PANEL_COLUMNS;
  const weightBytes = columns * K * BYTES[dtype];
  const whole = panelsWasm(m, math, shape, PANELS);
  const panelsLeft = Math.ceil(N / PANEL_COLUMNS) % PANELS;
  const last = panelsLeft > 0 ? panelsWasm(m, math, shape, panelsLeft) : null;
  return defineKernel(m, 6, (f, [y, x, w, bias, gate], { begin, end }) => {
    const left = f.local("i32");
    f.set(left, i32.sub(N, i32.mul(begin, columns)));
    f.set(w, i32.add(w, i32.mul(begin, weightBytes)));
    for (const at of [y, bias, gate]) f.set(at, i32.add(at, i32.mul(begin, 4 * columns)));
    const item = (panels: typeof whole) => () => f.do(call(panels, y, x, w, bias, gate, left));
    f.for(begin, begin, end, 1, () => {
      if (last) f.if(i32.gtS(left, columns - PANEL_COLUMNS), item(whole), item(last));
      else item(whole)();
      f.set(left, i32.sub(left, columns));
      f.set(w, i32.add(w, weightBytes));
      for (const at of [y, bias, gate]) f.set(at, i32.add(at, 4 * columns));
    });
  });
}

/** Some panels side by side: y, x, weight, bias, gate at the first one's, and the outputs that are left from there. */
function panelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: MatmulWasm,
  panels: number,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { K, dtype, options } = shape;
  const line = PANEL_COLUMNS * BYTES[dtype];
  // Placed F16 numbers lack a factor, of which x takes one root and the sums take the other: none is lost below F32's least.
  const root = dtype === "F16" ? Math.sqrt(UNIT) : 1;
  const scaled = (v: Value<"v128">) => root === 1 ? v : f32x4.mul(v, f32x4.splat(root));
  const corners = Array.from(
    { length: panels * VECTORS },
    (_, i) => ({ ofRow: 16 * i, column: 4 * i }),
  );
  const store = storeWasm(m, math, shape);
  const storeAll = storeTileWasm(m, math, corners, options);
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left) => {
      const end = f.local("i32");
      const [input, spread] = [f.local("v128"), f.local("v128")];
      const weights = [f.local("v128"), f.local("v128")];
      // An engine that tests each access has one test fewer to prepare where two have the same offset.
      const starts = Array.from({ length: panels }, (_, i) => i === 0 ? w : f.local("i32"));
      const sums = corners.map(() => f.local("v128"));
      for (const [i, start] of starts.entries()) f.set(start, i32.add(w, i * K * line));

      /** Multiplies an input by its line of each panel. */
      const multiply = (k: number, value: Value<"v128">) => {
        f.set(spread, value);
        for (const [i, sum] of sums.entries()) {
          const [panel, j] = [Math.floor(i / VECTORS), i % VECTORS];
          const at = k * line + 4 * j * BYTES[dtype];
          if (j % 2 === 0) loadWeights(f, weights, starts[panel], at, dtype);
          f.set(sum, math.madd(spread, weights[j % 2], sum));
        }
      };
      const length = Math.floor(K / (STREAMS * STEP)) * STEP;
      f.set(end, i32.add(x, 4 * length));
      f.for(x, x, end, 4 * STEP, () => {
        for (let first = 0; first < STREAMS * length; first += length) {
          f.set(input, scaled(v128.load(x, 4 * first)));
          for (let k = 0; k < STEP; k++) {
            multiply(first + k, v128.shuffle(input, input, [k, k, k, k]));
          }
        }
        for (const start of starts) f.set(start, i32.add(start, STEP * line));
      });
      // From where x and the panels stand now, the inputs that are left lie behind the other parts.
      for (let k = (STREAMS - 1) * length; k < K - length; k++) {
        multiply(k, scaled(v128.load32Splat(x, 4 * k)));
      }
      for (const sum of sums) f.set(sum, scaled(sum));

      f.if(
        i32.geS(left, panels * PANEL_COLUMNS),
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

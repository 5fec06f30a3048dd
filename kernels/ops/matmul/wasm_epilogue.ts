/**
 * What follows the sums of a matrix product in its WASM form: bias, activation, gate and
 * the rest, and the store.
 *
 * @module
 */
import {
  f32x4,
  type Func,
  type FunctionBuilder,
  i32,
  type Local,
  type ModuleBuilder,
  v128,
  type ValueType,
} from "../../asm/assembler.ts";
import type { WeightDtype } from "../../formats/mod.ts";
import { storeLanes } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { activateWasm } from "../activation.ts";
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

/** Where four outputs of a tile stand. */
export interface Corner {
  readonly row: number;
  /** Bytes from the tile's corner in y and gate … */
  readonly ofRow: number;
  /** … and outputs from it. */
  readonly column: number;
}

/** Where four outputs of a row go to, and what is made of them on the way. */
export interface Places extends Pick<Corner, "ofRow" | "column"> {
  readonly y: Local<"i32">;
  readonly gate: Local<"i32">;
  readonly bias: Local<"i32">;
}

/**
 * The epilogue of a tile whose outputs are all there: their sums, y, bias, gate. Functions have
 * many constants, which take as long to make as they do themselves: here once for all vectors.
 */
export function storeTileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  corners: readonly Corner[],
  options: MatmulOptions<unknown>,
): Func<readonly ValueType[], "void"> {
  const sums = corners.map(() => "v128" as const);
  return m.define([...sums, "i32", "i32", "i32"] as ValueType[], "void", (f, ...all) => {
    const [y, bias, gate] = all.slice(corners.length) as Local<"i32">[];
    for (const [i, corner] of corners.entries()) {
      storeInline(f, math, all[i] as Local<"v128">, { y, bias, gate, ...corner }, options);
    }
  });
}

/** An epilogue of four outputs that there are, written out. */
export function storeInline(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  places: Places,
  options: MatmulOptions<unknown>,
): void {
  finish(f, math, v, places, options);
  f.store(places.y, v, places.ofRow);
}

/** What is made of four sums on their way to y. */
function finish(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  { y, gate, bias, ofRow, column }: Places,
  options: MatmulOptions<unknown>,
): void {
  const { activation, scale = 1, softCap, residual = false } = options;
  if (options.bias) f.set(v, f32x4.add(v, v128.load(bias, 4 * column)));
  if (activation) f.set(v, activateWasm(f, math, activation, v));
  if (options.gate) f.set(v, f32x4.mul(v, v128.load(gate, ofRow)));
  if (scale !== 1) f.set(v, f32x4.mul(v, f32x4.splat(scale)));
  if (softCap) {
    f.set(v, f32x4.div(v, f32x4.splat(softCap)));
    f.set(v, math.tanh(v));
    f.set(v, f32x4.mul(v, f32x4.splat(softCap)));
  }
  if (residual) f.set(v, f32x4.add(v128.load(y, ofRow), v));
}

/**
 * The epilogue of four outputs: their sums, y, bias, gate, and the outputs
 * that are left from there.
 */
export type Store = Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void">;

export function storeWasm(m: ModuleBuilder, math: VectorMath, { N, options }: MatmulWasm): Store {
  return m.define(["v128", "i32", "i32", "i32", "i32"], "void", (f, v, y, bias, gate, left) => {
    finish(f, math, v, { y, bias, gate, ofRow: 0, column: 0 }, options);
    f.if(
      i32.geS(left, 4),
      () => storeLanes(f, y, v, 4),
      () => f.if(i32.gtS(left, 0), () => storeLanes(f, y, v, N % 4)),
    );
  });
}

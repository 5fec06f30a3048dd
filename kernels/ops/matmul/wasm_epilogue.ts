/**
 * Epilogue of the matrix product in WASM: bias, activation, gate, scale, cap and residual, and the
 * store.
 *
 * @module
 */
import { ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Ints,
  Local,
  ModuleBuilder,
  Vectors,
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

/** Place of four outputs of a tile. */
export interface Corner {
  readonly row: number;
  /** Bytes from the tile's first output in y and gate … */
  readonly ofRow: number;
  /** … and outputs from it. */
  readonly column: number;
}

/** Where four outputs are stored, and the operands of their epilogue. */
export interface Places extends Pick<Corner, "ofRow" | "column"> {
  readonly y: Local<"i32">;
  readonly gate: Local<"i32">;
  readonly bias: Local<"i32">;
}

/** Parameters of a tile's epilogue: all its sums, in order. */
type TileParams = Vectors<`sum${number}`> & Ints<"y" | "bias" | "gate">;

/** Sums as arguments of a tile's epilogue. */
export function sumArgs(
  sums: readonly Local<"v128">[],
): Readonly<Record<`sum${number}`, Local<"v128">>> {
  return Object.fromEntries(sums.map((sum, i) => [`sum${i}`, sum]));
}

/**
 * The epilogue of a tile that is stored as a whole. Functions have many constants, which take as
 * long to set as the function itself: here once for all vectors.
 */
export function storeTileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  corners: readonly Corner[],
  options: MatmulOptions<unknown>,
): Func<TileParams> {
  const sums = vectors(...corners.map((_, i): `sum${number}` => `sum${i}`));
  const params: TileParams = { ...sums, ...ints("y", "bias", "gate") };
  return m.define(params, "void", (f, { y, bias, gate, ...sums }) => {
    for (const [i, corner] of corners.entries()) {
      storeInline(f, math, sums[`sum${i}`], { y, bias, gate, ...corner }, options);
    }
  });
}

/** The epilogue of four outputs, inlined. */
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

/** Emits bias, activation, gate, scale, cap and residual of four sums. */
function finish(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  { y, gate, bias, ofRow, column }: Places,
  options: MatmulOptions<unknown>,
): void {
  const { activation, scale = 1, softCap, residual = false } = options;
  if (options.bias) v.set(v.plus(v128.load(bias, 4 * column)));
  if (activation) v.set(activateWasm(f, math, activation, v));
  if (options.gate) v.set(v.times(v128.load(gate, ofRow)));
  if (scale !== 1) v.set(v.times(scale));
  if (softCap) {
    v.set(v.div(softCap));
    v.set(math.tanh(v));
    v.set(v.times(softCap));
  }
  if (residual) v.set(v128.load(y, ofRow).plus(v));
}

/** The epilogue of four outputs, of which `left` are the row's. */
export type Store = Func<Vectors<"v"> & Ints<"y" | "bias" | "gate" | "left">>;

export function storeWasm(m: ModuleBuilder, math: VectorMath, { N, options }: MatmulWasm): Store {
  const params = { ...vectors("v"), ...ints("y", "bias", "gate", "left") };
  return m.define(params, "void", (f, { v, y, bias, gate, left }) => {
    finish(f, math, v, { y, bias, gate, ofRow: 0, column: 0 }, options);
    f.if(
      left.geS(4),
      () => storeLanes(f, y, v, 4),
      () => f.if(left.gtS(0), () => storeLanes(f, y, v, N % 4)),
    );
  });
}

/**
 * Matmul epilogue in WASM, fused into the store of a tile:
 *
 *     v = activation(sum + bias) · gate · scale;  v = c · tanh(v / c) with a soft cap c;
 *     y = v, or y + v with a residual
 *
 * @module
 */
import { call, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Vectors,
} from "../../asm/assembler.ts";
import type { WeightDtype } from "../../formats/mod.ts";
import { storeLanes } from "../../asm/lanes.ts";
import type { Simd } from "../../asm/join.ts";
import type { VectorMath } from "../../asm/math.ts";
import { activateWasm } from "../activation.ts";
import type { Activations } from "../contract.ts";
import type { Columns, MatmulOptions } from "./mod.ts";

/** The constants that the WASM form is specialised on. */
export interface MatmulWasm {
  /** Maximum number of rows of a run. */
  readonly T: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDtype;
  /** Whether multiply-adds may be fused. */
  readonly relaxed: boolean;
  readonly simd: Simd;
  /** Precision of x in products with blocks. */
  readonly activations: Activations;
  readonly options: MatmulOptions<unknown>;
  /** Columns of y that are written; the gate has as many numbers per row. */
  readonly columns: Columns;
}

/** Outputs of a tile of many rows: two vectors. */
export const TILE_COLUMNS = { "128": 8, "256": 16, "256, unchecked": 16 } as const;

/** Position of a vector of four outputs in a tile. */
export interface TileVector {
  /** Row of the tile. */
  readonly row: number;
  /** Byte offset in y and gate from the tile's first output. */
  readonly ofRow: number;
  /** First column, counted from the tile's first. */
  readonly column: number;
}

/** Addresses that the epilogue of a vector of outputs uses: of the tile's first output. */
export interface EpilogueOperands extends Pick<TileVector, "ofRow" | "column"> {
  readonly y: Local<Int>;
  readonly gate: Local<Int>;
  readonly bias: Local<Int>;
}

/** Operands of a partial tile, and its number of outputs and of rows. */
interface PartOperands extends Pick<EpilogueOperands, "y" | "bias" | "gate"> {
  readonly left: Local<Int>;
  readonly rows?: Local<Int>;
}

/** Parameters of a tile's epilogue: its sums in order, and the operands. */
type TileParams = Vectors<`sum${number}`> & Ints<"y" | "bias" | "gate">;

/** The sums as arguments of a tile's epilogue. */
export function sumArgs(
  sums: readonly Local<"v128">[],
): Readonly<Record<`sum${number}`, Local<"v128">>> {
  return Object.fromEntries(sums.map((sum, i) => [`sum${i}`, sum]));
}

/**
 * Defines the epilogue of a whole tile. Activations have many constants, and setting them takes as
 * long as the function itself; here they are set once per tile.
 */
export function storeTileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  tile: readonly TileVector[],
  options: MatmulOptions<unknown>,
): Func<TileParams> {
  const sums = vectors(...tile.map((_, i): `sum${number}` => `sum${i}`));
  const params: TileParams = { ...sums, ...ints("y", "bias", "gate") };
  return m.define(params, "void", (f, { y, bias, gate, ...sums }) => {
    for (const [i, vector] of tile.entries()) {
      storeInline(f, math, sums[`sum${i}`], { y, bias, gate, ...vector }, options);
    }
  });
}

/** The epilogue of four outputs, inlined. */
export function storeInline(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  operands: EpilogueOperands,
  options: MatmulOptions<unknown>,
): void {
  finish(f, math, v, operands, options);
  f.store(operands.y, v, operands.ofRow);
}

/** Emits bias, activation, gate, scale, soft cap and residual of four sums. */
function finish(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  { y, gate, bias, ofRow, column }: EpilogueOperands,
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

/** Epilogue of four outputs at the end of a row; the row has `left` outputs from the first. */
export type Store = Func<Vectors<"v"> & Ints<"y" | "bias" | "gate" | "left">>;

/** Emits the epilogue of a partial tile; with `rows`, of that many rows of it. */
export function storeParts(
  f: FunctionBuilder,
  store: Store,
  tile: readonly TileVector[],
  sums: readonly Local<"v128">[],
  { y, bias, gate, left, rows }: PartOperands,
): void {
  for (const [i, { row, ofRow, column }] of tile.entries()) {
    const part = call(store, {
      v: sums[i],
      y: y.plus(ofRow),
      bias: bias.plus(4 * column),
      gate: gate.plus(ofRow),
      left: left.minus(column),
    });
    if (rows) f.if(rows.gtS(row), () => f.do(part));
    else f.do(part);
  }
}

/** Defines the epilogue of four outputs at the end of a row. */
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

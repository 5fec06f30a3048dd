/**
 * Quantisation of x for integer products with blocked weights, once per thread and row.
 *
 *     x ≈ dx · xq        per 32 inputs; xq an integer, |xq| ≤ 32639 (exact) or 127 (int8)
 *
 * The largest error of dx · xq is 2⁻¹⁶ (exact) or 2⁻⁸ (int8) of the 32 inputs' largest |x|. In a
 * record of 32 inputs, words of 32 bits meet four codes of an output:
 *
 *     byte   0       4       8     64   68       72        76      80               92       96
 *     words  │ x0 x2 │ x1 x3 │ …   │ dx │ Σ 0…15 │ Σ 16…31 │ Σ all │ dx · Σ (3 F32) │ Σ even │
 *     bytes  │ x0…x3 │ x4…x7 │ …   │ …
 *
 * @module
 */
import { f32, f32x4, i16x8, i32x4, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../../asm/assembler.ts";
import type { BlockForm, BlockPart } from "../../formats/format.ts";
import { packBytes } from "../../formats/wasm_encode.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import type { MatmulWasm } from "./wasm_epilogue.ts";

/** Inputs that share a scale of x. */
export const INPUTS = 32;

/** Bytes of 32 quantised inputs. */
export const RECORD = 96;

/** Byte of the scale and the sums in a record: of inputs 0 … 15, 16 … 31, and all. */
export const [SCALE, SUMS, SCALED_SUMS] = [64, [68, 72, 76], [80, 84, 88]];

/** Byte of the sum of the even inputs. */
export const EVEN_SUM = 92;

/** Largest magnitude of a quantised x. */
export const MOST = { exact: 32639, int8: 127 } as const;

/** Trick: 1.5 · 2²³ + x leaves the nearest integer of x in the lowest bits of the sum. */
const [ROUNDER, ROUNDER_BITS] = [12582912, 0x4b400000];

/** Bytes of the scales of a block in F32, of 16 outputs; 0 if a block has one scale. */
export function heldBytes({ parts }: BlockForm): number {
  if (parts.length === 1) return 0;
  return parts.length * 4 * PANEL_COLUMNS * (parts[0].min ? 2 : 1);
}

/** Bytes of a quantised row. A block's scales are held after its records. */
export function quantisedBytes({ K }: Pick<MatmulWasm, "K">, form: BlockForm): number {
  return K / INPUTS * RECORD + heldBytes(form);
}

/** How x and codes are multiplied: as 16-bit integers or as bytes. */
export type DotForm = "words" | "bytes";

/** What the form and the bits of x depend on. */
type Precision = Pick<MatmulWasm, "relaxed" | "activations">;

/** The form for a weight's codes; the second operand of a dot of bytes must not be negative. */
export function dotFormOf({ parts }: BlockForm, { relaxed, activations }: Precision): DotForm {
  const isSmall = ({ most }: BlockPart) => most !== null;
  return relaxed && activations === "int8" && parts.every(isSmall) ? "bytes" : "words";
}

/** Defines the quantisation of rows x [rows, K] for a weight's blocks. */
export function quantiseWasm(
  m: ModuleBuilder,
  shape: Precision & Pick<MatmulWasm, "K">,
  form: BlockForm,
): Func<Ints<"to" | "x" | "rows">> {
  const { K, activations } = shape;
  const joined = form.flipped && activations === "int8";
  return m.define(ints("to", "x", "rows"), "void", (f, { to, x, rows }) => {
    const end = f.local("int", "end");
    const inputs = f.array("v128", "x", INPUTS / 4);
    const { most, factor } = f.locals(vectors("most", "factor"));
    const { scale } = f.locals({ scale: "f32" });
    const last = f.local("int", "last");
    const quantiseBlock = () => {
      most.set(0);
      for (const [i, four] of inputs.entries()) {
        four.set(v128.load(x, 16 * i));
        most.set(larger(most, f32x4.abs(four)));
      }
      most.set(larger(most, v128.shuffle(most, most, [2, 3, 0, 1])));
      most.set(larger(most, v128.shuffle(most, most, [1, 0, 3, 2])));
      scale.set(f32x4.extractLane(most, 0).div(MOST[activations]));
      factor.set(inverseScale(f32x4.splat(scale), most));
      for (const four of inputs) four.set(quantised(four, factor));
      f.store(to, scale, SCALE);
      storeSums(f, to, inputs, scale);
      if (dotFormOf(form, shape) === "bytes") storeBytes(f, to, inputs);
      else storeWords(f, to, inputs, !!joined);
      to.advance(RECORD);
    };
    end.set(x.plus(rows.times(4 * K)));
    f.while(x.lt(end), () => {
      last.set(x.plus(4 * K));
      f.for(x, x, last, 4 * INPUTS, quantiseBlock);
      to.advance(quantisedBytes(shape, form) - K / INPUTS * RECORD);
    });
  });
}

/**
 * The larger of F32 without sign. A NaN stays in the maximum, and with it in the scale and in the
 * result. Trick: bits are in the order of the numbers; the maximum of F32 takes eight operations.
 */
export const larger = i32x4.maxU;

/** Inverses of scales. */
export function inverseScale(scale: Value<"v128">, most: Local<"v128">): Value<"v128"> {
  // Below 1e-30 the inverse could overflow; such a block is 0.
  return f32x4.splat(f32.const(1)).div(scale).and(most.gt(1e-30));
}

/** The nearest integers of x times a factor. */
export function quantised(x: Value<"v128">, factor: Local<"v128">): Value<"v128"> {
  return i32x4.sub(x.times(factor).plus(ROUNDER), i32x4.splat(ROUNDER_BITS));
}

/** Stores the sums of 32 integers. */
function storeSums(
  f: FunctionBuilder,
  to: Local<Int>,
  inputs: readonly Local<"v128">[],
  scale: Local<"f32">,
): void {
  const total = f.local("v128", "total");
  const sums = f.array("int", "sum", 3);
  const even = f.local("int", "even");
  even.set(0);
  for (const [i, sum] of sums.slice(0, 2).entries()) {
    const [a, b, c, d] = inputs.slice(4 * i);
    total.set(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)));
    const [x0, x1, x2, x3] = [0, 1, 2, 3].map((lane) => i32x4.extractLane(total, lane));
    sum.set(x0.plus(x2));
    even.set(even.plus(sum));
    sum.set(sum.plus(x1.plus(x3)));
  }
  sums[2].set(sums[0].plus(sums[1]));
  for (const [i, sum] of sums.entries()) {
    f.store(to, sum, SUMS[i]);
    f.store(to, f32.convertI32S(sum).times(scale), SCALED_SUMS[i]);
  }
  f.store(to, even, EVEN_SUM);
}

/**
 * Stores 32 integers as words: even and odd inputs of four.
 * @param joined whether x_odd − 256 · x_even takes the place of x_odd; it fits 16 bits if x has 8.
 */
function storeWords(
  f: FunctionBuilder,
  to: Local<Int>,
  inputs: readonly Local<"v128">[],
  joined: boolean,
): void {
  // An odd input is in the upper half of a 64-bit lane.
  const wide = (v: Local<"v128">) =>
    joined ? i32x4.sub(v, v128.shuffle(i32x4.shl(v, 8), ZERO, [4, 0, 6, 2])) : v;
  for (let i = 0; i < inputs.length; i += 2) {
    f.store(to, pairWords(wide(inputs[i]), wide(inputs[i + 1])), 8 * i);
  }
}

/** Eight integers as words of two: even and odd inputs of four. */
export function pairWords(a: Value<"v128">, b: Value<"v128">): Value<"v128"> {
  const order = [0, 1, 4, 5, 2, 3, 6, 7];
  const narrow = i16x8.narrowI32x4S(a, b);
  return v128.shuffleBytes(narrow, ZERO, [...order, ...order.map((byte) => byte + 8)]);
}

const ZERO = i32x4.splat(0);

/** Stores 32 integers of 8 bits as bytes. */
function storeBytes(f: FunctionBuilder, to: Local<Int>, inputs: readonly Local<"v128">[]): void {
  f.store(to, packBytes(inputs.slice(0, 4)));
  f.store(to, packBytes(inputs.slice(4)), 16);
}

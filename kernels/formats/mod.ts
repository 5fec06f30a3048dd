/**
 * Table of weight formats, and functions over it: stored sizes, widening, narrowing.
 *
 * To add a format, add one file in this folder and one row to `FORMATS`.
 *
 * @module
 */
import { bytesOf, type HostArray } from "../tensor.ts";
import { hostArray } from "./elements.ts";
import { BF16, F16, F32 } from "./float.ts";
import type { Format } from "./format.ts";

export { BYTES, hostArray, hostView } from "./elements.ts";
export type { Chunk, Format, PanelCopy } from "./format.ts";

/** Dtypes that a weight may be stored in. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** The formats, by the dtype's name in safetensors files. */
export const FORMATS = { F32, F16, BF16 } satisfies Record<WeightDtype, Format>;

/**
 * A matrix W [N, K] in the backend's internal layout. `matmul` computes y = x · Wᵀ, K inputs to N
 * outputs; `embed` reads it as a table of N rows.
 */
export interface Weight {
  /** [N, K], independent of the order in the file. */
  readonly shape: readonly [N: number, K: number];
  /** Format of its numbers. */
  readonly dtype: WeightDtype;
}

/** Whether a name is the dtype of a weight format. */
export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return Object.hasOwn(FORMATS, dtype);
}

/** Bytes of `count` stored numbers; `count` is a multiple of the format's block. */
export function storedBytes(dtype: WeightDtype, count: number): number {
  const { block, bytes } = FORMATS[dtype];
  return count / block * bytes;
}

/** Numbers in `byteLength` stored bytes. */
export function numbersIn(dtype: WeightDtype, byteLength: number): number {
  const { block, bytes } = FORMATS[dtype];
  return byteLength / bytes * block;
}

/**
 * View of stored numbers as one integer each, to move them bit for bit.
 * @throws {RangeError} If a block of the format has several numbers.
 */
export function wordsOf(
  dtype: WeightDtype,
  { buffer, byteOffset, byteLength }: Uint8Array,
): Uint16Array | Uint32Array {
  const { block, bytes } = FORMATS[dtype];
  if (block !== 1) {
    throw new RangeError(
      `Cannot transpose "${dtype}": expected a block of one number, got ${block}; store it as NK`,
    );
  }
  const count = byteLength / bytes;
  return bytes === 2
    ? new Uint16Array(buffer, byteOffset, count)
    : new Uint32Array(buffer, byteOffset, count);
}

/**
 * Widens stored numbers to F32. Exact: every F16 and BF16 is an F32.
 * @param into receives the numbers, from index 0.
 * @param data stored numbers: F32, or the bits of a 16-bit dtype.
 * @param dtype format of the stored numbers.
 * @param start index of the first number, a multiple of the format's block.
 * @param count number of numbers to widen.
 * @example
 * ```ts
 * import { widen } from "@wgslm/wgslm/kernels";
 *
 * const numbers = new Float32Array(2);
 * widen(numbers, new Uint16Array([0x3c00, 0xc000]), "F16", 0, 2);
 * console.log(numbers); // Float32Array [1, -2]
 * ```
 */
export function widen(
  into: Float32Array,
  data: HostArray,
  dtype: WeightDtype,
  start: number,
  count: number,
): void {
  const stored = bytesOf(data).subarray(
    storedBytes(dtype, start),
    storedBytes(dtype, start + count),
  );
  FORMATS[dtype].decode(into.subarray(0, count), stored);
}

/**
 * Rounds F32 numbers to `dtype`: to nearest, ties to even, as PyTorch's `.to(dtype)`.
 * @param values the numbers; for F32, the same array is returned.
 * @param dtype format of the result; F16 and BF16 are returned as their bits.
 * @example
 * ```ts
 * import { narrow } from "@wgslm/wgslm/kernels";
 *
 * console.log(narrow(new Float32Array([1, -2]), "BF16")); // Uint16Array [16256, 49152]
 * ```
 */
export function narrow(values: Float32Array, dtype: WeightDtype): Float32Array | Uint16Array {
  const { view, encode } = FORMATS[dtype];
  if (view) return values;
  const stored = hostArray(dtype, values.length) as Uint16Array;
  encode(bytesOf(stored), values);
  return stored;
}

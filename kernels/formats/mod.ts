/**
 * Formats of weights: the table, and what is computed from a row of it.
 *
 * A new format is one file beside this one and one row of `FORMATS`.
 *
 * @module
 */
import { bytesOf, type HostArray } from "../tensor.ts";
import { hostArray } from "./elements.ts";
import { BF16, F16, F32 } from "./float.ts";
import type { Format } from "./format.ts";

export { BYTES, hostArray, hostView } from "./elements.ts";
export type { Chunk, Format, PanelCopy } from "./format.ts";

/** The dtypes that a weight may be stored in. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** Every format, by the name that files give it. */
export const FORMATS = { F32, F16, BF16 } satisfies Record<WeightDtype, Format>;

/**
 * A matrix [N, K] in the layout that its backend likes best; y = x · Wᵀ gives N numbers for K.
 * Serves `matmul` and, as a table of N rows, `embed`.
 */
export interface Weight {
  /** [N, K] whatever the order in the file. */
  readonly shape: readonly [N: number, K: number];
  /** How its numbers are stored. */
  readonly dtype: WeightDtype;
}

/** Whether a dtype's name is that of a weight format. */
export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return Object.hasOwn(FORMATS, dtype);
}

/** Bytes of `count` stored numbers, a multiple of the format's block. */
export function storedBytes(dtype: WeightDtype, count: number): number {
  const { block, bytes } = FORMATS[dtype];
  return count / block * bytes;
}

/** Numbers that so many stored bytes hold. */
export function numbersIn(dtype: WeightDtype, byteLength: number): number {
  const { block, bytes } = FORMATS[dtype];
  return byteLength / bytes * block;
}

/**
 * Stored numbers as one array element each, to move them bit for bit.
 * @throws {RangeError} when the format's blocks hold several numbers.
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
 * @param into receives the numbers, from its first element on.
 * @param data stored numbers: F32, or the bits of a 16-bit dtype.
 * @param dtype of the stored numbers.
 * @param start first number, a multiple of the format's block.
 * @param count of numbers.
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
 * @param values the numbers; returned as they are for F32.
 * @param dtype to store them in; F16 and BF16 give their bits.
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

/**
 * Formats of weights: the number types that a weight is stored in, and what the kernels know of each.
 *
 * @module
 */
import type { Dtype, HostArray } from "../tensor.ts";

/** The dtypes that a weight may be stored in. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** Bytes of one element. */
export const BYTES: Readonly<Record<Dtype, number>> = { F32: 4, F16: 2, BF16: 2, I32: 4, U32: 4 };

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

/** A zeroed host array for `count` elements of `dtype`. */
export function hostArray(dtype: Dtype, count: number): HostArray {
  switch (dtype) {
    case "F32":
      return new Float32Array(count);
    case "I32":
      return new Int32Array(count);
    case "U32":
      return new Uint32Array(count);
    default:
      return new Uint16Array(count);
  }
}

/**
 * Widens `count` stored elements, from `start`, into the front of `into`. Exact: every F16 and BF16 is an F32.
 * `data` holds the bits of a 16-bit dtype, or F32 numbers.
 */
export function widen(
  into: Float32Array,
  data: HostArray,
  dtype: WeightDtype,
  start: number,
  count: number,
): void {
  if (dtype === "F32") {
    into.set((data as Float32Array).subarray(start, start + count));
  } else if (dtype === "F16") {
    const f16 = new Float16Array(data.buffer, data.byteOffset + 2 * start, count);
    for (let i = 0; i < count; i++) into[i] = f16[i];
  } else {
    // A BF16 is the upper half of an F32.
    const bits = new Uint32Array(into.buffer, into.byteOffset, count);
    for (let i = 0; i < count; i++) bits[i] = data[start + i] << 16;
  }
}

/**
 * Rounds F32 numbers to what `dtype` stores, to the nearest and ties to even, as PyTorch's `.to(dtype)` does.
 * For F16 and BF16 the result holds bits.
 */
export function narrow(values: Float32Array, dtype: WeightDtype): Float32Array | Uint16Array {
  if (dtype === "F32") return values;
  if (dtype === "F16") return new Uint16Array(new Float16Array(values).buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) {
    const b = bits[i];
    // A NaN must stay one: rounding could carry it over to infinity.
    const isNan = (b & 0x7fffffff) > 0x7f800000;
    out[i] = isNan ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

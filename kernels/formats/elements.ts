/**
 * Host arrays of tensor dtypes: the typed array of each dtype, and its bytes per element.
 *
 * @module
 */
import type { Dtype, HostArray } from "../tensor.ts";

interface HostArrayType {
  readonly BYTES_PER_ELEMENT: number;
  new (count: number): HostArray;
  new (buffer: ArrayBufferLike, byteOffset: number, count: number): HostArray;
}

const ARRAYS: Readonly<Record<Dtype, HostArrayType>> = {
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
};

/**
 * Bytes per element of each dtype.
 * @example
 * ```ts
 * import { BYTES } from "@wgslm/wgslm/kernels";
 *
 * console.log(BYTES.BF16); // 2
 * ```
 */
export const BYTES = Object.fromEntries(
  Object.entries(ARRAYS).map(([dtype, { BYTES_PER_ELEMENT }]) => [dtype, BYTES_PER_ELEMENT]),
) as Readonly<Record<Dtype, number>>;

/**
 * Allocates a zeroed host array.
 * @param dtype type of the elements; 16-bit floats are held as their bits.
 * @param count number of elements.
 * @example
 * ```ts
 * import { hostArray } from "@wgslm/wgslm/kernels";
 *
 * console.log(hostArray("I32", 2)); // Int32Array [0, 0]
 * ```
 */
export function hostArray(dtype: Dtype, count: number): HostArray {
  return new ARRAYS[dtype](count);
}

/** View of `count` elements of `dtype` in `buffer`, from `byteOffset` on. */
export function hostView(
  dtype: Dtype,
  buffer: ArrayBufferLike,
  byteOffset: number,
  count: number,
): HostArray {
  return new ARRAYS[dtype](buffer, byteOffset, count);
}

/**
 * Static assertion of a layout's size, next to its drawing.
 * @throws {RangeError} If the sizes differ.
 */
export function expectSize(what: string, bytes: number, expected: number): void {
  if (bytes === expected) return;
  throw new RangeError(`Cannot lay out ${what}: expected ${expected} bytes, got ${bytes}`);
}

/**
 * F64 and integers: formats of files whose numbers are converted to F32 before use.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";

interface ArrayType<A> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, count: number): A;
}

/** Numbers of a typed array, rounded to F32. */
export function numbers(Elements: ArrayType<ArrayLike<number>>): StoredFormat {
  return {
    block: 1,
    bytes: Elements.BYTES_PER_ELEMENT,
    decode(into, { buffer, byteOffset }) {
      into.set(new Elements(buffer, byteOffset, into.length));
    },
  };
}

/** 64-bit integers, rounded to F64 and then to F32. */
export function integers64(Elements: ArrayType<BigInt64Array | BigUint64Array>): StoredFormat {
  return {
    block: 1,
    bytes: Elements.BYTES_PER_ELEMENT,
    decode(into, { buffer, byteOffset }) {
      const integers = new Elements(buffer, byteOffset, into.length);
      for (let i = 0; i < into.length; i++) into[i] = Number(integers[i]);
    },
  };
}

/** 64-bit floats. */
export const F64: StoredFormat = numbers(Float64Array);
/** 8-bit integers. */
export const I8: StoredFormat = numbers(Int8Array);
/** 16-bit integers. */
export const I16: StoredFormat = numbers(Int16Array);
/** 32-bit integers. */
export const I32: StoredFormat = numbers(Int32Array);
/** 64-bit integers. */
export const I64: StoredFormat = integers64(BigInt64Array);

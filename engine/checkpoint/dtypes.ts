/**
 * Stored dtypes of all checkpoint formats, by name.
 *
 * @module
 */
import type { StoredFormat } from "../../kernels/formats/format.ts";
import { STORED_FORMATS } from "../../kernels/formats/stored.ts";
import { STORED } from "./safetensors.ts";

const DTYPES: Readonly<Record<string, StoredFormat>> = { ...STORED, ...STORED_FORMATS };

/** The format of a stored dtype. */
export function formatOf(dtype: string): StoredFormat {
  return DTYPES[dtype];
}

/** Bytes of `count` stored numbers; `count` is a multiple of the dtype's block. */
export function bytesOfNumbers(dtype: string, count: number): number {
  const { block, bytes } = DTYPES[dtype];
  return count / block * bytes;
}

/** Converts stored bytes of any dtype to F32. */
export function decode(bytes: Uint8Array, dtype: string): Float32Array {
  const format = DTYPES[dtype];
  const out = new Float32Array(bytes.length / format.bytes * format.block);
  format.decode(out, bytes);
  return out;
}

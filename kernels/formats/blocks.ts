/**
 * Helpers of block formats: loops over blocks, and the scales of a block.
 *
 * A block is 32 or 256 neighbouring inputs of one output, held as small integers q with one or more
 * scales: w = d·q, or w = d·q + m. Formulas follow ggml's reference quantisers, operation by
 * operation in F32, so that blocks are equal bit for bit.
 *
 * @module
 */
import type { Format, StoredFormat } from "./format.ts";

/** Numbers per block of the simple formats, and per sub-block of the K formats. */
export const QK = 32;

/** Numbers of one block: `values[i]` …; bytes of one block: `view` from `at` on. */
type BlockCode = (values: Float32Array, i: number, view: DataView, at: number) => void;

/** Codec of whole arrays from the decoder and the encoder of one block. */
export function blockCodec(
  { block, bytes }: Pick<StoredFormat, "block" | "bytes">,
  { decode, encode }: { readonly decode: BlockCode; readonly encode: BlockCode },
): Pick<Format, "block" | "bytes" | "view" | "decode" | "encode"> {
  const each = (code: BlockCode, values: Float32Array, stored: Uint8Array) => {
    const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
    for (let i = 0, at = 0; i < values.length; i += block, at += bytes) code(values, i, view, at);
  };
  return {
    block,
    bytes,
    view: null,
    decode: (into, stored) => each(decode, into, stored),
    encode: (into, values) => each(encode, values, into),
  };
}

/** The largest magnitude of 32 numbers. */
export function largestOf(values: Float32Array, i: number): number {
  let most = 0;
  for (let j = i; j < i + QK; j++) most = Math.max(most, Math.abs(values[j]));
  return most;
}

/** The number of the largest magnitude, the first one of several. */
export function extremeOf(values: Float32Array, i: number): number {
  let [most, extreme] = [0, 0];
  for (let j = i; j < i + QK; j++) {
    const size = Math.abs(values[j]);
    if (size > most) [most, extreme] = [size, values[j]];
  }
  return extreme;
}

/** The smallest and the largest of 32 numbers. */
export function rangeOf(values: Float32Array, i: number): [min: number, max: number] {
  let [min, max] = [values[i], values[i]];
  for (let j = i + 1; j < i + QK; j++) {
    if (values[j] < min) min = values[j];
    if (values[j] > max) max = values[j];
  }
  return [min, max];
}

/** 1/d in F32; 0 for 0. */
export function inverseOf(d: number): number {
  return d === 0 ? 0 : Math.fround(1 / d);
}

/** ⌊x·factor + offset⌋ in F32, at most `most`; x·factor + offset is not negative. */
export function codeOf(x: number, factor: number, offset: number, most: number): number {
  return Math.min(Math.trunc(Math.fround(Math.fround(x * factor) + offset)), most);
}

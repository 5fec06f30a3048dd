/**
 * Decoders of block formats that no backend computes with: weights are widened when they are
 * loaded. Formulas follow gguf-py (`gguf/quants.py`), operation by operation in F32, so that
 * numbers are equal bit for bit.
 *
 * @module
 */
import { expectSize } from "./elements.ts";
import type { StoredFormat } from "./format.ts";
import { HALVES } from "./half.ts";

/** Decodes or encodes one block: bytes of `view` from `at` on, and numbers `into[i]` …. */
export type DecodeBlock = (into: Float32Array, i: number, view: DataView, at: number) => void;

/** A format from its decoder of one block, and the bound of a block's magnitudes. */
export function storedBlocks(
  block: number,
  bytes: number,
  decode: DecodeBlock,
  bound?: StoredFormat["bound"],
): StoredFormat {
  return {
    block,
    bytes,
    ...bound && { bound },
    decode(into, stored) {
      expectSize("blocks", stored.length, into.length / block * bytes);
      const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
      for (let i = 0, at = 0; i < into.length; i += block, at += bytes) decode(into, i, view, at);
    },
  };
}

/** An encoder of whole blocks from the encoder of one. */
export function blockEncoder(
  block: number,
  bytes: number,
  encode: DecodeBlock,
): (into: Uint8Array, values: Float32Array) => void {
  return (into, values) => {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    for (let i = 0, at = 0; i < values.length; i += block, at += bytes) encode(values, i, view, at);
  };
}

/** The F16 at byte `at`. */
export function half(view: DataView, at: number): number {
  return HALVES.get(view, at);
}

/** The bound of a block whose numbers are at most `most` times the F16 at byte `offset`. */
export function boundByHalf(offset: number, most: number): StoredFormat["bound"] {
  return (view, at) => Math.abs(half(view, at + offset)) * most;
}

/** Numbers of a large block. */
export const QK_K = 256;

const { fround } = Math;

/** x · y, rounded to F32. */
export function times(x: number, y: number): number {
  return fround(x * y);
}

/** x − y, rounded to F32. */
export function minus(x: number, y: number): number {
  return fround(x - y);
}

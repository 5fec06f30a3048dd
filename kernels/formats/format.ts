/**
 * The record of a weight format: all that the rest of the program knows about how numbers are stored.
 *
 * Think of a weight [N, K] as N rows of K / `block` blocks. A format says how many bytes a block has and how
 * its numbers are recovered; matmul, embedding, the packer and the uploader call the record and compare no
 * names. A record holds no state and no tensor.
 *
 * @module
 */

/** A weight format. */
export interface Format {
  /** Numbers in a block: neighbouring inputs of one output. */
  readonly block: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** The numbers where they are stored, if that is as F32; null in formats that must be decoded. */
  readonly view: ((stored: Uint8Array) => Float32Array) | null;
  /** Decodes whole blocks to `into.length` numbers. Exact; the oracle of every other form. */
  decode(into: Float32Array, stored: Uint8Array): void;
  /** Rounds numbers to whole blocks: to the nearest, ties to even, as PyTorch's `.to(dtype)` does. */
  encode(into: Uint8Array, values: Float32Array): void;
}

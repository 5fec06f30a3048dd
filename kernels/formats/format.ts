/**
 * The record of a weight format: all that the rest of the program knows about how numbers are stored.
 *
 * Think of a weight [N, K] as N rows of K / `block` blocks. A format says how many bytes a block has and how
 * its numbers are recovered; matmul, embedding, the packer and the uploader call the record and compare no
 * names. A record holds no state and no tensor.
 *
 * @module
 */
import type { StoredOrder } from "../tensor.ts";
import type { Shader } from "../wgsl/shader.ts";

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
  readonly wgsl: WgslFormat;
}

/** A format in the storage buffers of a GPU; `wgsl.ts` draws the panels. */
export interface WgslFormat {
  /** WGSL type of a group, four neighbouring inputs of one output: the element of a binding's array. */
  readonly group: string;
  /** The body of a function that returns group `at` of `array` as a vec4f. */
  load(array: string, at: string): string;
  /** The shader that moves a chunk of a file's rows into panels. */
  pack(packing: GpuPacking): PackShader;
}

/** A weight on its way into one buffer of a GPU. */
export interface GpuPacking {
  readonly shape: readonly [N: number, K: number];
  readonly stored: StoredOrder;
  /** Outputs first … first + count, which the buffer holds. */
  readonly first: number;
  readonly count: number;
}

/** Rows of a file that are packed at once: what the shader that packs reads, as other shaders read a step. */
export interface Chunk {
  /** Place of the first row among the buffer's outputs, or among all inputs where rows are inputs. */
  readonly row: number;
  readonly rows: number;
}

/** A shader that packs, and its workgroups for a chunk. */
export interface PackShader extends Shader {
  readonly groups: (chunk: Chunk) => number;
}

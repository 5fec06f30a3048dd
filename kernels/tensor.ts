/**
 * Dtypes, shapes and the numbers that are stored in them.
 *
 * One legend of letters for every kernel, in all its forms, and for the docs:
 * T rows (tokens of a step), C width of the model, H query heads, G key/value heads, D head size,
 * F hidden width of the MLP, V vocabulary, S slots of the KV cache, P positions of a table;
 * N outputs and K inputs of a weight.
 *
 * @module
 */

/**
 * How a number is stored, spelt as safetensors spells it. Arithmetic is F32 whatever the storage.
 */
export type Dtype = "F32" | "F16" | "BF16" | "I32" | "U32";

/** The array that holds a dtype on the host; 16-bit floats are held as their bits. */
export type HostArray = Float32Array | Uint16Array | Int32Array | Uint32Array;

/** What memory is used for; the tracker keeps a current and a peak figure of each, in bytes. */
export type MemoryClass = "weights" | "kvCache" | "activations" | "staging";

/** A row-major array that lives on a backend. Only the backend that made it can use it. */
export interface Tensor {
  /** Extents, the outermost first. */
  readonly shape: readonly number[];
  /** How its numbers are stored. */
  readonly dtype: Dtype;
}

/**
 * Gives rows `row` … `row + count` of a weight as they are stored: whole blocks of the weight's
 * dtype, little-endian, that fill `into`. `into` is aligned for an array of the dtype's numbers.
 */
export type FillRows = (row: number, count: number, into: Uint8Array) => void | Promise<void>;

/**
 * The order of a weight's rows in its file: outputs outermost (torch.nn.Linear), or
 * inputs (GPT-2's Conv1D).
 */
export type StoredOrder = "NK" | "KN";

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
}

/**
 * The bytes of a typed array, shared and not copied. Every platform of Deno is
 * little-endian, as the files are.
 */
export function bytesOf(data: ArrayBufferView): Uint8Array<ArrayBuffer> {
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}

/**
 * Tensors: dtypes, shapes and host arrays.
 *
 * Letters of shapes, in all kernels and docs:
 *
 *     T  rows: tokens of a step       F  hidden width of the MLP
 *     C  width of the model           V  vocabulary
 *     H  query heads                  S  slots of the KV cache
 *     G  key/value heads              P  positions of a table
 *     D  head size                    N, K  outputs and inputs of a weight
 *
 * @module
 */

/** Storage of a number, spelt as in safetensors. Arithmetic is F32 whatever the storage. */
export type Dtype = "F32" | "F16" | "BF16" | "I32" | "U32";

/** Array type of a dtype on the host; 16-bit floats are kept as their bits. */
export type HostArray = Float32Array | Uint16Array | Int32Array | Uint32Array;

/** Use of memory; the tracker counts the current and peak bytes of each class. */
export type MemoryClass = "weights" | "kvCache" | "activations" | "staging";

/** A row-major array on a backend. Only the backend that made it can use it. */
export interface Tensor {
  /** Extents, outermost first. */
  readonly shape: readonly number[];
  /** Storage of its numbers. */
  readonly dtype: Dtype;
}

/**
 * Writes rows `row` … `row + count` of a weight, as stored, to `into`: whole blocks of the weight's
 * dtype, little-endian, which fill it. `into` is aligned for an array of the dtype's numbers.
 */
export type FillRows = (row: number, count: number, into: Uint8Array) => void | Promise<void>;

/**
 * Order of a weight in its file: "NK" has rows of inputs, one per output (torch.nn.Linear); "KN"
 * has rows of outputs, one per input (GPT-2's Conv1D).
 */
export type StoredOrder = "NK" | "KN";

/**
 * Number of elements of a shape.
 * @param shape extents, outermost first.
 * @example
 * ```ts
 * import { sizeOf } from "@wgslm/wgslm/kernels";
 *
 * console.log(sizeOf([2, 3])); // 6
 * ```
 */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
}

/**
 * Bytes of a typed array, shared and not copied. Little-endian, as files are: so is every platform
 * of Deno.
 * @param data the array or view.
 * @example
 * ```ts
 * import { bytesOf } from "@wgslm/wgslm/kernels";
 *
 * console.log(bytesOf(new Float32Array([1]))); // Uint8Array [0, 0, 128, 63]
 * ```
 */
export function bytesOf(data: ArrayBufferView): Uint8Array<ArrayBuffer> {
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}

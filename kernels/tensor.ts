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

/** How a number is stored, spelt as safetensors spells it. Arithmetic is F32 whatever the storage. */
export type Dtype = "F32" | "F16" | "BF16" | "I32" | "U32";

/** The dtypes that a weight may be stored in. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** Bytes of one element. */
export const BYTES: Readonly<Record<Dtype, number>> = { F32: 4, F16: 2, BF16: 2, I32: 4, U32: 4 };

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
 * A matrix [N, K] in the layout that its backend likes best; y = x · Wᵀ gives N numbers for K.
 * Serves `matmul` and, as a table of N rows, `embed`.
 */
export interface Weight {
  /** [N, K] whatever the order in the file. */
  readonly shape: readonly [N: number, K: number];
  /** How its numbers are stored. */
  readonly dtype: WeightDtype;
}

/** Gives rows `row` … `row + count` of a weight as they are stored, in the weight's dtype (F16 and BF16 as bits). */
export type FillRows = (
  row: number,
  count: number,
  into: Float32Array | Uint16Array,
) => void | Promise<void>;

/** The order of a weight's rows in its file: outputs outermost (torch.nn.Linear), or inputs (GPT-2's Conv1D). */
export type StoredOrder = "NK" | "KN";

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
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

/** The bytes of a typed array, shared and not copied. Every platform of Deno is little-endian, as the files are. */
export function bytesOf(data: HostArray): Uint8Array<ArrayBuffer> {
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
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

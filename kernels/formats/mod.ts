/**
 * Table of weight formats, and functions over it: stored sizes, widening, narrowing.
 *
 * To add a format, add one file in this folder and one row to `FORMATS`.
 *
 * @module
 */
import { bytesOf, type HostArray } from "../tensor.ts";
import { BF16, F16, F32 } from "./float.ts";
import type { Format, WasmFormat, WeightDtype, WgslFormat } from "./format.ts";
import { IQ4_NL, IQ4_XS } from "./iq4.ts";
import { Q2_K } from "./q2_k.ts";
import { Q3_K } from "./q3_k.ts";
import { Q4_K } from "./q4_k.ts";
import { Q5_K } from "./q5_k.ts";
import { Q6_K } from "./q6_k.ts";
import { Q4_0 } from "./q4_0.ts";
import { Q4_1 } from "./q4_1.ts";
import { Q5_0 } from "./q5_0.ts";
import { Q5_1 } from "./q5_1.ts";
import { Q8_0 } from "./q8_0.ts";

export { BYTES, hostArray, hostView } from "./elements.ts";
/** Dtypes whose block is one number. */
export type FloatDtype = "F32" | "F16" | "BF16";

export type { Chunk, Format, PanelCopy, StoredFormat, WeightDtype } from "./format.ts";

/** The formats, by the dtype's name in safetensors and GGUF files. */
export const FORMATS: Readonly<Record<WeightDtype, Format>> = {
  F32,
  F16,
  BF16,
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  IQ4_NL,
  IQ4_XS,
};

/** Dtypes that the option `dtype` takes. */
export const DTYPES: readonly WeightDtype[] = [
  "F32",
  "F16",
  "BF16",
  "Q8_0",
  "Q4_0",
  "Q4_1",
  "Q4_K",
  "Q5_K",
  "Q6_K",
];

/** Names of formats that stand for another: "8 bits" and "4 bits" in the best simple format. */
export const ALIASES = { Q8: "Q8_0", Q4: "Q4_1" } as const satisfies Record<string, WeightDtype>;

/** The dtype of a name or an alias. */
export function dtypeOf(name: WeightDtype | keyof typeof ALIASES): WeightDtype {
  return name in ALIASES ? ALIASES[name as keyof typeof ALIASES] : name as WeightDtype;
}

/** Whether a block of the format has several numbers, which share a scale. */
export function isBlocked(dtype: WeightDtype): boolean {
  return FORMATS[dtype].block > 1;
}

/**
 * The encoder of a dtype.
 * @throws {TypeError} If weights can only be read in it.
 */
export function encoderOf(dtype: WeightDtype): NonNullable<Format["encode"]> {
  const { encode } = FORMATS[dtype];
  if (encode) return encode;
  throw new TypeError(`Cannot quantise to "${dtype}": expected one of ${DTYPES.join(" ")}`);
}

/** Bits per number, scales included. */
export function bitsOf(dtype: WeightDtype): number {
  const { block, bytes } = FORMATS[dtype];
  return 8 * bytes / block;
}

/** Dtype for rows of K numbers: the given one, or the next that has blocks of a divisor of K. */
export function dtypeForRows(dtype: WeightDtype, K: number): WeightDtype {
  const { block, instead } = FORMATS[dtype];
  return instead && K % block ? dtypeForRows(instead, K) : dtype;
}

/**
 * The WASM form of a dtype.
 * @throws {TypeError} If it has none; `Backend.holds` says so.
 */
export function wasmOf(dtype: WeightDtype): WasmFormat {
  return FORMATS[dtype].wasm ?? noForm(dtype, "WebAssembly");
}

/**
 * The WGSL form of a dtype.
 * @throws {TypeError} If it has none; `Backend.holds` says so.
 */
export function wgslOf(dtype: WeightDtype): WgslFormat {
  return FORMATS[dtype].wgsl ?? noForm(dtype, "WebGPU");
}

function noForm(dtype: WeightDtype, where: string): never {
  throw new TypeError(`Cannot compute with "${dtype}": expected a form for ${where}; use F16`);
}

/**
 * A matrix W [N, K] in the backend's internal layout. `matmul` computes y = x · Wᵀ, K inputs to N
 * outputs; `embed` reads it as a table of N rows.
 */
export interface Weight {
  /** [N, K], independent of the order in the file. */
  readonly shape: readonly [N: number, K: number];
  /** Format of its numbers. */
  readonly dtype: WeightDtype;
}

/** Whether a name is the dtype of a weight format. */
export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return Object.hasOwn(FORMATS, dtype);
}

/** Bytes of `count` stored numbers; `count` is a multiple of the format's block. */
export function storedBytes(dtype: WeightDtype, count: number): number {
  const { block, bytes } = FORMATS[dtype];
  return count / block * bytes;
}

/** Numbers in `byteLength` stored bytes. */
export function numbersIn(dtype: WeightDtype, byteLength: number): number {
  const { block, bytes } = FORMATS[dtype];
  return byteLength / bytes * block;
}

/**
 * View of stored numbers as one integer each, to move them bit for bit.
 * @throws {RangeError} If a block of the format has several numbers.
 */
export function wordsOf(
  dtype: WeightDtype,
  { buffer, byteOffset, byteLength }: Uint8Array,
): Uint16Array | Uint32Array {
  const { block, bytes } = FORMATS[dtype];
  if (block !== 1) {
    throw new RangeError(
      `Cannot transpose "${dtype}": expected a block of one number, got ${block}; store it as NK`,
    );
  }
  const count = byteLength / bytes;
  return bytes === 2
    ? new Uint16Array(buffer, byteOffset, count)
    : new Uint32Array(buffer, byteOffset, count);
}

/**
 * Widens stored numbers to F32. Exact: every F16 and BF16 is an F32.
 * @param into receives the numbers, from index 0.
 * @param data stored numbers: F32, the bits of a 16-bit dtype, or the bytes of blocks.
 * @param dtype format of the stored numbers.
 * @param start index of the first number, a multiple of the format's block.
 * @param count number of numbers to widen.
 * @example
 * ```ts
 * import { widen } from "@wgslm/wgslm/kernels";
 *
 * const numbers = new Float32Array(2);
 * widen(numbers, new Uint16Array([0x3c00, 0xc000]), "F16", 0, 2);
 * console.log(numbers); // Float32Array [1, -2]
 * ```
 */
export function widen(
  into: Float32Array,
  data: HostArray | Uint8Array,
  dtype: WeightDtype,
  start: number,
  count: number,
): void {
  const stored = bytesOf(data).subarray(
    storedBytes(dtype, start),
    storedBytes(dtype, start + count),
  );
  FORMATS[dtype].decode(into.subarray(0, count), stored);
}

/**
 * Encodes F32 numbers as `dtype`: to nearest, ties to even, as PyTorch's `.to(dtype)`; whole blocks
 * of a blocked dtype as ggml's reference quantisers.
 * @param values the numbers; for F32, the same array is returned.
 * @param dtype format of the result; F16 and BF16 are returned as their bits, blocks as bytes.
 * @example
 * ```ts
 * import { narrow } from "@wgslm/wgslm/kernels";
 *
 * console.log(narrow(new Float32Array([1, -2]), "BF16")); // Uint16Array [16256, 49152]
 * ```
 */
export function narrow(values: Float32Array, dtype: FloatDtype): Float32Array | Uint16Array;
/**
 * Encodes F32 numbers as any dtype.
 * @param values the numbers, in whole blocks; for F32, the same array is returned.
 * @param dtype format of the result.
 */
export function narrow(
  values: Float32Array,
  dtype: WeightDtype,
): Float32Array | Uint16Array | Uint8Array;
export function narrow(
  values: Float32Array,
  dtype: WeightDtype,
): Float32Array | Uint16Array | Uint8Array {
  const { view, bytes } = FORMATS[dtype];
  if (view) return values;
  const stored = new Uint8Array(storedBytes(dtype, values.length));
  encoderOf(dtype)(stored, values);
  return bytes === 2 ? new Uint16Array(stored.buffer) : stored;
}

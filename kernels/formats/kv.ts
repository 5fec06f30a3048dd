/**
 * Formats of the KV cache: rows of a head, written number by number and read by attention.
 *
 *     F32    tensor F32 [G, S, D]       a row of D numbers
 *     F16    tensor F16 [G, S, D]       a row of D numbers, two in a word
 *     Q8_0   tensor U32 [G, S, W]       a row of W = D/4 + ⌈D/64⌉ words:
 *
 *              ┌──────────┬──────────┬─ … ┬───────┬───────┐
 *              │ q3…q0    │ q7…q4    │    │ d1 d0 │ d3 d2 │    x = d · q,  q in −127 … 127
 *              └──────────┴──────────┴─ … ┴───────┴───────┘
 *
 * Blocks and their rounding are those of `q8_0.ts`, but bytes come first and scales after them, so
 * that both are whole words: two lanes of a GPU cannot write one word. F16 rounds to nearest, ties
 * to even. Numbers and scales above 65504 become 65504: an infinity would make every later row NaN.
 * A cache's format follows from the dtype of its tensors.
 *
 * @module
 */
import { bytesOf, type Dtype, type HostArray } from "../tensor.ts";
import { QK } from "./blocks.ts";
import { BYTES } from "./elements.ts";
import { HALVES } from "./half.ts";
import { Q8_0 } from "./q8_0.ts";
import { KV_WASM, type KvWasm } from "./kv_wasm.ts";
import { KV_WGSL, type KvWgsl } from "./kv_wgsl.ts";

/** Dtype of keys and values in the cache. */
export type KvDtype = "F32" | "F16" | "Q8_0";

/** Format of a cache. */
export interface KvFormat {
  /** Its name. */
  readonly dtype: KvDtype;
  /** Dtype of the tensors of keys and values. */
  readonly tensor: Dtype;
  /** Largest error of a number: a share of itself, or of the largest number of its block. */
  readonly rounding: number;
  /** Elements of a tensor's row that hold D numbers. */
  width(D: number): number;
  /** D of a row of `width` elements. */
  headDim(width: number): number;
  /** Heads of other sizes than multiples of this take the format `instead`. */
  readonly multiple: number;
  readonly instead: KvDtype;
  /** Typed arrays: packs a row of D numbers, and unpacks it. Null if a row is its numbers. */
  readonly rows: null | {
    pack(into: HostArray, numbers: Float32Array): void;
    unpack(into: Float32Array, row: HostArray): void;
  };
  /** WASM code of both; null if a row is its numbers. */
  readonly wasm: KvWasm | null;
  /** WGSL code of both; null if a row is its numbers. */
  readonly wgsl: KvWgsl | null;
}

/** Largest finite F16. */
const MOST = 65504;

const F32: KvFormat = {
  dtype: "F32",
  tensor: "F32",
  rounding: 0,
  width: (D) => D,
  headDim: (width) => width,
  multiple: 1,
  instead: "F32",
  rows: null,
  wasm: null,
  wgsl: null,
};

const F16: KvFormat = {
  dtype: "F16",
  tensor: "F16",
  rounding: 2 ** -11,
  width: (D) => D,
  headDim: (width) => width,
  multiple: 2,
  instead: "F32",
  rows: {
    pack(into, numbers) {
      HALVES.narrow(bytesOf(into), numbers.map((x) => Math.max(-MOST, Math.min(MOST, x))));
    },
    unpack: (into, row) => HALVES.widen(into, bytesOf(row)),
  },
  wasm: KV_WASM.F16,
  wgsl: KV_WGSL.F16,
};

const Q8: KvFormat = {
  dtype: "Q8_0",
  tensor: "U32",
  rounding: 1 / 254,
  width: (D) => D / 4 + Math.ceil(D / (2 * QK)),
  // A block has 8 words and half a word; an odd last one has a whole word for its scale.
  headDim: (width) => QK * Math.floor(2 * width / 17),
  multiple: QK,
  instead: "F16",
  rows: {
    pack(into, numbers) {
      const blocks = new Uint8Array(Q8_0.bytes * numbers.length / QK);
      Q8_0.encode!(blocks, numbers.map((x) => Math.max(-127 * MOST, Math.min(127 * MOST, x))));
      const row = bytesOf(into);
      eachBlock(numbers.length, (at, bytes, scale) => {
        row.set(blocks.subarray(at, at + 2), scale);
        row.set(blocks.subarray(at + 2, at + Q8_0.bytes), bytes);
      });
    },
    unpack(into, row) {
      const blocks = new Uint8Array(Q8_0.bytes * into.length / QK);
      const stored = bytesOf(row);
      eachBlock(into.length, (at, bytes, scale) => {
        blocks.set(stored.subarray(scale, scale + 2), at);
        blocks.set(stored.subarray(bytes, bytes + QK), at + 2);
      });
      Q8_0.decode(into, blocks);
    },
  },
  wasm: KV_WASM.Q8_0,
  wgsl: KV_WGSL.Q8_0,
};

/** Byte of each block in a file's row, and of its numbers and its scale in a row of the cache. */
function eachBlock(D: number, body: (at: number, bytes: number, scale: number) => void): void {
  for (let b = 0; b < D / QK; b++) body(Q8_0.bytes * b, QK * b, D + 2 * b);
}

/** The formats, by name. */
export const KV_FORMATS: Readonly<Record<KvDtype, KvFormat>> = { F32, F16, Q8_0: Q8 };

/** Values of the option `kvDtype`. */
export const KV_DTYPES = Object.keys(KV_FORMATS) as KvDtype[];

/** Format for heads of D numbers: the given one, or the next that holds them. */
export function kvFormatFor(dtype: KvDtype, D: number): KvFormat {
  const { multiple, instead } = KV_FORMATS[dtype];
  return D % multiple ? kvFormatFor(instead, D) : KV_FORMATS[dtype];
}

/** Format of a cache whose tensors have a dtype; undefined if there is none. */
export function kvFormatOf(tensor: Dtype): KvFormat | undefined {
  return Object.values(KV_FORMATS).find((format) => format.tensor === tensor);
}

/** Bytes of a row of D numbers. */
export function kvRowBytes({ tensor, width }: KvFormat, D: number): number {
  return BYTES[tensor] * width(D);
}

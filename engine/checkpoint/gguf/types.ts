/**
 * Tensor types of GGUF files: their numbers (`enum ggml_type`) and names, and the numbers of
 * several bytes in a block, whose bytes a big-endian file has in the other order.
 *
 * @module
 */
import { STORED_FORMATS } from "../../../kernels/formats/stored.ts";

/** Numbers of several bytes in a block: `count` of them, `bytes` each, from byte `at` on. */
export type Words = readonly [at: number, bytes: number, count?: number];

/** A tensor type. */
export interface GgufType {
  /** A key of `STORED_FORMATS`. */
  readonly name: string;
  readonly words: readonly Words[];
}

/** A block of one number. */
const number = (name: string): GgufType => type(name, [0, STORED_FORMATS[name].bytes]);

const type = (name: string, ...words: Words[]): GgufType => ({ name, words });

/** The types by their numbers; 4, 5, 31 to 33 and 36 to 38 were removed from ggml. */
export const TYPES: Readonly<Record<number, GgufType>> = {
  0: number("F32"),
  1: number("F16"),
  2: type("Q4_0", [0, 2]),
  3: type("Q4_1", [0, 2, 2]),
  6: type("Q5_0", [0, 2], [2, 4]),
  7: type("Q5_1", [0, 2, 2], [4, 4]),
  8: type("Q8_0", [0, 2]),
  9: type("Q8_1", [0, 4, 2]),
  10: type("Q2_K", [80, 2, 2]),
  11: type("Q3_K", [108, 2]),
  12: type("Q4_K", [0, 2, 2]),
  13: type("Q5_K", [0, 2, 2]),
  14: type("Q6_K", [208, 2]),
  15: type("Q8_K", [0, 4], [260, 2, 16]),
  16: type("IQ2_XXS", [0, 2], ...Array.from({ length: 8 }, (_, i): Words => [6 + 8 * i, 4])),
  17: type("IQ2_XS", [0, 2, 33]),
  18: type("IQ3_XXS", [0, 2], [66, 4, 8]),
  19: type("IQ1_S", [0, 2], [34, 2, 8]),
  20: type("IQ4_NL", [0, 2]),
  21: type("IQ3_S", [0, 2]),
  22: type("IQ2_S", [0, 2]),
  23: type("IQ4_XS", [0, 2, 2]),
  24: number("I8"),
  25: number("I16"),
  26: number("I32"),
  27: number("I64"),
  28: number("F64"),
  29: type("IQ1_M", [48, 2, 4]),
  30: number("BF16"),
  34: type("TQ1_0", [52, 2]),
  35: type("TQ2_0", [64, 2]),
  39: type("MXFP4"),
  40: type("NVFP4"),
};

/**
 * Tensor types of GGUF files: their numbers (`enum ggml_type`) and names, and the numbers of
 * several bytes in a block, whose bytes a big-endian file has in the other order.
 *
 * @module
 */
import { STORED_FORMATS } from "../../../kernels/formats/stored.ts";

/** Numbers of several bytes in a block: `count` of them, `bytes` each, from byte `at` on. */
export interface Words {
  readonly at: number;
  readonly bytes: number;
  readonly count: number;
}

/** A tensor type. */
export interface GgufType {
  /** A key of `STORED_FORMATS`. */
  readonly name: string;
  readonly words: readonly Words[];
}

const words = (at: number, bytes: number, count = 1): Words => ({ at, bytes, count });

/** A block of one number. */
const number = (name: string): GgufType => ({
  name,
  words: [words(0, STORED_FORMATS[name].bytes)],
});

/** The types by their numbers; 4, 5, 31 to 33 and 36 to 38 were removed from ggml. */
export const TYPES: Readonly<Record<number, GgufType>> = {
  0: number("F32"),
  1: number("F16"),
  24: number("I8"),
  25: number("I16"),
  26: number("I32"),
  27: number("I64"),
  28: number("F64"),
  30: number("BF16"),
};

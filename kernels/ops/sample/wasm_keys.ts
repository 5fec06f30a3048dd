/**
 * Scratch layout, parts and sortable keys of the sampling kernels in WASM.
 *
 * The key of an F32 is an unsigned integer with the same order: the bits of a positive number with
 * the sign bit set; of a negative number, all bits inverted.
 *
 * @module
 */
import {
  f32,
  type Func,
  i32x4,
  type Int,
  type Ints,
  type Local,
  lower,
  type Value,
} from "../../asm/assembler.ts";

/** Ids per part; a part is a work item. */
export const PART = 2048;
/** Ids per group. Each of the four lanes keeps the greatest key of its 16 ids. */
export const GROUP = 64;
/**
 * Bytes of a part's result: best id (I32), its value (F32), sum of the part's masses (F64).
 */
export const PART_BYTES = 16;
/** Least key of a finite number; the keys below are those of −∞ and negative NaN, never drawn. */
export const LEAST_KEY = 0x00800000;
/** Greatest key of a finite number. */
export const GREATEST_KEY = 0xff7fffff;
/** Key of a non-finite logit; no finite number has it. */
export const NO_KEY = 0xffffffff;

/** Byte offsets of the words of `state`. */
export const STATE = { threshold: 0, bestKey: 4, draws: 8 } as const;
/** Values of the word `draws`: a logit was not finite; temperature 0; with noise. */
export const [REFUSED, GREEDY, DRAWN] = [0, 1, 2];

/** Scales the logits of the parts begin … end − 1 to `keys`, and keeps the `maxima`. */
export type Scale = Func<
  & Ints<"logits" | "settings" | "seen" | "keys" | "maxima" | "begin" | "end">
  & { readonly reduction: "f64" },
  "void"
>;

/** Bytes of each shared scratch buffer, by operand name. */
export function sampleWasmScratch(V: number) {
  const ids = Math.ceil(V / GROUP) * GROUP;
  return {
    keys: 4 * ids,
    masses: 4 * ids,
    /** Greatest keys, four per group. */
    maxima: 16 * ids / GROUP,
    /** Keys still in the range of a search, and their masses; padded by a vector. */
    listKeys: 4 * ids + 16,
    listMasses: 4 * ids + 16,
    parts: PART_BYTES * Math.ceil(V / PART),
    state: 16,
  };
}

/** The keys of four numbers. */
export function keysOf(bits: Local<"v128">): Value<"v128"> {
  return bits.xor(i32x4.shrS(bits, 31).or(i32x4.splat(0x80000000)));
}
/** The numbers of four keys. */
export function valuesOf(keys: Local<"v128">): Value<"v128"> {
  const positive = i32x4.shrS(keys, 31);
  return keys.xor(positive.xor(i32x4.splat(-1)).or(i32x4.splat(0x80000000)));
}
/** The number of a key. */
export function valueOf(key: Local<Int>): Value<"f32"> {
  const bits = lower(key);
  return f32.reinterpretI32(bits.xor(bits.shrS(31).xor(-1).or(0x80000000)));
}

/** The address of word i. */
export const entry = (base: Value<Int>, i: Value<Int>) => base.plus(i.shl(2));

/**
 * Scratch, parts and keys of numbers that the kernels of `sample` share in WASM.
 *
 * A number's key is an unsigned integer that orders as the number does: the bits of a positive F32
 * with the sign set, of a negative one inverted.
 *
 * @module
 */
import { f32, i32x4, type Local, type Value } from "../../asm/assembler.ts";

/** Ids of a part: one work item. */
export const PART = 2048;
/** Ids of a group; the greatest key of every fourth of them is kept, four a group. */
export const GROUP = 64;
/**
 * Bytes of a part's result: the id that it would draw, its value in F32, and the sum of its masses
 * in F64.
 */
export const PART_BYTES = 16;
/** Keys of infinities and beyond are never drawn. */
export const LEAST_KEY = 0x00800000;
/** The key of a logit that is not finite: no finite number's. */
export const NO_KEY = 0xffffffff;

/** Words of `state`, by byte. */
export const STATE = { threshold: 0, bestKey: 4, draws: 8 } as const;
/** Values of `draws`. */
export const [REFUSED, GREEDY, DRAWN] = [0, 1, 2];

/** Bytes of the scratch that the kernels share, by the names of their operands. */
export function sampleWasmScratch(V: number) {
  const ids = Math.ceil(V / GROUP) * GROUP;
  return {
    keys: 4 * ids,
    masses: 4 * ids,
    /** Greatest keys, four for each group. */
    maxima: 16 * ids / GROUP,
    /** Keys that are still in a search, and their masses; whole vectors. */
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
export function valueOf(key: Local<"i32">): Value<"f32"> {
  return f32.reinterpretI32(key.xor(key.shrS(31).xor(-1).or(0x80000000)));
}

/** The address of word i. */
export const entry = (base: Value<"i32">, i: Value<"i32">) => base.plus(i.shl(2));

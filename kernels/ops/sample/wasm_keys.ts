/**
 * What the kernels of `sample` share: their scratch, its parts, and the keys that stand for numbers.
 *
 * @module
 */
import { f32, i32, i32x4, v128 } from "../../asm/assembler.ts";
import type { Local, Operand, Value } from "../../asm/assembler.ts";

/** Ids of a part: one work item. */
export const PART = 2048;
/** Ids of a group, of which each of the four lanes leaves its greatest key. */
export const GROUP = 64;
/** Bytes of what a part leaves: the id that it would draw, its value in F32, and the total of its masses in F64. */
export const PART_BYTES = 16;
/** Keys of infinities and beyond are never drawn. */
export const LEAST_KEY = 0x00800000;
/** The key of a logit that is not finite: no finite number's. */
export const NO_KEY = 0xffffffff;

/** What `state` has, by byte. */
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

/** The key of a number, or of each of four. */
export function keysOf(bits: Local<"v128">): Value<"v128"> {
  return v128.xor(bits, v128.or(i32x4.shrS(bits, 31), i32x4.splat(0x80000000)));
}
export function valuesOf(keys: Local<"v128">): Value<"v128"> {
  const positive = i32x4.shrS(keys, 31);
  return v128.xor(keys, v128.or(v128.xor(positive, i32x4.splat(-1)), i32x4.splat(0x80000000)));
}
export function valueOf(key: Local<"i32">): Value<"f32"> {
  return f32.reinterpretI32(
    i32.xor(key, i32.or(i32.xor(i32.shrS(key, 31), -1), 0x80000000)),
  );
}

/** Base plus four bytes for each of i. */
export const entry = (base: Operand<"i32">, i: Value<"i32">) => i32.add(base, i32.shl(i, 2));
export const minimum = (a: Local<"i32">, b: number) => i32.select(a, b, i32.ltU(a, b));

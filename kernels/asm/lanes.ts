/**
 * SIMD helpers for rows of F32: loops by four lanes, partial vectors, sums across lanes.
 *
 * The last vector of a row of C numbers has C % 4 valid lanes. It is loaded whole (the allocator
 * pads every buffer by 16 bytes); sums mask the other lanes, stores write only the valid ones.
 *
 * @module
 */
import { f32x4, f64x2, v128 } from "./assembler.ts";
import type { FunctionBuilder, Int, Local, Value } from "./assembler.ts";

/** Bytes of a vector, and of the padding that may be read after a buffer. */
export const VECTOR_BYTES = 16;

/**
 * Loops over C F32 numbers in vectors of four: `at` is the offset in bytes, `lanes` the number of
 * valid lanes.
 */
export function eachFour(
  f: FunctionBuilder,
  at: Local<Int>,
  C: number,
  body: (lanes: number) => void,
): void {
  f.for(at, 0, 4 * (C - C % 4), VECTOR_BYTES, () => body(4));
  if (C % 4 > 0) body(C % 4);
}

/** Keeps the first `lanes` lanes and zeroes the rest. */
export function firstLanes(value: Value<"v128">, lanes: number): Value<"v128"> {
  if (lanes === 4) return value;
  return value.and(v128.const([0, 1, 2, 3].map((lane) => lane < lanes ? -1 : 0)));
}

/** Stores the first `lanes` lanes. */
export function storeLanes(
  f: FunctionBuilder,
  address: Value<Int>,
  value: Value<"v128">,
  lanes: number,
): void {
  if (lanes === 4) f.store(address, value);
  else for (let lane = 0; lane < lanes; lane++) f.storeLane(address, value, lane, 4 * lane);
}

/** Broadcasts one lane to all four. */
export function spread(v: Local<"v128">, lane: number): Value<"v128"> {
  return v128.shuffle(v, v, [lane, lane, lane, lane]);
}

/** Sum of the four F32 lanes: (a + b) + (c + d). */
export function sumF32(v: Local<"v128">): Value<"f32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => f32x4.extractLane(v, lane));
  return a.plus(b).plus(c.plus(d));
}

/** Sums of lanes 0 + 2 and 1 + 3, as two F64. */
export function sumPairs(v: Local<"v128">): Value<"v128"> {
  const upper = v128.shuffle(v, v, [2, 3, 2, 3]);
  return f64x2.add(f64x2.promoteLowF32x4(v), f64x2.promoteLowF32x4(upper));
}

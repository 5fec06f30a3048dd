/**
 * Vectors of four F32 that kernels share: walking a row of any length, and single lanes.
 *
 * The last vector of a row may be only partly the row's. It is loaded as a whole (the allocator
 * leaves room behind every buffer); sums leave the foreign lanes out, and stores write the row's
 * lanes alone.
 *
 * @module
 */
import { f32x4, f64x2, v128 } from "./assembler.ts";
import type { FunctionBuilder, Local, Value } from "./assembler.ts";

/** Bytes of a vector, and bytes that may be read behind the end of a buffer. */
export const VECTOR_BYTES = 16;

/**
 * Walks C F32 numbers by fours: `at` counts bytes, and `lanes` is how many of the four are the
 * row's.
 */
export function eachFour(
  f: FunctionBuilder,
  at: Local<"i32">,
  C: number,
  body: (lanes: number) => void,
): void {
  f.for(at, 0, 4 * (C - C % 4), VECTOR_BYTES, () => body(4));
  if (C % 4 > 0) body(C % 4);
}

/** The first `lanes` of four, and zeros. */
export function firstLanes(value: Value<"v128">, lanes: number): Value<"v128"> {
  if (lanes === 4) return value;
  return value.and(v128.const([0, 1, 2, 3].map((lane) => lane < lanes ? -1 : 0)));
}

/** Stores the first `lanes` of four. */
export function storeLanes(
  f: FunctionBuilder,
  address: Value<"i32">,
  value: Value<"v128">,
  lanes: number,
): void {
  if (lanes === 4) f.store(address, value);
  else for (let lane = 0; lane < lanes; lane++) f.storeLane(address, value, lane, 4 * lane);
}

/** One lane of a vector in all four. */
export function spread(v: Local<"v128">, lane: number): Value<"v128"> {
  return v128.shuffle(v, v, [lane, lane, lane, lane]);
}

/** The sum of four F32. */
export function sumF32(v: Local<"v128">): Value<"f32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => f32x4.extractLane(v, lane));
  return a.plus(b).plus(c.plus(d));
}

/** Four F32 as two F64: the sums of the first and the third, and of the second and the fourth. */
export function sumPairs(v: Local<"v128">): Value<"v128"> {
  const upper = v128.shuffle(v, v, [2, 3, 2, 3]);
  return f64x2.add(f64x2.promoteLowF32x4(v), f64x2.promoteLowF32x4(upper));
}

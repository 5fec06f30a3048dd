/**
 * What the kernels share about vectors of four F32: walking a row of any length, and single lanes.
 *
 * The last vector of a row may be only partly its own. It is read as a whole (the allocator leaves room behind every buffer);
 * sums leave the foreign lanes out, and stores write the row's own lanes alone.
 *
 * @module
 */
import {
  call,
  f32,
  f32x4,
  f64,
  type Func,
  type FunctionBuilder,
  i32,
  i32x4,
  v128,
} from "./assembler.ts";
import type { Local, Value } from "./assembler.ts";

/** Bytes of a vector, and bytes that may be read behind the end of a buffer. */
export const VECTOR_BYTES = 16;

/** Walks C F32 numbers by fours: `at` counts bytes, and `lanes` tells how many of the four are the row's. */
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
  return v128.and(value, v128.const([0, 1, 2, 3].map((lane) => lane < lanes ? -1 : 0)));
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

/** The sum of four F32. */
export function sumF32(v: Local<"v128">): Value<"f32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => f32x4.extractLane(v, lane));
  return f32.add(f32.add(a, b), f32.add(c, d));
}

/** The sum of four I32. */
export function sumI32(v: Local<"v128">): Value<"i32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => i32x4.extractLane(v, lane));
  return i32.add(i32.add(a, b), i32.add(c, d));
}

/** Puts a function of one number to each of the four. */
export function mapLanes(
  f: FunctionBuilder,
  v: Local<"v128">,
  func: Func<readonly ["f64"], "f64">,
): void {
  for (let lane = 0; lane < 4; lane++) {
    const x = f64.promoteF32(f32x4.extractLane(v, lane));
    f.set(v, f32x4.replaceLane(v, lane, f32.demoteF64(call(func, x))));
  }
}

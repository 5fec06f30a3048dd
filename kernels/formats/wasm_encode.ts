/**
 * WASM code that quantises rows of F32 to Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1, 32 numbers at a time.
 *
 * The operations are those of the typed-array encoders, in F32 and in the same order, so that the
 * bytes are equal. `wasm_encode_k.ts` has the K formats.
 *
 * @module
 */
import { f32, f32x4, i16x8, i32, i32x4, i8x16, ints, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";
import { ENCODER, type RowEncoder } from "./format.ts";

/** Emits the encoding of the 32 numbers in `values`, eight vectors, to a block at `to`. */
type BlockEncoder = (
  f: FunctionBuilder,
  values: readonly Local<"v128">[],
  to: Local<Int>,
) => void;

/** Trick: 1.5 · 2²³ + x has the integer x in its lowest bits. */
const [ROUNDER, ROUNDER_BITS] = [12582912, 0x4b400000];

/** The function that quantises a row to blocks of `bytes` bytes. */
function rowEncoder(bytes: number, encode: BlockEncoder): (m: ModuleBuilder) => RowEncoder {
  return (m) =>
    m.define(ENCODER, "void", (f, { to, from: at, count }) => {
      const end = f.local("int", "end");
      const values = f.array("v128", "value", 8);
      end.set(at.plus(count.times(4)));
      f.for(at, at, end, 32 * 4, () => {
        for (const [i, value] of values.entries()) value.set(v128.load(at, VECTOR_BYTES * i));
        encode(f, values, to);
        to.advance(bytes);
      });
    });
}

/** Reduces eight vectors to one number in all lanes. */
function reduce(
  into: Local<"v128">,
  values: readonly Value<"v128">[],
  combine: (a: Value<"v128">, b: Value<"v128">) => Value<"v128">,
): void {
  const [first, ...others] = values;
  into.set(first);
  for (const value of others) into.set(combine(into, value));
  into.set(combine(into, v128.shuffle(into, into, [2, 3, 0, 1])));
  into.set(combine(into, v128.shuffle(into, into, [1, 0, 3, 2])));
}

/** 1/d in all lanes; 0 for 0. */
function inverseOf(d: Local<"v128">): Value<"v128"> {
  return f32x4.splat(f32.const(1)).div(d).and(d.ne(0));
}

/** Stores a number, in all lanes of `d`, as F16: to nearest, ties to even. */
export function storeHalf(
  f: FunctionBuilder,
  to: Local<Int>,
  d: Local<"v128">,
  offset: number,
): void {
  const { bits, size, half } = f.locals(ints("bits", "size", "half"));
  bits.set(i32x4.extractLane(d, 0));
  size.set(bits.and(0x7fffffff));
  half.set(size.plus(0xfff).plus(size.shr(13).and(1)).minus(0x38000000).shr(13));
  // A subnormal F16 is a multiple of 2⁻²⁴, the last bit of 0.5 + x.
  const subnormal = i32.reinterpretF32(f32.reinterpretI32(size).plus(0.5)).minus(0x3f000000);
  f.if(size.lt(0x38800000), () => half.set(subnormal));
  f.if(size.ge(0x477ff000), () => half.set(0x7c00)); // 65520 and more, and NaN
  f.store16(to, half.or(bits.shr(16).and(0x8000)), offset);
}

/** Bytes of 16 integers in four vectors. */
export function packBytes([a, b, c, d]: readonly Local<"v128">[]): Value<"v128"> {
  return i8x16.narrowI16x8S(i16x8.narrowI32x4S(a, b), i16x8.narrowI32x4S(c, d));
}

/** d = max |x| / 127, q = round(x / d), ties away from 0. */
export const encodeQ8_0 = rowEncoder(34, (f, values, to) => {
  const { d, inverse, size, floor } = f.locals(vectors("d", "inverse", "size", "floor"));
  reduce(d, values.map(f32x4.abs), (a, b) => f32x4.max(a, b));
  d.set(d.div(127));
  inverse.set(inverseOf(d));
  for (const value of values) {
    value.set(value.times(inverse));
    size.set(f32x4.abs(value));
    floor.set(f32x4.floor(size));
    // Exact: |x| + ½ would be rounded.
    size.set(floor.plus(f32x4.floor(size.minus(floor).times(2))));
    const signed = size.or(value.and(i32x4.splat(0x80000000)));
    value.set(i32x4.sub(signed.plus(ROUNDER), i32x4.splat(ROUNDER_BITS)));
  }
  storeHalf(f, to, d, 0);
  f.store(to, packBytes(values.slice(0, 4)), 2);
  f.store(to, packBytes(values.slice(4)), 2 + VECTOR_BYTES);
});

/**
 * Stores codes ⌊x⌋ of `bits` bits: the lower four bits of number j in the lower half of byte j,
 * those of j + 16 in its upper half; fifth bits as a word before them, bit j for number j.
 */
function storeCodes(
  f: FunctionBuilder,
  to: Local<Int>,
  values: readonly Local<"v128">[],
  offset: number,
  bits: 4 | 5,
): void {
  const { low, high } = f.locals(vectors("low", "high"));
  for (const value of values) {
    value.set(i32x4.minU(i32x4.truncSatF32x4S(value), i32x4.splat(2 ** bits - 1)));
  }
  low.set(packBytes(values.slice(0, 4)));
  high.set(packBytes(values.slice(4)));
  if (bits === 5) {
    const fifth = (v: Value<"v128">) => i8x16.bitmask(i16x8.shl(v, 3));
    f.store(to, fifth(low).or(fifth(high).shl(16)), offset);
    for (const v of [low, high]) v.set(v.and(i32x4.splat(0x0f0f0f0f)));
  }
  f.store(to, low.or(i16x8.shl(high, 4)), bits === 5 ? offset + 4 : offset);
}

/** The number of the largest magnitude, the first one of several. */
function extremeOf(f: FunctionBuilder, values: readonly Local<"v128">[]): Local<"v128"> {
  const { most, least, extreme } = f.locals(vectors("most", "least", "extreme"));
  const found = f.local("int", "found");
  reduce(most, values, (a, b) => a.pmax(b));
  reduce(least, values, (a, b) => a.pmin(b));
  extreme.set(v128.select(most, least, most.gt(f32x4.splat(0).minus(least))));
  // If both signs have the largest magnitude, the first one counts.
  f.if(i32x4.bitmask(most.eq(f32x4.splat(0).minus(least))), () => {
    found.set(0);
    for (const value of values) {
      const isMost = i32x4.bitmask(value.eq(most));
      const isLeast = i32x4.bitmask(value.eq(least));
      f.if(found.eqz().and(isMost.or(isLeast).ne(0)), () => {
        found.set(1);
        // The lowest bit of a mask is its first lane.
        const first = (mask: Value<Int>) => mask.and(f.int(0).minus(mask));
        const comesFirst = i32.select(first(isMost), i32.const(16), isMost)
          .lt(i32.select(first(isLeast), i32.const(16), isLeast));
        f.if(comesFirst, () => extreme.set(most), () => extreme.set(least));
      });
    }
  });
  return extreme;
}

/** d = x_max / −2^(bits − 1), where x_max has the largest magnitude. */
function centred(bits: 4 | 5): BlockEncoder {
  const half = 2 ** (bits - 1);
  return (f, values, to) => {
    const { d, inverse } = f.locals(vectors("d", "inverse"));
    d.set(extremeOf(f, values).plus(0).div(-half)); // −0 becomes 0 first
    inverse.set(inverseOf(d));
    for (const value of values) value.set(value.times(inverse).plus(half + 0.5));
    storeHalf(f, to, d, 0);
    storeCodes(f, to, values, 2, bits);
  };
}

/** m = min x, d = (max x − m) / (2^bits − 1). */
function ranged(bits: 4 | 5): BlockEncoder {
  return (f, values, to) => {
    const { most, least, d, inverse } = f.locals(vectors("most", "least", "d", "inverse"));
    reduce(most, values, (a, b) => a.pmax(b));
    reduce(least, values, (a, b) => a.pmin(b));
    d.set(most.minus(least).div(2 ** bits - 1));
    inverse.set(inverseOf(d));
    for (const value of values) value.set(value.minus(least).times(inverse).plus(0.5));
    storeHalf(f, to, d, 0);
    storeHalf(f, to, least, 2);
    storeCodes(f, to, values, 4, bits);
  };
}

export const encodeQ4_0 = rowEncoder(18, centred(4));
export const encodeQ5_0 = rowEncoder(22, centred(5));
export const encodeQ4_1 = rowEncoder(20, ranged(4));
export const encodeQ5_1 = rowEncoder(24, ranged(5));

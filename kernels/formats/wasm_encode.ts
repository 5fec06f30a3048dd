/**
 * WASM code that quantises rows of floats to Q8_0, Q4_0 and Q4_1, 32 numbers at a time.
 *
 * The operations are those of the typed-array encoders, in F32 and in the same order, so that the
 * bytes are equal.
 *
 * @module
 */
import { f32, f32x4, i16x8, i32, i32x4, i8x16, ints, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";
import type { EncodedFrom, RowEncoder } from "./format.ts";

/** Bytes of a number. */
const SIZES: Readonly<Record<EncodedFrom, number>> = { F32: 4, BF16: 2 };

/** Emits the encoding of the 32 numbers in `values`, eight vectors, to a block at `to`. */
export type BlockEncoder = (
  f: FunctionBuilder,
  values: readonly Local<"v128">[],
  to: Local<"i32">,
) => void;

/** Trick: 1.5 · 2²³ + x has the integer x in its lowest bits. */
const [ROUNDER, ROUNDER_BITS] = [12582912, 0x4b400000];

/** Defines the quantisation of a row. */
export function defineEncoder(
  m: ModuleBuilder,
  from: EncodedFrom,
  bytes: number,
  encode: BlockEncoder,
): RowEncoder {
  return m.define(ints("to", "from", "count"), "void", (f, { to, from: at, count }) => {
    const end = f.local("i32", "end");
    const values = f.array("v128", "value", 8);
    end.set(at.plus(count.times(SIZES[from])));
    f.for(at, at, end, 32 * SIZES[from], () => {
      loadFloats(values, at, from);
      encode(f, values, to);
      to.advance(bytes);
    });
  });
}

/** Loads 32 numbers as F32. */
function loadFloats(
  values: readonly Local<"v128">[],
  at: Local<"i32">,
  from: EncodedFrom,
): void {
  for (let i = 0; i < values.length; i++) {
    if (from === "F32") values[i].set(v128.load(at, VECTOR_BYTES * i));
    else if (i % 2 === 0) {
      values[i + 1].set(v128.load(at, VECTOR_BYTES / 2 * i));
      values[i].set(i32x4.shl(i32x4.extendLowI16x8U(values[i + 1]), 16));
      values[i + 1].set(i32x4.shl(i32x4.extendHighI16x8U(values[i + 1]), 16));
    }
  }
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
function storeHalf(f: FunctionBuilder, to: Local<"i32">, d: Local<"v128">, offset: number): void {
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
function packBytes([a, b, c, d]: readonly Local<"v128">[]): Value<"v128"> {
  return i8x16.narrowI16x8S(i16x8.narrowI32x4S(a, b), i16x8.narrowI32x4S(c, d));
}

/** d = max |x| / 127, q = round(x / d), ties away from 0. */
export const encodeQ8_0: BlockEncoder = (f, values, to) => {
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
};

/** Stores nibbles ⌊x⌋, at most 15: number j in the lower half of byte j, j + 16 in the upper. */
function storeNibbles(
  f: FunctionBuilder,
  to: Local<"i32">,
  values: readonly Local<"v128">[],
  offset: number,
): void {
  for (const value of values) {
    value.set(i32x4.minU(i32x4.truncSatF32x4S(value), i32x4.splat(15)));
  }
  const upper = i16x8.shl(packBytes(values.slice(4)), 4);
  f.store(to, packBytes(values.slice(0, 4)).or(upper), offset);
}

/** d = x_max / −8, where x_max has the largest magnitude, the first one of several. */
export const encodeQ4_0: BlockEncoder = (f, values, to) => {
  const { most, least, d, inverse } = f.locals(vectors("most", "least", "d", "inverse"));
  const found = f.local("i32", "found");
  reduce(most, values, (a, b) => a.pmax(b));
  reduce(least, values, (a, b) => a.pmin(b));
  d.set(v128.select(most, least, most.gt(f32x4.splat(0).minus(least))));
  // If both signs have the largest magnitude, the first one counts.
  f.if(i32x4.bitmask(most.eq(f32x4.splat(0).minus(least))), () => {
    found.set(0);
    for (const value of values) {
      const isMost = i32x4.bitmask(value.eq(most));
      const isLeast = i32x4.bitmask(value.eq(least));
      f.if(found.eqz().and(isMost.or(isLeast).ne(0)), () => {
        found.set(1);
        // The lowest bit of a mask is its first lane.
        const first = (mask: Value<"i32">) => mask.and(i32.const(0).minus(mask));
        const comesFirst = i32.select(first(isMost), i32.const(16), isMost)
          .lt(i32.select(first(isLeast), i32.const(16), isLeast));
        f.if(comesFirst, () => d.set(most), () => d.set(least));
      });
    }
  });
  d.set(d.plus(0).div(-8)); // −0 becomes 0 first
  inverse.set(inverseOf(d));
  for (const value of values) value.set(value.times(inverse).plus(8.5));
  storeHalf(f, to, d, 0);
  storeNibbles(f, to, values, 2);
};

/** m = min x, d = (max x − m) / 15. */
export const encodeQ4_1: BlockEncoder = (f, values, to) => {
  const { most, least, d, inverse } = f.locals(vectors("most", "least", "d", "inverse"));
  reduce(most, values, (a, b) => a.pmax(b));
  reduce(least, values, (a, b) => a.pmin(b));
  d.set(most.minus(least).div(15));
  inverse.set(inverseOf(d));
  for (const value of values) value.set(value.minus(least).times(inverse).plus(0.5));
  storeHalf(f, to, d, 0);
  storeHalf(f, to, least, 2);
  storeNibbles(f, to, values, 4);
};

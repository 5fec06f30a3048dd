/**
 * F16 and BF16 to F32 by bit operations on vectors, and the rescaling of F16 in panels.
 *
 *     in a panel:  s eeeee mmmmmmmmmm          F16 bits of 2¹⁰ · w
 *     widened:     s 000eeeee mmmmmmmmmm0…0    F32 bits of the same fields: w · 2¹⁰ / 2¹¹²
 *     w = widened · unit,  unit = 2^(112 − 10)     (exponent biases: F32 127, F16 15)
 *
 * Trick: panels hold F16 times 2¹⁰. Many weights are F16 subnormals; their bits widen to F32
 * subnormals, and a product with one takes 150 cycles on Intel's processors. Times 2¹⁰, all are
 * normal. The scaling is exact, since weights are small: a weight with an infinity, a NaN or a
 * magnitude of 64 or more is kept in F32.
 *
 * @module
 */
import { f32x4, i16x8, i32x4, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, Value } from "../asm/assembler.ts";

/** Exponent of the power of two that panels multiply F16 by. */
const SCALE_BITS = 10;

/** Factor from F16 fields in an F32's place to the number: the biases differ by 112. */
const UNIT = 2 ** (112 - SCALE_BITS);

/** Conversion of 16-bit floats, two in each lane, to F32. */
export interface Half {
  /**
   * The numbers in the upper halves of four lanes, divided by `unit`: moves sign, exponent and
   * mantissa to an F32's positions.
   */
  placeHigh(v: Value<"v128">): Value<"v128">;
  /** The same for the lower halves. */
  placeLow(v: Value<"v128">): Value<"v128">;
  /** Factor from a placed number to the stored one. */
  readonly unit: number;
  /** Whether panels hold the numbers times 2¹⁰, which can overflow. */
  readonly rescaled: boolean;
}

const placeF16 = (v: Value<"v128">) => i32x4.shrS(v, 3).and(i32x4.splat(0x8fffe000));

/** F16 bits in the upper halves of four lanes as F32; the bits must not be of infinity or NaN. */
export const f16High = (v: Value<"v128">): Value<"v128"> => placeF16(v).times(2 ** 112);

/** The same for the lower halves. */
export const f16Low = (v: Value<"v128">): Value<"v128"> => f16High(i32x4.shl(v, 16));

/**
 * The same as `f16High` without operations on subnormal F32, which take a processor up to 150
 * cycles: for scales of K types, which are often subnormal F16.
 *
 * Method: bits in an F32's place, with 112 added to the exponent, are the number if it is normal.
 * If it is not, they are ±2⁻¹⁵ · (1 + m) in place of ±2⁻¹⁴ · m.
 */
export function plainF16High(v: Value<"v128">): Value<"v128"> {
  const bias = i32x4.splat(112 << 23); // the bits of 2⁻¹⁵
  const placed = placeF16(v);
  const subnormal = i32x4.eq(placed.and(i32x4.splat(0x7f800000)), i32x4.splat(0));
  const number = i32x4.add(placed, bias);
  const excess = placed.and(i32x4.splat(0x80000000)).or(bias).and(subnormal);
  const rest = number.minus(excess);
  return rest.plus(rest.and(subnormal));
}

/** The same for the lower halves. */
export const plainF16Low = (v: Value<"v128">): Value<"v128"> => plainF16High(i32x4.shl(v, 16));

/** F16, rescaled as panels hold it. */
export const HALF_F16: Half = {
  placeHigh: placeF16,
  placeLow: (v) => placeF16(i32x4.shl(v, 16)),
  unit: UNIT,
  rescaled: true,
};

/** BF16: the upper half of an F32. */
export const HALF_BF16: Half = {
  placeHigh: (v) => v.and(i32x4.splat(0xffff0000)),
  placeLow: (v) => i32x4.shl(v, 16),
  unit: 1,
  rescaled: false,
};

/** The numbers in the upper halves, as F32. */
export function widenHigh(v: Value<"v128">, { placeHigh, unit }: Half): Value<"v128"> {
  const placed = placeHigh(v);
  return unit === 1 ? placed : placed.times(unit);
}

/** The numbers in the lower halves, as F32. */
export function widenLow(v: Value<"v128">, { placeLow, unit }: Half): Value<"v128"> {
  const placed = placeLow(v);
  return unit === 1 ? placed : placed.times(unit);
}

/** Multiplies F16 numbers by 2¹⁰, eight at a time. */
export interface F16Rescaler {
  /** Emits the code for eight numbers, in place. */
  rescale(v: Local<"v128">): void;
  /** Whether a number has overflowed. */
  readonly overflow: Value<Int>;
}

/**
 * Makes a rescaler and sets its constants; call it outside the loop. Method: normal numbers add 10
 * to the exponent field; subnormal ones are converted through F32.
 */
export function f16Rescaler(f: FunctionBuilder): F16Rescaler {
  const constant = (name: string, value: number) => {
    const all = f.local("v128", name);
    all.set(v128.const([0, 1, 2, 3].map(() => value | value << 16)));
    return all;
  };
  const sign = constant("sign", 0x8000);
  const mantissa = constant("mantissa", 0x03ff);
  const exponent = constant("exponent", 0x7c00);
  const zero = constant("zero", 0);
  const scale = constant("scale", SCALE_BITS << 10);
  const { greatest, exponents, subnormal, small, low, high } = f.locals(
    vectors("greatest", "exponents", "subnormal", "small", "low", "high"),
  );
  /** F16 bits of a subnormal mantissa times 2¹⁰; 0 stays 0. */
  const normalized = (mantissa: Value<"v128">) => {
    const value = f32x4.convertI32x4U(mantissa).times(2 ** (SCALE_BITS - 24));
    const bits = i32x4.sub(i32x4.shrU(value, 13), i32x4.splat(112 << 10));
    return bits.and(i32x4.gtS(mantissa, zero));
  };
  return {
    rescale(v) {
      exponents.set(v.and(exponent));
      greatest.set(i16x8.maxS(greatest, exponents));
      subnormal.set(i16x8.eq(exponents, zero));
      small.set(v.and(mantissa).and(subnormal));
      f.if(v128.anyTrue(small), () => {
        low.set(i32x4.extendLowI16x8U(small));
        high.set(i32x4.extendHighI16x8U(small));
        const numbers = i16x8.narrowI32x4U(normalized(low), normalized(high));
        v.set(v128.select(numbers.or(v.and(sign)), v, subnormal));
      });
      v.set(i16x8.add(v, v128.andNot(scale, subnormal)));
    },
    get overflow() {
      const limit = (30 - SCALE_BITS) << 10;
      const limits = v128.const([0, 1, 2, 3].map(() => limit | limit << 16));
      return v128.anyTrue(i16x8.gtS(greatest, limits));
    },
  };
}

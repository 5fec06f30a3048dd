/**
 * 16-bit floats: how F16 is stored in a panel, and how four numbers are made wide.
 *
 * Among a weight's numbers are many below F16's least normal one, and an F32 made of their bits is
 * below F32's, where Intel's processors take 150 cycles for a product. So F16 lies in panels times
 * 2¹⁰, where all of them are normal; nothing is lost, since weights are small. One that has a
 * number of 64 or more, an infinity or a NaN is kept in F32.
 *
 * @module
 */
import { f32x4, i16x8, i32x4, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Local, Value } from "../asm/assembler.ts";

/** Powers of two that an F16 is raised by. */
const RAISED = 10;

/** What a placed F16 is to be multiplied by: an F32's exponent counts from 112 further up. */
const UNIT = 2 ** (112 - RAISED);

/** How 16-bit floats, two in each lane, become F32. */
export interface Half {
  /**
   * The numbers in the upper halves of four lanes, over `unit`: sign, exponent and mantissa in an
   * F32's places.
   */
  placeHigh(v: Value<"v128">): Value<"v128">;
  /** The same of the lower halves. */
  placeLow(v: Value<"v128">): Value<"v128">;
  /** Factor that a placed number lacks. */
  readonly unit: number;
  /** Whether panels hold the numbers times a power of two, which not all of them can be. */
  readonly raised: boolean;
}

const placeF16 = (v: Value<"v128">) => i32x4.shrS(v, 3).and(i32x4.splat(0x8fffe000));

/** F16, as panels hold it. */
export const HALF_F16: Half = {
  placeHigh: placeF16,
  placeLow: (v) => placeF16(i32x4.shl(v, 16)),
  unit: UNIT,
  raised: true,
};

/** BF16: the upper half of an F32. */
export const HALF_BF16: Half = {
  placeHigh: (v) => v.and(i32x4.splat(0xffff0000)),
  placeLow: (v) => i32x4.shl(v, 16),
  unit: 1,
  raised: false,
};

/** The numbers in the upper halves. */
export function widenHigh(v: Value<"v128">, { placeHigh, unit }: Half): Value<"v128"> {
  const placed = placeHigh(v);
  return unit === 1 ? placed : placed.times(unit);
}

/** The numbers in the lower halves. */
export function widenLow(v: Value<"v128">, { placeLow, unit }: Half): Value<"v128"> {
  const placed = placeLow(v);
  return unit === 1 ? placed : placed.times(unit);
}

/** Multiplies F16 numbers by a power of two, eight at a time. */
export interface F16Raiser {
  /** Emits the code for eight, in place. */
  raise(v: Local<"v128">): void;
  /** Whether a number has overflowed. */
  readonly overflow: Value<"i32">;
}

/** A raiser, whose constants are set here: outside of the loop that uses it. */
export function f16Raiser(f: FunctionBuilder): F16Raiser {
  const constant = (name: string, value: number) => {
    const all = f.local("v128", name);
    all.set(v128.const([0, 1, 2, 3].map(() => value | value << 16)));
    return all;
  };
  const sign = constant("sign", 0x8000);
  const mantissa = constant("mantissa", 0x03ff);
  const exponent = constant("exponent", 0x7c00);
  const zero = constant("zero", 0);
  const raised = constant("raised", RAISED << 10);
  const { greatest, exponents, subnormal, small, low, high } = f.locals(
    vectors("greatest", "exponents", "subnormal", "small", "low", "high"),
  );
  /** F16 bits of a subnormal mantissa, raised; 0 stays 0. */
  const normalized = (mantissa: Value<"v128">) => {
    const value = f32x4.convertI32x4U(mantissa).times(2 ** (RAISED - 24));
    const bits = i32x4.sub(i32x4.shrU(value, 13), i32x4.splat(112 << 10));
    return bits.and(i32x4.gtS(mantissa, zero));
  };
  return {
    raise(v) {
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
      v.set(i16x8.add(v, v128.andNot(raised, subnormal)));
    },
    get overflow() {
      const limit = (30 - RAISED) << 10;
      const limits = v128.const([0, 1, 2, 3].map(() => limit | limit << 16));
      return v128.anyTrue(i16x8.gtS(greatest, limits));
    },
  };
}

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
import { f32x4, type FunctionBuilder, i16x8, i32x4, v128 } from "../asm/assembler.ts";
import type { Local, Value } from "../asm/assembler.ts";

/** Powers of two that an F16 is raised by. */
const RAISED = 10;

/** What a placed F16 is to be multiplied by: an F32's exponent counts from 112 further up. */
const UNIT = 2 ** (112 - RAISED);

/** How 16-bit floats, two in each lane, become F32. */
export interface Half {
  /**
   * The numbers in the upper halves of four lanes, over `unit`: sign, exponent and
   * mantissa in an F32's places.
   */
  placeHigh(v: Value<"v128">): Value<"v128">;
  /** The same of the lower halves. */
  placeLow(v: Value<"v128">): Value<"v128">;
  /** Factor that a placed number lacks. */
  readonly unit: number;
  /** Whether panels hold the numbers times a power of two, which not all of them can be. */
  readonly raised: boolean;
}

const placeF16 = (v: Value<"v128">) => v128.and(i32x4.shrS(v, 3), i32x4.splat(0x8fffe000));

/** F16, as panels hold it. */
export const HALF_F16: Half = {
  placeHigh: placeF16,
  placeLow: (v) => placeF16(i32x4.shl(v, 16)),
  unit: UNIT,
  raised: true,
};

/** BF16: the upper half of an F32. */
export const HALF_BF16: Half = {
  placeHigh: (v) => v128.and(v, i32x4.splat(0xffff0000)),
  placeLow: (v) => i32x4.shl(v, 16),
  unit: 1,
  raised: false,
};

/** The numbers in the upper halves. */
export function widenHigh(v: Value<"v128">, { placeHigh, unit }: Half): Value<"v128"> {
  const placed = placeHigh(v);
  return unit === 1 ? placed : f32x4.mul(placed, f32x4.splat(unit));
}

/** The numbers in the lower halves. */
export function widenLow(v: Value<"v128">, { placeLow, unit }: Half): Value<"v128"> {
  const placed = placeLow(v);
  return unit === 1 ? placed : f32x4.mul(placed, f32x4.splat(unit));
}

/** Raises F16 numbers by eights. */
export interface F16Raiser {
  /** Writes the code that raises eight, in place. */
  raise(v: Local<"v128">): void;
  /** Whether one could not be raised. */
  readonly odd: Value<"i32">;
}

/** Made outside of the loop that uses it: what does not change is computed here. */
export function f16Raiser(f: FunctionBuilder): F16Raiser {
  const kept = (value: number) => {
    const all = f.local("v128");
    f.set(all, v128.const([0, 1, 2, 3].map(() => value | value << 16)));
    return all;
  };
  const [sign, mantissa, exponent, zero] = [0x8000, 0x03ff, 0x7c00, 0].map(kept);
  const raised = kept(RAISED << 10);
  const [most, each, below, small, low, high] = [0, 1, 2, 3, 4, 5].map(() => f.local("v128"));
  /** The bits of a mantissa that has become a number, 0 of none. */
  const number = (mantissa: Value<"v128">) => {
    const value = f32x4.mul(f32x4.convertI32x4U(mantissa), f32x4.splat(2 ** (RAISED - 24)));
    const bits = i32x4.sub(i32x4.shrU(value, 13), i32x4.splat(112 << 10));
    return v128.and(bits, i32x4.gtS(mantissa, zero));
  };
  return {
    raise(v) {
      f.set(each, v128.and(v, exponent));
      f.set(most, i16x8.maxS(most, each));
      f.set(below, i16x8.eq(each, zero));
      f.set(small, v128.and(v128.and(v, mantissa), below));
      f.if(v128.anyTrue(small), () => {
        f.set(low, i32x4.extendLowI16x8U(small));
        f.set(high, i32x4.extendHighI16x8U(small));
        const numbers = i16x8.narrowI32x4U(number(low), number(high));
        f.set(v, v128.select(v128.or(numbers, v128.and(v, sign)), v, below));
      });
      f.set(v, i16x8.add(v, v128.andNot(raised, below)));
    },
    get odd() {
      const limit = (30 - RAISED) << 10;
      return v128.anyTrue(i16x8.gtS(most, v128.const([0, 1, 2, 3].map(() => limit | limit << 16))));
    },
  };
}

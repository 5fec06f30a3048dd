/**
 * Functions of four F32 at once: exp, exp2, tanh, the activations and the soft cap.
 *
 * Over all F32 numbers, exp is within 2 ulp of the exact value, exp2 and tanh within 3; the
 * activations within 4e-7 of the greater of 1 and their argument. NaN gives NaN; infinities give
 * the limit of the function. `tests/kernels/asm/math_test.ts` checks this.
 *
 * @module
 */
import { call, f32x4, i32x4, v128, vectors } from "./assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Local,
  ModuleBuilder,
  Operand,
  Value,
  Vectors,
} from "./assembler.ts";

/** A function of a vector, to be called. */
type VectorFunc = Func<Vectors<"x">, "v128">;

/** a · b + c, fused where the processor can. */
export type MultiplyAdd = (
  a: Value<"v128">,
  b: Operand<"v128">,
  c: Operand<"v128">,
) => Value<"v128">;

/** A module's multiply-add; `relaxed` may round once instead of twice. */
export function multiplyAdd(relaxed: boolean): MultiplyAdd {
  return relaxed ? f32x4.relaxedMadd : (a, b, c) => a.times(b).plus(c);
}

/** Trick: x + 1.5 · 2²³ rounds x to an integer, which is then in the lowest bits of the sum. */
const ROUNDER = 12582912;

/** 2ʳ for |r| ≤ ½, highest power first: minimax with 2⁰ = 1, within 1e-7. */
const EXP2 = [
  1.32647274e-3,
  9.67151297e-3,
  5.55073375e-2,
  2.40222421e-1,
  6.93146978e-1,
  1,
];

/**
 * The functions of one module: exp and tanh are defined at their first use and called, the rest is
 * inlined.
 */
export class VectorMath {
  readonly madd: MultiplyAdd;
  readonly #funcs = new Map<string, VectorFunc>();

  constructor(readonly module: ModuleBuilder, readonly relaxed: boolean) {
    this.madd = multiplyAdd(relaxed);
  }

  exp(x: Value<"v128">): Value<"v128"> {
    return call(this.#func("exp", (f, x) => this.#exp(f, x)), { x });
  }

  tanh(x: Value<"v128">): Value<"v128"> {
    return call(this.#func("tanh", (f, x) => this.#tanh(f, x)), { x });
  }

  /**
   * 2ˣ for x ≤ 128, inlined: 2ⁿ · 2ʳ with |r| ≤ ½. Results of about 2⁻¹²⁶ or less are 0: processors
   * are slow with numbers below F32's least normal one.
   */
  exp2(f: FunctionBuilder, x: Value<"v128">): Value<"v128"> {
    const { r, power } = f.locals(vectors("r", "power"));
    r.set(x.pmax(-126));
    // The lowest bits of the sum are the exponent field of 2ⁿ⁻¹; the series has the missing factor
    // of 2.
    const rounder = ROUNDER + 126;
    power.set(r.plus(rounder));
    r.set(r.minus(power.minus(rounder)));
    const series = this.polynomial(r, EXP2.map((c) => 2 * c));
    return series.times(i32x4.shl(power, 23));
  }

  /** c₀xⁿ + c₁xⁿ⁻¹ … + cₙ, inlined. */
  polynomial(x: Value<"v128">, [first, ...rest]: readonly number[]): Value<"v128"> {
    return rest.reduce((sum, c) => this.madd(sum, x, c), f32x4.splat(first));
  }

  #func(
    name: string,
    build: (f: FunctionBuilder, x: Local<"v128">) => Value<"v128">,
  ): VectorFunc {
    const known = this.#funcs.get(name);
    if (known) return known;
    const func = this.module.define(vectors("x"), "v128", (f, { x }) => build(f, x));
    this.#funcs.set(name, func);
    return func;
  }

  /** 2ⁿ · eʳ with |r| ≤ ln 2 / 2 (coefficients of Moshier's Cephes, expf). */
  #exp(f: FunctionBuilder, x: Local<"v128">): Value<"v128"> {
    const { r, n, power, half } = f.locals(vectors("r", "n", "power", "half"));
    // Beyond these limits exp is 0 or infinity; within them 2ⁿ is the product of two F32 powers.
    r.set(x.pmin(89).pmax(-104));
    power.set(this.madd(r, Math.LOG2E, ROUNDER));
    n.set(power.minus(ROUNDER));
    r.set(this.madd(n, -0.693359375, r)); // ln 2 in two parts
    r.set(this.madd(n, 2.12194440e-4, r));
    const series = this.polynomial(r, [
      1.9875691500e-4,
      1.3981999507e-3,
      8.3334519073e-3,
      4.1665795894e-2,
      1.6666665459e-1,
      5.0000001201e-1,
    ]);
    n.set(this.madd(series, r.times(r), r).plus(1));
    // Two factors of about 2^(n/2): the least and greatest n exceed the exponent of one.
    power.set(i32x4.shl(power, 23));
    half.set(i32x4.shrS(power, 1).and(i32x4.splat(0xff800000)));
    const one = i32x4.splat(0x3f800000);
    power.set(i32x4.add(i32x4.sub(power, half), one));
    return n.times(i32x4.add(half, one)).times(power);
  }

  /** x + x³ · P(x²) near 0 (Cephes, tanhf), 1 − 2 / (e^2|x| + 1) beyond. */
  #tanh(f: FunctionBuilder, x: Local<"v128">): Value<"v128"> {
    const { size, square, far } = f.locals(vectors("size", "square", "far"));
    size.set(f32x4.abs(x));
    square.set(x.times(x));
    const u = size.times(2 * Math.LOG2E).pmin(128);
    far.set(this.exp2(f, u));
    far.set(f32x4.splat(1).minus(f32x4.splat(2).div(far.plus(1))));
    const series = this.polynomial(square, [
      -5.70498872745e-3,
      2.06390887954e-2,
      -5.37397155531e-2,
      1.33314422036e-1,
      -3.33332819422e-1,
    ]);
    const near = this.madd(series.times(square), x, x);
    return v128.select(near, withSign(far, x), size.lt(0.625));
  }
}

/** The first with the second's sign. */
function withSign(size: Value<"v128">, x: Value<"v128">): Value<"v128"> {
  return size.or(x.and(i32x4.splat(0x80000000)));
}

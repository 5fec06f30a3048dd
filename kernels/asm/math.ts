/**
 * Vector math for F32: exp, exp2 and tanh on four lanes, used by softmax, activations and soft cap.
 *
 *     function     method                                         error, over all F32
 *     exp(x)       x = n·ln2 + r, |r| ≤ ln2/2:  2ⁿ · P(r)          ≤ 2 ulp
 *     exp2(x)      x = n + r, |r| ≤ ½:  2ⁿ · P(r)                  ≤ 3 ulp (x ≤ 128)
 *     tanh(x)      |x| < 0.625:  x + x³ · P(x²)                    ≤ 3 ulp
 *                  else:  ±(1 − 2 / (2^(2·|x|·log₂e) + 1))
 *     activations  composed of these                               ≤ 4e-7 · max(1, |x|)
 *
 * NaN gives NaN; infinities give the limit of the function. Coefficients of exp and tanh: Moshier,
 * Cephes (expf, tanhf). `tests/kernels/asm/math_test.ts` checks the errors.
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
import type { Simd } from "./join.ts";

/** A function from a vector to a vector. */
type VectorFunc = Func<Vectors<"x">, "v128">;

/** a · b + c, fused if the processor can. */
export type MultiplyAdd = (
  a: Value<"v128">,
  b: Operand<"v128">,
  c: Operand<"v128">,
) => Value<"v128">;

/** The multiply-add of a module; with `relaxed` it may round once instead of twice. */
export function multiplyAdd(relaxed: boolean): MultiplyAdd {
  return relaxed ? f32x4.relaxedMadd : (a, b, c) => a.times(b).plus(c);
}

/**
 * Trick: 1.5 · 2²³ + x rounds x to the nearest integer and leaves it in the lowest bits of the sum.
 * Holds for |x| < 2²²; saves a conversion to I32 and back.
 */
const ROUNDER = 12582912;

/** P(r) ≈ 2ʳ for |r| ≤ ½, highest power first: minimax with P(0) = 1, error ≤ 1e-7. */
const EXP2 = [
  1.32647274e-3,
  9.67151297e-3,
  5.55073375e-2,
  2.40222421e-1,
  6.93146978e-1,
  1,
];

/** Math of one module: exp and tanh are functions, defined at first use; exp2 is inlined. */
export class VectorMath {
  readonly madd: MultiplyAdd;
  readonly #funcs = new Map<string, VectorFunc>();

  /**
   * @param relaxed whether multiply-adds may be fused.
   * @param simd width of the vectors that kernels are written for.
   */
  constructor(
    readonly module: ModuleBuilder,
    readonly relaxed: boolean,
    readonly simd: Simd = "128",
  ) {
    this.madd = multiplyAdd(relaxed);
  }

  exp(x: Value<"v128">): Value<"v128"> {
    return call(this.#func("exp", (f, x) => this.#exp(f, x)), { x });
  }

  tanh(x: Value<"v128">): Value<"v128"> {
    return call(this.#func("tanh", (f, x) => this.#tanh(f, x)), { x });
  }

  /**
   * 2ˣ for x ≤ 128, inlined. Method: x = n + r, |r| ≤ ½; 2ˣ = 2ⁿ · P(r). Results of about 2⁻¹²⁶ or
   * less are flushed to 0: processors are slow on subnormal F32.
   */
  exp2(f: FunctionBuilder, x: Value<"v128">): Value<"v128"> {
    const { r, power } = f.locals(vectors("r", "power"));
    r.set(x.pmax(-126));
    // Trick: with 126 added, the lowest bits of the sum are the exponent field of 2ⁿ⁻¹. The series
    // is doubled to make up for it.
    const rounder = ROUNDER + 126;
    power.set(r.plus(rounder));
    r.set(r.minus(power.minus(rounder)));
    const series = this.polynomial(r, EXP2.map((c) => 2 * c));
    return series.times(i32x4.shl(power, 23));
  }

  /** c₀xⁿ + c₁xⁿ⁻¹ + … + cₙ by Horner's rule, inlined. */
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

  /** Method: x = n·ln2 + r, |r| ≤ ln2/2; eˣ = 2ⁿ · (1 + r + r²·P(r)) (Cephes, expf). */
  #exp(f: FunctionBuilder, x: Local<"v128">): Value<"v128"> {
    const { r, n, power, half } = f.locals(vectors("r", "n", "power", "half"));
    // Beyond −104 … 89, exp is 0 or infinity; within, 2ⁿ is a product of two F32 powers of two.
    r.set(x.pmin(89).pmax(-104));
    power.set(this.madd(r, Math.LOG2E, ROUNDER));
    n.set(power.minus(ROUNDER));
    r.set(this.madd(n, -0.693359375, r)); // ln2 in two parts: the first product is exact
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
    // 2ⁿ as two factors of about 2^(n/2): the extreme n exceed the exponent range of one F32.
    power.set(i32x4.shl(power, 23));
    half.set(i32x4.shrS(power, 1).and(i32x4.splat(0xff800000)));
    const one = i32x4.splat(0x3f800000);
    power.set(i32x4.add(i32x4.sub(power, half), one));
    return n.times(i32x4.add(half, one)).times(power);
  }

  /** Method: x + x³ · P(x²) for |x| < 0.625 (Cephes, tanhf), else ±(1 − 2 / (e^(2|x|) + 1)). */
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

/** `size`, which is not negative, with the sign of `x`. */
function withSign(size: Value<"v128">, x: Value<"v128">): Value<"v128"> {
  return size.or(x.and(i32x4.splat(0x80000000)));
}

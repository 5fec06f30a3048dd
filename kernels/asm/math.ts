/**
 * Functions of four numbers at once, in F32: exp, exp2, tanh, the activations and the soft cap.
 *
 * Of all F32 numbers, exp is within 2 ulp of the true value, exp2 and tanh within 3; the activations within 4e-7 of the greater
 * of 1 and their argument. A NaN stays one; infinities give what the functions tend to. `tests/kernels/asm/math_test.ts` holds them to it.
 *
 * @module
 */
import type { Activation } from "../ops/activation.ts";
import {
  f32x4,
  type Func,
  type FunctionBuilder,
  i32x4,
  type ModuleBuilder,
  v128,
} from "./assembler.ts";
import type { Local, Value } from "./assembler.ts";

/** A function of a vector, to be called. */
export type VectorFunc = Func<readonly ["v128"], "v128">;

/** a · b + c, in one where the processor may. */
export type MultiplyAdd = (
  a: Value<"v128">,
  b: Value<"v128">,
  c: Value<"v128">,
) => Value<"v128">;

/** The way of a module to multiply and add. */
export function multiplyAdd(relaxed: boolean): MultiplyAdd {
  return relaxed ? f32x4.relaxedMadd : (a, b, c) => f32x4.add(f32x4.mul(a, b), c);
}

const splat = f32x4.splat;

/** 1.5 · 2²³: what is added to it is rounded to an integer, which then stands in the lowest bits. */
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

/** −log₂(Φ(x) / Φ(−x)) / x, of x², where Φ is the cumulative normal distribution: minimax, so that x · Φ(x) is within 3e-8. */
const GELU = [
  -5.32836271e-9,
  3.91635841e-7,
  -1.15779241e-5,
  1.60439109e-4,
  9.15865081e-5,
  -1.04832180e-1,
  -2.30221035,
];

/** ½x (1 + tanh v) = x / (1 + e^−2v). */
const GELU_TANH = [0.044715, 1].map((c) => -2 * Math.LOG2E * Math.sqrt(2 / Math.PI) * c);

/** The functions of one module: each is defined when it is first asked for. */
export class VectorMath {
  readonly madd: MultiplyAdd;
  readonly #funcs = new Map<string, VectorFunc>();

  constructor(readonly module: ModuleBuilder, readonly relaxed: boolean) {
    this.madd = multiplyAdd(relaxed);
  }

  exp(): VectorFunc {
    return this.#func("exp", (f, x) => this.#exp(f, x));
  }

  tanh(): VectorFunc {
    return this.#func("tanh", (f, x) => this.#tanh(f, x));
  }

  /**
   * 2ˣ for x ≤ 128, written where it is used: 2ⁿ · 2ʳ with |r| ≤ ½. What is about 2⁻¹²⁶ or less
   * is 0 at once: processors take long for what is less than F32's least normal number.
   */
  exp2(f: FunctionBuilder, x: Value<"v128">): Value<"v128"> {
    const [r, power] = [f.local("v128"), f.local("v128")];
    f.set(r, f32x4.pmax(x, splat(-126)));
    // Its lowest bits are the exponent field of 2ⁿ⁻¹; the series has the other 2.
    const rounder = splat(ROUNDER + 126);
    f.set(power, f32x4.add(r, rounder));
    f.set(r, f32x4.sub(r, f32x4.sub(power, rounder)));
    const series = this.#polynomial(r, EXP2.map((c) => 2 * c));
    return f32x4.mul(series, i32x4.shl(power, 23));
  }

  /** An activation, written where it is used: but for relu it is x / (1 + 2ᵘ), where u is x times a polynomial. */
  activate(f: FunctionBuilder, name: Activation, x: Local<"v128">): Value<"v128"> {
    if (name === "relu") return f32x4.pmax(x, splat(0));
    const u = f.local("v128");
    f.set(u, f32x4.mul(x, this.#exponent(f, name, x)));
    const power = this.exp2(f, f32x4.pmin(u, splat(128)));
    return f32x4.div(x, f32x4.add(power, splat(1)));
  }

  /** u / x of such an activation. */
  #exponent(
    f: FunctionBuilder,
    name: Exclude<Activation, "relu">,
    x: Local<"v128">,
  ): Value<"v128"> {
    if (name === "silu") return splat(-Math.LOG2E);
    const square = f.local("v128");
    f.set(square, f32x4.mul(x, x));
    return this.#polynomial(square, name === "gelu" ? GELU : GELU_TANH);
  }

  #func(
    name: string,
    build: (f: FunctionBuilder, x: Local<"v128">) => Value<"v128">,
  ): VectorFunc {
    const known = this.#funcs.get(name);
    if (known) return known;
    const func = this.module.define(["v128"], "v128", build);
    this.#funcs.set(name, func);
    return func;
  }

  /** c₀xⁿ + c₁xⁿ⁻¹ … + cₙ. */
  #polynomial(x: Value<"v128">, [first, ...rest]: readonly number[]): Value<"v128"> {
    return rest.reduce((sum, c) => this.madd(sum, x, splat(c)), splat(first));
  }

  /** 2ⁿ · eʳ with |r| ≤ ln 2 / 2 (coefficients of Moshier's Cephes, expf). */
  #exp(f: FunctionBuilder, x: Local<"v128">): Value<"v128"> {
    const [r, n, power, half] = [0, 1, 2, 3].map(() => f.local("v128"));
    // Beyond these it is 0 and infinity anyway, and n has room.
    f.set(r, f32x4.pmax(f32x4.pmin(x, splat(89)), splat(-104)));
    f.set(power, this.madd(r, splat(Math.LOG2E), splat(ROUNDER)));
    f.set(n, f32x4.sub(power, splat(ROUNDER)));
    f.set(r, this.madd(n, splat(-0.693359375), r)); // ln 2 in two parts
    f.set(r, this.madd(n, splat(2.12194440e-4), r));
    const series = this.#polynomial(r, [
      1.9875691500e-4,
      1.3981999507e-3,
      8.3334519073e-3,
      4.1665795894e-2,
      1.6666665459e-1,
      5.0000001201e-1,
    ]);
    f.set(n, f32x4.add(this.madd(series, f32x4.mul(r, r), r), splat(1)));
    // Two factors of about 2^(n/2): the least and greatest n are beyond one factor's exponent.
    f.set(power, i32x4.shl(power, 23));
    f.set(half, v128.and(i32x4.shrS(power, 1), i32x4.splat(0xff800000)));
    const one = i32x4.splat(0x3f800000);
    f.set(power, i32x4.add(i32x4.sub(power, half), one));
    return f32x4.mul(f32x4.mul(n, i32x4.add(half, one)), power);
  }

  /** x + x³ · P(x²) near 0 (Cephes, tanhf), 1 − 2 / (e^2|x| + 1) beyond. */
  #tanh(f: FunctionBuilder, x: Local<"v128">): Value<"v128"> {
    const [size, square, far] = [0, 1, 2].map(() => f.local("v128"));
    f.set(size, f32x4.abs(x));
    f.set(square, f32x4.mul(x, x));
    const u = f32x4.pmin(f32x4.mul(size, splat(2 * Math.LOG2E)), splat(128));
    f.set(far, this.exp2(f, u));
    f.set(far, f32x4.sub(splat(1), f32x4.div(splat(2), f32x4.add(far, splat(1)))));
    const series = this.#polynomial(square, [
      -5.70498872745e-3,
      2.06390887954e-2,
      -5.37397155531e-2,
      1.33314422036e-1,
      -3.33332819422e-1,
    ]);
    const near = this.madd(f32x4.mul(series, square), x, x);
    return v128.select(near, withSign(far, x), f32x4.lt(size, splat(0.625)));
  }
}

/** The first with the second's sign. */
function withSign(size: Value<"v128">, x: Value<"v128">): Value<"v128"> {
  return v128.or(size, v128.and(x, i32x4.splat(0x80000000)));
}

/**
 * Activations of an MLP (ReLU, GELU, SiLU), and erf for the exact GELU.
 *
 * They run in the epilogue of `matmul`, not as a pass.
 *
 * @module
 */
import { f32x4, type FunctionBuilder, type Local, type Value } from "../asm/assembler.ts";
import type { VectorMath } from "../asm/math.ts";

/** As torch.nn.functional; `gelu` is the exact form, `geluTanh` the one of `approximate="tanh"`. */
export type Activation = "relu" | "gelu" | "geluTanh" | "silu";

/**
 * The error function, with an error below 3e-15.
 *
 * Method: erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·5…(2n+1)) (DLMF 7.6.2). All terms have the
 * sign of x, so nothing cancels.
 */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  if (Math.abs(x) >= 6) return Math.sign(x); // erfc(6) = 2e-17
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

/** Scalar form of each activation. */
export const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = {
  relu: (x) => x < 0 ? 0 : x, // keeps NaN
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  silu: (x) => x / (1 + Math.exp(-x)),
};

/**
 * Coefficients of GELU: −log₂(Φ(x) / Φ(−x)) / x as a polynomial of x², highest power first, where Φ
 * is the normal distribution function. Minimax: the error of x · Φ(x) is below 3e-8.
 */
const GELU = [
  -5.32836271e-9,
  3.91635841e-7,
  -1.15779241e-5,
  1.60439109e-4,
  9.15865081e-5,
  -1.04832180e-1,
  -2.30221035,
];

/** Coefficients of GELU's tanh form: ½x (1 + tanh v) = x / (1 + e^−2v). */
const GELU_TANH = [0.044715, 1].map((c) => -2 * Math.LOG2E * Math.sqrt(2 / Math.PI) * c);

/**
 * The WASM form, inlined: relu is max(x, 0); the others are x / (1 + 2ᵘ), u = x · polynomial(x²).
 */
export function activateWasm(
  f: FunctionBuilder,
  math: VectorMath,
  name: Activation,
  x: Local<"v128">,
): Value<"v128"> {
  if (name === "relu") return x.pmax(0);
  const u = f.local("v128", "u");
  u.set(x.times(exponentWasm(f, math, name, x)));
  const power = math.exp2(f, u.pmin(128));
  return x.div(power.plus(1));
}

/** u / x, by the polynomial of the activation. */
function exponentWasm(
  f: FunctionBuilder,
  math: VectorMath,
  name: Exclude<Activation, "relu">,
  x: Local<"v128">,
): Value<"v128"> {
  if (name === "silu") return f32x4.splat(-Math.LOG2E);
  const square = f.local("v128", "square");
  square.set(x.times(x));
  return math.polynomial(square, name === "gelu" ? GELU : GELU_TANH);
}

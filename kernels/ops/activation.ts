/**
 * The elementwise functions of an MLP, and erf, which the exact GELU needs.
 *
 * They run as an epilogue of `matmul`; there is no pass of their own.
 *
 * @module
 */

/** As torch.nn.functional: `gelu` is the exact form, `geluTanh` the one with `approximate="tanh"`. */
export type Activation = "relu" | "gelu" | "geluTanh" | "silu";

/**
 * The error function, within 3e-15 of the true value.
 *
 * DLMF 7.6.2: erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·5…(2n+1)): no term is negative, so nothing cancels.
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

/** One function for each activation: a number in, a number out. */
export const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = {
  relu: (x) => x < 0 ? 0 : x, // a NaN stays one
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  silu: (x) => x / (1 + Math.exp(-x)),
};

/**
 * LayerNorm and RMSNorm over rows.
 *
 *     layer:  y = (x − mean) / sqrt(var + eps) · (weight + offset) + bias      (biased variance)
 *     rms:    y = x / sqrt(mean(x²) + eps) · (weight + offset) + bias
 *
 * y, x [T, C]; weight, bias [C]. As torch.nn.LayerNorm and torch.nn.RMSNorm; `offset` 1 is Gemma's (1 + weight).
 *
 * @module
 */
import { expectTensor } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

/** What a norm is made of. */
export interface Norm<A = Tensor> {
  readonly kind: "layer" | "rms";
  /** [C] */
  readonly weight: A;
  /** [C] */
  readonly bias?: A;
  readonly eps: number;
  /** Added to every weight; default 0. */
  readonly offset?: number;
}

/** A norm and what becomes of its result: y = scale · norm(x), or y += scale · norm(x). */
export interface NormOptions<A = Tensor> extends Norm<A> {
  /** Add onto y, in place of overwriting it. */
  readonly residual?: boolean;
  /** Default 1. */
  readonly scale?: number;
}

/** @throws {RangeError} when the shapes of `norm` do not fit each other. */
export function checkNorm(y: Tensor, x: Tensor, { weight, bias }: NormOptions): { C: number } {
  const [T, C] = x.shape;
  expectTensor("norm", "x", x, [T, C]);
  expectTensor("norm", "y", y, [T, C]);
  expectTensor("norm", "weight", weight, [C]);
  if (bias) expectTensor("norm", "bias", bias, [C]);
  return { C };
}

/** The oracle. `y` may be `x`. */
export function normJs(
  y: Float32Array,
  x: Float32Array,
  { kind, weight, bias, eps, offset = 0, residual = false, scale = 1 }: NormOptions<Float32Array>,
  T: number,
): void {
  const C = weight.length;
  for (let row = 0; row < T * C; row += C) {
    let mean = 0;
    if (kind === "layer") {
      for (let c = 0; c < C; c++) mean += x[row + c];
      mean /= C;
    }
    let squares = 0;
    for (let c = 0; c < C; c++) squares += (x[row + c] - mean) ** 2;
    const inverse = 1 / Math.sqrt(squares / C + eps);
    for (let c = 0; c < C; c++) {
      const normed = (x[row + c] - mean) * inverse * (weight[c] + offset) + (bias ? bias[c] : 0);
      y[row + c] = residual ? y[row + c] + scale * normed : scale * normed;
    }
  }
}

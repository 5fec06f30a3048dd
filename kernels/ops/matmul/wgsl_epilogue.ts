/**
 * WGSL epilogue of a product: bias, activation, gate, scale, cap, residual; the store of one sum.
 *
 * @module
 */
import type { Activation } from "../activation.ts";
import type { Columns, MatmulOptions } from "./mod.ts";

/** Expressions of `v`. Arguments of exp and tanh are bounded: a device may assume no infinity. */
const ACTIVATIONS_WGSL: Readonly<Record<Activation, string>> = {
  relu: "select(v, 0.0, v < 0.0)",
  gelu: "0.5 * v * (1.0 + erf(v * 0.70710678))",
  geluTanh: "0.5 * v * (1.0 + tanh(clamp(0.79788456 * (v + 0.044715 * v * v * v), -15.0, 15.0)))",
  silu: "v / (1.0 + exp(min(-v, 80.0)))",
};

/**
 * erf with an error below 2e-7.
 *
 * Method: polynomials through Chebyshev nodes, fitted to erf(x) / x over x² in [0, 1] and to
 * log(erfc(x)) over [1, 4]; from 4 on, erf is 1 in F32.
 */
const ERF_WGSL = /* wgsl */ `
fn erf(x: f32) -> f32 {
  let s = x * x;
  let a = min(abs(x), 4.0);
  let near = x * (1.12837911 + s * (-0.37612626 + s * (0.112835944 + s * (-0.0268542115 + s * (0.00518908724
    + s * (-0.00080168643 + s * 0.0000787587487))))));
  let far = 1.0 - exp(-0.000765897799 + a * (-1.12589359 + a * (-0.639141262 + a * (-0.103281118 + a * (0.0226047728
    + a * (-0.0034323514 + a * (0.000316937017 + a * -0.0000132723617)))))));
  return select(sign(x) * far, near, s < 1.0);
}
`;

/** Soft cap that keeps NaN, which sampling must see: WGSL leaves clamp(NaN) to the device. */
const CAPPED_WGSL = /* wgsl */ `
fn capped(v: f32, cap: f32) -> f32 {
  let is_nan = (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
  return select(cap * tanh(clamp(v / cap, -15.0, 15.0)), v, is_nan);
}
`;

/** The second product of a gated MLP, which comes in place of a gate. */
export interface UpWgsl {
  readonly bias?: unknown;
}

/** The steps of the epilogue of a sum `v`, one line each, in the order of the formula. */
function stepsWgsl(options: MatmulOptions<unknown>, up: UpWgsl | undefined): string {
  const { bias, activation, gate, scale = 1, softCap, residual = false } = options;
  const steps: string[] = [];
  if (bias) steps.push("v += bias[n];");
  if (activation) steps.push(`v = ${ACTIVATIONS_WGSL[activation]};`);
  if (gate) steps.push("v *= gate[at];");
  if (up) steps.push(up.bias ? "v *= second + up_bias[n];" : "v *= second;");
  if (scale !== 1) steps.push(`v *= f32(${scale});`);
  if (softCap) steps.push(`v = capped(v, f32(${softCap}));`);
  steps.push(residual ? "y[at] += v;" : "y[at] = v;");
  return steps.join("\n  ");
}

/**
 * Defines `store(t, n, sum, second)`, which finishes output n of row t; `second` is the sum of the
 * second product, if there is one. Bindings: 0 y, 3 bias, 4 gate, 8 bias of the second product.
 */
export function epilogueWgsl(
  options: MatmulOptions<unknown>,
  { width, first }: Columns,
  up?: UpWgsl,
): string {
  const { bias, gate, activation, softCap } = options;
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
${bias ? "@group(1) @binding(3) var<storage, read> bias: array<f32>;" : ""}
${gate ? "@group(1) @binding(4) var<storage, read> gate: array<f32>;" : ""}
${up?.bias ? "@group(1) @binding(8) var<storage, read> up_bias: array<f32>;" : ""}
${activation === "gelu" ? ERF_WGSL : ""}
${softCap ? CAPPED_WGSL : ""}
fn store(t: u32, n: u32, sum: f32, second: f32) {
  let at = t * ${width}u + ${first}u + n;
  var v = sum;
  ${stepsWgsl(options, up)}
}`;
}

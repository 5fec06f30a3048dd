/**
 * LayerNorm and RMSNorm over rows.
 *
 *     layer:  y = (x − mean) / sqrt(var + eps) · (weight + offset) + bias      (biased variance)
 *     rms:    y = x / sqrt(mean(x²) + eps) · (weight + offset) + bias
 *
 * y, x [T, C]; weight, bias [C]. As torch.nn.LayerNorm and torch.nn.RMSNorm; `offset` 1 is Gemma's
 * (1 + weight).
 *
 * @module
 */
import { expectTensor } from "../errors.ts";
import type { Step } from "../step.ts";
import { BYTES } from "../formats/mod.ts";
import type { Tensor } from "../tensor.ts";
import { f32, f32x4, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { defineKernel, type Kernel } from "../asm/kernel.ts";
import { eachFour, firstLanes, storeLanes, sumF32 } from "../asm/lanes.ts";
import { mainWgsl, type Shader, sumOverLanesWgsl } from "../wgsl/shader.ts";
import {
  type Closure,
  type Cost,
  EACH_ROW,
  f32Of,
  type GpuDispatch,
  type GpuTarget,
  reads,
  updates,
  type WasmEntry,
  type WasmTarget,
  writes,
} from "./contract.ts";

/** Parameters of a norm. */
export interface Norm<A = Tensor> {
  /** "layer" subtracts the mean, "rms" does not. */
  readonly kind: "layer" | "rms";
  /** [C] */
  readonly weight: A;
  /** [C] */
  readonly bias?: A;
  /** Added to the variance or mean square. */
  readonly eps: number;
  /** Added to every weight; default 0. */
  readonly offset?: number;
}

/** A norm with its epilogue: y = scale · norm(x), or y += scale · norm(x). */
export interface NormOptions<A = Tensor> extends Norm<A> {
  /** Whether to add to y instead of overwriting it; default false. */
  readonly residual?: boolean;
  /** Factor of the result; default 1. */
  readonly scale?: number;
}

/** A checked call. */
export interface NormCall {
  readonly op: "norm";
  readonly y: Tensor;
  readonly x: Tensor;
  readonly options: NormOptions;
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function normCall(y: Tensor, x: Tensor, options: NormOptions): NormCall {
  const [T, C] = x.shape;
  const { weight, bias } = options;
  expectTensor("norm", "x", x, [T, C]);
  expectTensor("norm", "y", y, [T, C]);
  expectTensor("norm", "weight", weight, [C]);
  if (bias) expectTensor("norm", "bias", bias, [C]);
  return { op: "norm", y, x, options };
}

/** Operands and their access. */
export function normOperands({ y, x, options }: NormCall) {
  const { weight, bias, residual } = options;
  return {
    y: residual ? updates(y) : writes(y),
    x: reads(x),
    weight: reads(weight),
    bias: reads(bias),
  };
}

/** Reads x, writes y (and reads it for a residual), reads the parameters once. */
export function normCost(
  { x, options }: Pick<NormCall, "x" | "options">,
  { rows }: Pick<Step, "rows">,
): Cost {
  const C = x.shape[1];
  const bytes = rows * C * BYTES.F32 * (options.residual ? 3 : 2) + normBytes(options);
  return { name: "norm", bytes, flops: rows * C * normFlops(options) };
}

/** FLOPs per number: mean, deviation, its square, their sum, products; RMS has no mean. */
export function normFlops({ kind, bias }: Norm): number {
  return (kind === "layer" ? 7 : 4) + (bias ? 1 : 0);
}

/** Bytes of weight and bias. */
export function normBytes({ weight, bias }: Norm): number {
  const bytes = (t?: Tensor) => t ? BYTES.F32 * t.shape[0] : 0;
  return bytes(weight) + bytes(bias);
}

/** The options, with typed arrays for tensors. */
export function bindNormOptions(norm: NormOptions): NormOptions<Float32Array> {
  return { ...norm, weight: f32Of(norm.weight), bias: norm.bias && f32Of(norm.bias) };
}

/** Binds the call to typed arrays. */
export function bindNorm(call: NormCall): Closure {
  const [y, x] = [f32Of(call.y), f32Of(call.x)];
  const options = bindNormOptions(call.options);
  return ({ rows }) => normJs(y, x, options, rows);
}

/** The plain form, and oracle of the others. `y` may be `x`. */
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

/** Constants of the shader. */
export interface NormWgsl {
  /** Width of a row. */
  readonly C: number;
  /** Lanes of a workgroup, a power of two. */
  readonly lanes: number;
  /** Whether `y` is `x`: WebGPU refuses a second binding of a written buffer. */
  readonly inPlace: boolean;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
  readonly options: NormOptions<unknown>;
}

/**
 * The WGSL form: one workgroup per row. Bindings: 0 y, 1 x (none in place), 2 weight, 3 bias (if
 * any). `run` and `index_of` come from `PRELUDE`.
 */
export function normWgsl({ C, lanes, inPlace, subgroups, options }: NormWgsl): Shader {
  const { kind, bias, eps, offset = 0, residual = false, scale = 1 } = options;
  const x = inPlace ? "y" : "x";
  const declareX = inPlace ? "" : "@group(1) @binding(1) var<storage, read> x: array<f32>;";
  const declareBias = bias ? "@group(1) @binding(3) var<storage, read> bias: array<f32>;" : "";
  const meanOfRow = kind === "rms" ? "let mean = 0.0;" : `var plain = 0.0;
  for (var c = lane; c < C; c += LANES) { plain += ${x}[row + c]; }
  let mean = sum_over_lanes(lane, plain) / f32(C);`;
  const shift = bias ? "+ bias[c]" : "";
  const assign = residual ? "+=" : "=";
  const sum = sumOverLanesWgsl(lanes, { subgroups });
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
${declareX}
@group(1) @binding(2) var<storage, read> weight: array<f32>;
${declareBias}

const C = ${C}u;
const LANES = ${lanes}u;
${sum.wgsl}

${mainWgsl(lanes)} {
  let t = index_of(group, grid);
  if (t >= run.rows) { return; }
  let row = t * C;

  ${meanOfRow}
  var squares = 0.0;
  for (var c = lane; c < C; c += LANES) {
    let d = ${x}[row + c] - mean;
    squares += d * d;
  }
  let inverse = 1.0 / sqrt(sum_over_lanes(lane, squares) / f32(C) + f32(${eps}));

  for (var c = lane; c < C; c += LANES) {
    let normed = (${x}[row + c] - mean) * inverse * (weight[c] + f32(${offset})) ${shift};
    y[row + c] ${assign} f32(${scale}) * normed;
  }
}
`;
  return { ...sum, wgsl };
}

/** Lowers the call to one dispatch, a workgroup per row. */
export function normDispatches(call: NormCall, { software, subgroups }: GpuTarget): GpuDispatch[] {
  const { options } = call;
  const { y, x, weight, bias } = normOperands(call);
  const inPlace = call.y === call.x;
  const lanes = software ? 32 : 128;
  return [{
    op: "norm",
    ...normWgsl({ C: call.x.shape[1], lanes, inPlace, subgroups, options }),
    operands: [y, inPlace ? undefined : x, weight, bias],
    groups: (rows) => rows,
  }];
}

/** Lowers the call to a WASM kernel over rows. */
export function normEntries(call: NormCall, target: WasmTarget): WasmEntry[] {
  const { y, x, weight, bias } = normOperands(call);
  const options = { ...call.options, weight: true, bias: !!bias };
  const constants = { C: call.x.shape[1], options };
  const kernel = target.once(
    "norm",
    constants,
    ({ C, options }) => normWasm(target.module, C, options),
  );
  return [{ kernel, operands: [y, x, weight, bias], items: EACH_ROW }];
}

/** The WASM form; an item is a row. */
function normWasm(m: ModuleBuilder, C: number, options: NormOptions<unknown>): Kernel {
  return defineKernel(m, ["y", "x", "weight", "bias"], (f, { y, x, weight, bias, begin, end }) => {
    const t = f.local("int", "t");
    for (const row of [y, x]) row.advance(begin.times(4 * C));
    f.for(t, begin, end, 1, () => {
      applyNorm(f, { y, x, weight, bias }, C, options, normStats(f, x, C, options));
      x.advance(4 * C);
      y.advance(4 * C);
    });
  });
}

/** Mean and 1/√(variance + ε) of a row, each in all four lanes. */
export interface NormStats {
  readonly mean: Local<"v128">;
  readonly inverse: Local<"v128">;
}

/** Four numbers at `x`; for LayerNorm, minus the mean. */
function centred(x: Value<Int>, { mean }: NormStats, { kind }: Norm<unknown>): Value<"v128"> {
  return kind === "layer" ? v128.load(x).minus(mean) : v128.load(x);
}

/** Emits mean and inverse deviation of the row x [C]: two passes, mean then variance. */
export function normStats(
  f: FunctionBuilder,
  x: Local<Int>,
  C: number,
  norm: Norm<unknown>,
): NormStats {
  const c = f.local("int", "c");
  const { sum, mean, inverse, v } = f.locals(vectors("sum", "mean", "inverse", "v"));
  const at = x.plus(c);
  if (norm.kind === "layer") {
    sum.set(0);
    eachFour(f, c, C, (lanes) => sum.set(sum.plus(firstLanes(v128.load(at), lanes))));
    mean.set(f32x4.splat(sumF32(sum).div(C)));
  }
  sum.set(0);
  eachFour(f, c, C, (lanes) => {
    v.set(firstLanes(centred(at, { mean, inverse }, norm), lanes));
    sum.set(sum.plus(v.times(v)));
  });
  const variance = sumF32(sum).div(C);
  inverse.set(f32x4.splat(f32.const(1).div(f32.sqrt(variance.plus(norm.eps)))));
  return { mean, inverse };
}

/** Emits y [C] = norm(x [C]), with the options' residual and scale. */
export function applyNorm(
  f: FunctionBuilder,
  { y, x, weight, bias }: Readonly<Record<"y" | "x" | "weight" | "bias", Value<Int>>>,
  C: number,
  norm: NormOptions<unknown>,
  stats: NormStats,
): void {
  const { offset = 0, residual = false, scale = 1 } = norm;
  const c = f.local("int", "c");
  const v = f.local("v128", "v");
  const at = (row: Value<Int>) => row.plus(c);
  eachFour(f, c, C, (lanes) => {
    const w = v128.load(at(weight));
    const factor = offset === 0 ? w : w.plus(offset);
    v.set(centred(at(x), stats, norm).times(stats.inverse).times(factor));
    if (norm.bias) v.set(v.plus(v128.load(at(bias))));
    if (scale !== 1) v.set(v.times(scale));
    if (residual) v.set(v128.load(at(y)).plus(v));
    storeLanes(f, at(y), v, lanes);
  });
}

/**
 * WGSL matmul: flat, split and shared tiles, for decode and prefill.
 *
 *     flat    a lane computes `rows` × `outputs` sums over all of K; no barrier
 *     split   one row: `outputs` lanes side by side, `slices` of them share out K and add up
 *     shared  x and the weight pass through workgroup memory, 16 inputs at a time:
 *
 *                       tileN outputs
 *                  ┌───────┬───────┬─────────┐                  load tile    tile_w and tile_x
 *                  │ tile_w│       │         │ 16 inputs        barrier
 *                  └───────┴───────┴─────────┘                  multiply     rows × outputs sums
 *        ┌────────┐┌───────┬───────┬─────────┐                  barrier
 *        │ tile_x ││ a b … │ a b … │ a b …   │
 *        │        ││ c d … │ c d … │ c d …   │ tileT rows       lane a: row 0, column 0 of every
 *        ├────────┤├───────┼───────┼─────────┤                  block; lane b: column 1; lane c:
 *        │        ││ a b … │ a b … │ a b …   │                  row 1, column 0; …
 *        │        ││ c d … │ c d … │ c d …   │
 *        └────────┘└───────┴───────┴─────────┘
 *         16 inputs  `outputs` blocks of tileN / outputs columns,
 *                    `rows` blocks of tileT / rows rows
 *
 * `mod.ts` has the formula and the shapes.
 *
 * @module
 */
import type { Activation } from "../activation.ts";
import type { NormOptions } from "../norm.ts";
import { type WeightDtype, wgslOf } from "../../formats/mod.ts";
import { PANEL } from "../../formats/wgsl.ts";
import type { GpuDispatch, GpuTarget } from "../contract.ts";
import { type MatmulCall, matmulOperands, type MatmulOptions } from "./mod.ts";
import {
  linesWgsl,
  mainWgsl,
  type Shader,
  sumOverLanesWgsl,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";

/** Shape of a workgroup's work, drawn above. */
export type Tile =
  | {
    readonly kind: "flat";
    /** Lanes of a workgroup. */
    readonly lanes: number;
    /** Outputs of a lane, `lanes` apart. */
    readonly outputs: number;
    /** Rows of a workgroup. */
    readonly rows: number;
  }
  | { readonly kind: "split"; readonly outputs: number; readonly slices: number }
  | {
    readonly kind: "shared";
    /** Outputs and rows of a workgroup. */
    readonly tileN: number;
    readonly tileT: number;
    /** Outputs and rows of a lane. */
    readonly outputs: number;
    readonly rows: number;
  };

/** Constants of the shader. */
export interface MatmulWgsl {
  /** Outputs. */
  readonly N: number;
  /** Inputs. */
  readonly K: number;
  readonly dtype: WeightDtype;
  readonly tile: Tile;
  readonly options: MatmulOptions<unknown>;
  /** Outputs first … first + count, of a weight that exceeds one binding; default all. */
  readonly part?: { readonly first: number; readonly count: number };
  /**
   * Norm of x, computed by the same kernel: for `flat` and `split` of one row of at most
   * `MAX_NORM_WIDTH` inputs.
   */
  readonly norm?: NormOptions<unknown>;
}

/**
 * Widest row that a product norms itself: it and the sums must fit 16 KiB of workgroup memory,
 * which every device has.
 */
export const MAX_NORM_WIDTH = 3072;

/** Candidates of the autotuner, by number of rows. */
export const TILES: Readonly<Record<"decode" | "prefill", readonly Tile[]>> = {
  decode: [
    { kind: "split", outputs: 32, slices: 8 },
    { kind: "split", outputs: 16, slices: 16 },
    { kind: "split", outputs: 8, slices: 32 },
    { kind: "split", outputs: 8, slices: 8 },
    { kind: "flat", lanes: 64, outputs: 1, rows: 1 },
  ],
  prefill: [
    { kind: "shared", tileN: 64, tileT: 64, outputs: 4, rows: 4 },
    { kind: "shared", tileN: 32, tileT: 32, outputs: 4, rows: 4 },
    { kind: "shared", tileN: 64, tileT: 32, outputs: 8, rows: 4 },
    { kind: "shared", tileN: 128, tileT: 128, outputs: 8, rows: 8 },
    { kind: "flat", lanes: 32, outputs: 1, rows: 4 },
  ],
};

/**
 * Tiles for a GPU emulated by the CPU: barriers are expensive, lanes beyond its vectors gain
 * nothing, and each number read costs as much as several multiply-adds. `normed` has the most
 * outputs, since each workgroup norms the row again.
 */
export const SOFTWARE_TILES: Readonly<Record<"decode" | "normed" | "prefill", Tile>> = {
  decode: { kind: "flat", lanes: 8, outputs: 8, rows: 1 },
  normed: { kind: "flat", lanes: 16, outputs: 8, rows: 1 },
  prefill: { kind: "flat", lanes: 8, outputs: 8, rows: 8 },
};

/** Workgroups of a product of `count` outputs and `rows` rows. */
export function matmulGroups(tile: Tile, count: number, rows: number): number {
  switch (tile.kind) {
    case "flat":
      return Math.ceil(count / (tile.lanes * tile.outputs)) * Math.ceil(rows / tile.rows);
    case "split":
      return Math.ceil(count / tile.outputs) * rows;
    case "shared":
      return Math.ceil(count / tile.tileN) * Math.ceil(rows / tile.tileT);
  }
}

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

/** The epilogue of a sum `v`, one line per step, in the order of the formula. */
function epilogueWgsl(options: MatmulOptions<unknown>): string {
  const { bias, activation, gate, scale = 1, softCap, residual = false } = options;
  const steps: string[] = [];
  if (bias) steps.push("v += bias[n];");
  if (activation) steps.push(`v = ${ACTIVATIONS_WGSL[activation]};`);
  if (gate) steps.push("v *= gate[at];");
  if (scale !== 1) steps.push(`v *= f32(${scale});`);
  if (softCap) steps.push(`v = capped(v, f32(${softCap}));`);
  steps.push(residual ? "y[at] += v;" : "y[at] = v;");
  return steps.join("\n  ");
}

/**
 * Defines `load_x`: four inputs of a row. Vectors if K is a multiple of four, else single numbers
 * with zeros past K.
 */
function loadXWgsl(K: number): string {
  if (K % 4 === 0) {
    return `@group(1) @binding(1) var<storage, read> x: array<vec4f>;
fn load_x(t: u32, k: u32) -> vec4f { return x[t * GROUPS + k]; }`;
  }
  const element = (i: number) => `select(0.0, x[t * K + 4u * k + ${i}u], 4u * k + ${i}u < K)`;
  return `@group(1) @binding(1) var<storage, read> x: array<f32>;
fn load_x(t: u32, k: u32) -> vec4f {
  return vec4f(
    ${[0, 1, 2, 3].map(element).join(",\n    ")},
  );
}`;
}

/** Norms a row of x into workgroup memory, by all lanes together; `load_x` reads it there. */
function normedWgsl(
  lanes: number,
  K: number,
  { kind, bias, eps, offset = 0, scale = 1 }: NormOptions<unknown>,
): Shader {
  const shift = bias ? "v += norm_bias[k];" : "";
  const mean = kind === "rms" ? "let mean = 0.0;" : `var plain = 0.0;
  for (var k = lane; k < K; k += ${lanes}u) { plain += x[row + k]; }
  let mean = sum_over_lanes(lane, plain) / f32(K);`;
  const normed = workgroupArray("normed", "vec4f", Math.ceil(K / 4), "GROUPS");
  const sum = sumOverLanesWgsl(lanes);
  const wgsl = /* wgsl */ `
@group(1) @binding(1) var<storage, read> x: array<f32>;
@group(1) @binding(5) var<storage, read> norm_weight: array<f32>;
${bias ? "@group(1) @binding(6) var<storage, read> norm_bias: array<f32>;" : ""}
${normed.wgsl}
${sum.wgsl}
fn norm_x(lane: u32, row: u32) {
  ${mean}
  var squares = 0.0;
  for (var k = lane; k < K; k += ${lanes}u) {
    let d = x[row + k] - mean;
    squares += d * d;
  }
  let inverse = 1.0 / sqrt(sum_over_lanes(lane, squares) / f32(K) + f32(${eps}));
  for (var k = lane; k < GROUPS; k += ${lanes}u) {
    normed[k] = vec4f(
      ${[0, 1, 2, 3].map((i) => `normed_at(row, 4u * k + ${i}u, mean, inverse)`).join(",\n      ")},
    );
  }
  workgroupBarrier();
}
fn normed_at(row: u32, k: u32, mean: f32, inverse: f32) -> f32 {
  if (k >= K) { return 0.0; }
  var v = (x[row + k] - mean) * inverse * (norm_weight[k] + f32(${offset}));
  ${shift}
  return v * f32(${scale});
}
fn load_x(t: u32, k: u32) -> vec4f { return normed[k]; }`;
  return { wgsl, workgroupBytes: workgroupBytes([normed, sum]) };
}

/**
 * Flat: each lane walks all of K. Sums are named, not indexed; no workgroup memory or barrier
 * except a norm's.
 */
function flatBody(
  { lanes, outputs, rows }: Tile & { kind: "flat" },
  K: number,
  normed: boolean,
): string {
  const each = (line: (i: number, j: number) => string) =>
    linesWgsl(rows, (i) => linesWgsl(outputs, (j) => line(i, j)));
  // Two groups of inputs per iteration: more loads in flight, and a CPU that emulates the GPU
  // checks the active lanes once for both.
  const depth = Math.ceil(K / 4) % 2 === 0 ? 2 : 1;
  const multiply = (d: number) =>
    /* wgsl */ `{
    ${linesWgsl(outputs, (j) => `let w_${j} = load_weight(at_${j} + (k + ${d}u) * PANEL);`)}
    ${linesWgsl(rows, (i) => `let x_${i} = load_x(t_${i}, k + ${d}u);`)}
    ${each((i, j) => `sum_${i}_${j} += dot(w_${j}, x_${i});`)}
  }`;
  return /* wgsl */ `
  let tiles = (run.rows + ${rows - 1}u) / ${rows}u;
  if (index >= BLOCKS * tiles) { return; }
  let t = (index % tiles) * ${rows}u;
  let n = (index / tiles) * ${lanes * outputs}u + lane;
  ${linesWgsl(rows, (i) => `let t_${i} = min(t + ${i}u, run.rows - 1u);`)}
  ${linesWgsl(outputs, (j) => `let at_${j} = start_of(n + ${j * lanes}u);`)}
  ${normed ? "norm_x(lane, t * K);" : ""}
  ${each((i, j) => `var sum_${i}_${j} = 0.0;`)}
  for (var k = 0u; k < GROUPS; k += ${depth}u) {
  ${linesWgsl(depth, multiply)}
  }
  ${each((i, j) => `store(t + ${i}u, n + ${j * lanes}u, sum_${i}_${j});`)}`;
}

/** Split: `outputs` neighbouring lanes per slice; slice s takes groups s, s + slices, … of K. */
function splitBody({ outputs, slices }: Tile & { kind: "split" }, normed: boolean): string {
  return /* wgsl */ `
  if (index >= BLOCKS * run.rows) { return; }
  let t = index % run.rows;
  let n = (index / run.rows) * ${outputs}u + lane % ${outputs}u;
  let at = start_of(n);
  let slice = lane / ${outputs}u;
  ${normed ? "norm_x(lane, t * K);" : ""}
  var sum_0 = 0.0;
  var sum_1 = 0.0;
  var k = slice;
  for (; k + ${slices}u < GROUPS; k += ${2 * slices}u) {
    let w_0 = load_weight(at + k * PANEL);
    let w_1 = load_weight(at + (k + ${slices}u) * PANEL);
    sum_0 += dot(w_0, load_x(t, k));
    sum_1 += dot(w_1, load_x(t, k + ${slices}u));
  }
  if (k < GROUPS) { sum_0 += dot(load_weight(at + k * PANEL), load_x(t, k)); }
  share_of[lane] = sum_0 + sum_1;
  for (var half = ${slices / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (slice < half) { share_of[lane] += share_of[lane + half * ${outputs}u]; }
  }
  if (slice == 0u) { store(t, n, share_of[lane]); }`;
}

/** Groups of four inputs in workgroup memory at a time. */
const DEPTH = 4;

/** Shared. Phases: load tile, barrier, multiply, barrier. */
function sharedBody({ tileN, tileT, outputs, rows }: Tile & { kind: "shared" }): string {
  const [wide, high] = [tileN / outputs, tileT / rows];
  const lanes = wide * high;
  const each = (line: (i: number, j: number) => string) =>
    linesWgsl(rows, (i) => linesWgsl(outputs, (j) => line(i, j)));
  return /* wgsl */ `
  let tiles = (run.rows + ${tileT - 1}u) / ${tileT}u;
  if (index >= BLOCKS * tiles) { return; }
  let t = (index % tiles) * ${tileT}u;
  let n = (index / tiles) * ${tileN}u;
  let column = lane % ${wide}u;
  let row = lane / ${wide}u;
  ${each((i, j) => `var sum_${i}_${j} = 0.0;`)}
  for (var k = 0u; k < GROUPS; k += ${DEPTH}u) {
    for (var e = lane; e < ${tileN * DEPTH}u; e += ${lanes}u) {
      let deep = k + e / ${tileN}u;
      var w = vec4f(0.0);
      if (deep < GROUPS) { w = load_weight(start_of(n + e % ${tileN}u) + deep * PANEL); }
      tile_w[e] = w;
    }
    for (var e = lane; e < ${tileT * DEPTH}u; e += ${lanes}u) {
      let deep = k + e % ${DEPTH}u;
      var v = vec4f(0.0);
      if (deep < GROUPS) { v = load_x(min(t + e / ${DEPTH}u, run.rows - 1u), deep); }
      tile_x[(e % ${DEPTH}u) * ${tileT}u + e / ${DEPTH}u] = v;
    }
    workgroupBarrier();
    for (var d = 0u; d < ${DEPTH}u; d++) {
      ${linesWgsl(outputs, (j) => `let w_${j} = tile_w[d * ${tileN}u + column + ${j * wide}u];`)}
      ${linesWgsl(rows, (i) => `let x_${i} = tile_x[d * ${tileT}u + row + ${i * high}u];`)}
      ${each((i, j) => `sum_${i}_${j} += dot(w_${j}, x_${i});`)}
    }
    workgroupBarrier();
  }
  ${each((i, j) => `store(t + row + ${i * high}u, n + column + ${j * wide}u, sum_${i}_${j});`)}`;
}

/** Lanes of a workgroup, its outputs (`block`), workgroup memory and code. */
function bodyOf(
  tile: Tile,
  K: number,
  normed: boolean,
): { lanes: number; block: number; memory: readonly Shader[]; body: string } {
  switch (tile.kind) {
    case "flat":
      return {
        lanes: tile.lanes,
        block: tile.lanes * tile.outputs,
        memory: [],
        body: flatBody(tile, K, normed),
      };
    case "split": {
      const lanes = tile.outputs * tile.slices;
      const memory = [workgroupArray("share_of", "f32", lanes)];
      return { lanes, block: tile.outputs, memory, body: splitBody(tile, normed) };
    }
    case "shared": {
      const lanes = tile.tileN / tile.outputs * (tile.tileT / tile.rows);
      const memory = [
        workgroupArray("tile_w", "vec4f", tile.tileN * DEPTH),
        workgroupArray("tile_x", "vec4f", tile.tileT * DEPTH),
      ];
      return { lanes, block: tile.tileN, memory, body: sharedBody(tile) };
    }
  }
}

/**
 * The WGSL form. Bindings: 0 y, 1 x, 2 weight [⌈N/PANEL⌉][⌈K/4⌉][PANEL][4], zero-padded, 3 bias, 4
 * gate, 5 and 6 weight and bias of a norm. `run` and `index_of` come from `PRELUDE`.
 */
export function matmulWgsl({ N, K, dtype, tile, options, norm, part }: MatmulWgsl): Shader {
  const { first, count } = part ?? { first: 0, count: N };
  const weights = wgslOf(dtype);
  const { lanes, block, memory, body } = bodyOf(tile, K, norm !== undefined);
  const declareBias = options.bias
    ? "@group(1) @binding(3) var<storage, read> bias: array<f32>;"
    : "";
  const declareGate = options.gate
    ? "@group(1) @binding(4) var<storage, read> gate: array<f32>;"
    : "";
  const functions = (options.activation === "gelu" ? ERF_WGSL : "") +
    (options.softCap ? CAPPED_WGSL : "");
  const load = norm ? normedWgsl(lanes, K, norm) : { wgsl: loadXWgsl(K), workgroupBytes: 0 };
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
@group(1) @binding(2) var<storage, read> weight: array<${weights.group}>;
${declareBias}
${declareGate}

const N = ${N}u;
const K = ${K}u;
const GROUPS = ${Math.ceil(K / 4)}u;
const FIRST = ${first}u;
const COUNT = ${count}u;
const BLOCKS = ${Math.ceil(count / block)}u;
const PANEL = ${PANEL}u;
${load.wgsl}
${memory.map((array) => array.wgsl).join("\n")}

fn load_weight(i: u32) -> vec4f {
  ${weights.load("weight", "i")}
}
// First group of inputs of an output; beyond the last output, that of the last one.
fn start_of(n: u32) -> u32 {
  let row = min(n, COUNT - 1u);
  return (row / PANEL) * GROUPS * PANEL + row % PANEL;
}
${functions}

fn store(t: u32, row: u32, sum: f32) {
  if (t >= run.rows || row >= COUNT) { return; }
  let n = FIRST + row;
  let at = t * N + n;
  var v = sum;
  ${epilogueWgsl(options)}
}

${mainWgsl(lanes)} {
  let index = index_of(group, grid);
  ${body}
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([load, ...memory]) };
}

/** Lowers the call to a dispatch for each part of the weight. */
export function matmulDispatches(call: MatmulCall, target: GpuTarget, tile: Tile): GpuDispatch[] {
  const { y, x, weight, bias, gate, normWeight, normBias } = matmulOperands(call);
  const { weight: { shape: [N, K], dtype }, options, norm } = call;
  return target.parts(weight).map(({ first, count, operand }) => ({
    op: "matmul",
    ...matmulWgsl({ N, K, dtype, tile, options, norm, part: { first, count } }),
    operands: [y, x, operand, bias, gate, normWeight, normBias],
    groups: ({ rows }) => matmulGroups(tile, count, rows),
  }));
}

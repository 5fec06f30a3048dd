/**
 * The WGSL form of the matrix product; `mod.ts` has the formula and the shapes.
 *
 * @module
 */
import type { Activation } from "../activation.ts";
import type { WeightDtype } from "../tensor.ts";
import type { MatmulOptions } from "./mod.ts";

/** The constants that a matmul's shader is specialised on. */
export interface MatmulWgsl {
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDtype;
  /** Rows of x that a lane serves with one read of the weight. */
  readonly tile: number;
  readonly options: MatmulOptions<unknown>;
}

/** Rows of a weight that stand together on a GPU: neighbouring lanes read neighbouring groups of four inputs. */
export const PANEL = 32;

/** A weight element group on the GPU, and how its four numbers are widened. 16-bit ones stay two words. */
const GROUP_WGSL: Readonly<Record<WeightDtype, { type: string; widen: string }>> = {
  F32: { type: "vec4f", widen: "g" },
  F16: { type: "vec2u", widen: "vec4f(unpack2x16float(g.x), unpack2x16float(g.y))" },
  BF16: {
    type: "vec2u",
    widen: "bitcast<vec4f>(vec4u(g.x << 16u, g.x & 0xffff0000u, g.y << 16u, g.y & 0xffff0000u))",
  },
};

/** Each takes and gives a number `v`. Arguments of exp and tanh are bounded: a device may assume no infinity. */
const ACTIVATIONS_WGSL: Readonly<Record<Activation, string>> = {
  relu: "select(v, 0.0, v < 0.0)",
  gelu: "0.5 * v * (1.0 + erf(v * 0.70710678))",
  geluTanh: "0.5 * v * (1.0 + tanh(clamp(0.79788456 * (v + 0.044715 * v * v * v), -15.0, 15.0)))",
  silu: "v / (1.0 + exp(min(-v, 80.0)))",
};

/**
 * erf within 2e-7. Polynomials through Chebyshev nodes, fitted to erf(x) / x over x² in [0, 1] and to log(erfc(x)) over [1, 4];
 * from 4 on an F32 erf is 1.
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

/** A NaN must stay one, for sampling to see it; what clamp makes of it is the device's affair. */
const CAPPED_WGSL = /* wgsl */ `
fn capped(v: f32, cap: f32) -> f32 {
  let is_nan = (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
  return select(cap * tanh(clamp(v / cap, -15.0, 15.0)), v, is_nan);
}
`;

/** What stands between a sum `v` and its store, one line a step, in the order of the module's formula. */
function epilogueWgsl(options: MatmulOptions<unknown>): string {
  const { bias, activation, gate, scale = 1, softCap, residual = false } = options;
  const lines: string[] = [];
  if (bias) lines.push("v += bias[n];");
  if (activation) lines.push(`v = ${ACTIVATIONS_WGSL[activation]};`);
  if (gate) lines.push("v *= gate[at];");
  if (scale !== 1) lines.push(`v *= f32(${scale});`);
  if (softCap) lines.push(`v = capped(v, f32(${softCap}));`);
  lines.push(residual ? "y[at] += v;" : "y[at] = v;");
  return lines.join("\n  ");
}

/** How x is read in groups of four: as vectors where rows allow it, else number by number, with zeros past the end. */
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

/**
 * The WGSL form: a lane has one output of `tile` rows; a workgroup has a panel. No shared memory, no barrier.
 * Operands: 0 y, 1 x, 2 weight in panels [⌈N/PANEL⌉][⌈K/4⌉][PANEL][4] with zeros where it ends, 3 bias, 4 gate.
 * `run` and `index_of` come from the prelude in `webgpu/pipeline.ts`.
 */
export function matmulWgsl({ N, K, dtype, tile, options }: MatmulWgsl): string {
  const group = GROUP_WGSL[dtype];
  const declareBias = options.bias
    ? "@group(1) @binding(3) var<storage, read> bias: array<f32>;"
    : "";
  const declareGate = options.gate
    ? "@group(1) @binding(4) var<storage, read> gate: array<f32>;"
    : "";
  const functions = (options.activation === "gelu" ? ERF_WGSL : "") +
    (options.softCap ? CAPPED_WGSL : "");
  const rows = (line: (i: number) => string) =>
    Array.from({ length: tile }, (_, i) => line(i)).join("\n    ");
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
${loadXWgsl(K)}
@group(1) @binding(2) var<storage, read> weight: array<${group.type}>;
${declareBias}
${declareGate}

const N = ${N}u;
const K = ${K}u;
const GROUPS = ${Math.ceil(K / 4)}u;
const PANELS = ${Math.ceil(N / PANEL)}u;
const PANEL = ${PANEL}u;
const TILE = ${tile}u;

fn load_weight(i: u32) -> vec4f {
  let g = weight[i];
  return ${group.widen};
}
${functions}

fn store(t: u32, n: u32, sums: vec4f) {
  if (t >= run.rows || n >= N) { return; }
  let at = t * N + n;
  var v = sums.x + sums.y + sums.z + sums.w;
  ${epilogueWgsl(options)}
}

@compute @workgroup_size(PANEL)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = index_of(group, grid);
  let tiles = (run.rows + TILE - 1u) / TILE;
  if (index >= PANELS * tiles) { return; }
  let panel = index / tiles;
  let t = (index % tiles) * TILE;
    ${rows((i) => `let t_${i} = min(t + ${i}u, run.rows - 1u); var sums_${i} = vec4f(0.0);`)}
  for (var k = 0u; k < GROUPS; k++) {
    let w = load_weight((panel * GROUPS + k) * PANEL + lane);
    ${rows((i) => `sums_${i} += w * load_x(t_${i}, k);`)}
  }
  let n = panel * PANEL + lane;
    ${rows((i) => `store(t + ${i}u, n, sums_${i});`)}
}
`;
}

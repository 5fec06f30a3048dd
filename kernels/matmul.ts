/**
 * The matrix product of every linear layer, with what follows it folded in.
 *
 *     v = scale · gate ⊙ activation(x · Wᵀ + bias)
 *     v = softCap · tanh(v / softCap)                   if there is a cap
 *     y = v, or y += v under `residual`
 *
 * y, gate [T, N]; x [T, K]; weight [N, K]; bias [N]. As torch.nn.functional.linear; the cap is Gemma 2's.
 *
 * @module
 */
import { type Activation, ACTIVATIONS } from "./activation.ts";
import { expectTensor, expectThat } from "./errors.ts";
import {
  BYTES,
  type HostArray,
  type Tensor,
  type Weight,
  type WeightDtype,
  widen,
} from "./tensor.ts";
import { call, f32x4, type Func, i32, i32x4, type ModuleBuilder, v128 } from "./wasm/assembler.ts";
import type { FunctionBuilder, Local } from "./wasm/assembler.ts";
import { mapLanes, storeLanes } from "./wasm/lanes.ts";
import type { MathFuncs } from "./wasm/math.ts";
import { PANEL_COLUMNS } from "./wasm/panels.ts";

/** What is done to each sum before it is stored. */
export interface MatmulOptions<A = Tensor> {
  /** [N] */
  readonly bias?: A;
  /** Applied to each sum after the bias; default none. */
  readonly activation?: Activation;
  /** [T, N]; multiplied in after the activation: a gated MLP's other half. */
  readonly gate?: A;
  /** Default 1. */
  readonly scale?: number;
  /** A bound that is approached smoothly; default none. */
  readonly softCap?: number;
  /** Add onto y, in place of overwriting it. */
  readonly residual?: boolean;
}

/** @throws {RangeError} when the shapes of `matmul` do not fit each other, or `y` is one of its inputs. */
export function checkMatmul(
  y: Tensor,
  x: Tensor,
  weight: Weight,
  { bias, gate }: MatmulOptions,
): { N: number; K: number } {
  const [N, K] = weight.shape;
  const T = x.shape[0];
  expectTensor("matmul", "x", x, [T, K]);
  expectTensor("matmul", "y", y, [T, N]);
  if (bias) expectTensor("matmul", "bias", bias, [N]);
  if (gate) expectTensor("matmul", "gate", gate, [T, N]);
  expectThat("matmul", y !== x && y !== gate, "y to be another tensor than its inputs");
  return { N, K };
}

/** A weight in plain rows [N, K], as the typed-array form reads it. */
export interface Rows {
  readonly data: HostArray;
  readonly dtype: WeightDtype;
  readonly shape: readonly [N: number, K: number];
}

/** Rows of W that one pass over x serves: 8 sums stay in registers, and x is read once for all of them. */
const BLOCK = 8;

/** Scratch for `matmulJs`: one block of rows, widened, and its sums. */
export interface MatmulScratch {
  readonly rows: Float32Array;
  readonly sums: Float64Array;
}

/** Scratch for a weight of K inputs; F32 weights are read where they stand. */
export function matmulScratch(dtype: WeightDtype, K: number): MatmulScratch {
  return { rows: new Float32Array(dtype === "F32" ? 0 : BLOCK * K), sums: new Float64Array(BLOCK) };
}

/** The oracle. 16-bit rows are widened a block at a time while they are read. */
export function matmulJs(
  y: Float32Array,
  x: Float32Array,
  weight: Rows,
  options: MatmulOptions<Float32Array>,
  T: number,
  { rows, sums }: MatmulScratch = matmulScratch(weight.dtype, weight.shape[1]),
): void {
  const { data, dtype, shape: [N, K] } = weight;
  for (let n = 0; n < N; n += BLOCK) {
    const count = Math.min(BLOCK, N - n);
    if (dtype !== "F32") widen(rows, data, dtype, n * K, count * K);
    const w = dtype === "F32" ? data as Float32Array : rows;
    const first = dtype === "F32" ? n * K : 0;
    for (let t = 0; t < T; t++) {
      if (count === BLOCK) dot8(sums, x, t * K, w, first, K);
      else for (let i = 0; i < count; i++) sums[i] = dot(x, t * K, w, first + i * K, K);
      store(y, t * N + n, n, sums, count, options);
    }
  }
}

/** Eight neighbouring rows of W times one row of x. */
function dot8(
  sums: Float64Array,
  x: Float32Array,
  xAt: number,
  w: Float32Array,
  wAt: number,
  K: number,
): void {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  const r0 = wAt, r1 = r0 + K, r2 = r1 + K, r3 = r2 + K;
  const r4 = r3 + K, r5 = r4 + K, r6 = r5 + K, r7 = r6 + K;
  for (let k = 0; k < K; k++) {
    const xk = x[xAt + k];
    s0 += w[r0 + k] * xk;
    s1 += w[r1 + k] * xk;
    s2 += w[r2 + k] * xk;
    s3 += w[r3 + k] * xk;
    s4 += w[r4 + k] * xk;
    s5 += w[r5 + k] * xk;
    s6 += w[r6 + k] * xk;
    s7 += w[r7 + k] * xk;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
  sums[4] = s4;
  sums[5] = s5;
  sums[6] = s6;
  sums[7] = s7;
}

function dot(x: Float32Array, xAt: number, w: Float32Array, wAt: number, K: number): number {
  let sum = 0;
  for (let k = 0; k < K; k++) sum += w[wAt + k] * x[xAt + k];
  return sum;
}

/** The epilogue: `count` sums of outputs n… of one row, stored from `at`. */
function store(
  y: Float32Array,
  at: number,
  n: number,
  sums: Float64Array,
  count: number,
  { bias, activation, gate, scale = 1, softCap, residual = false }: MatmulOptions<Float32Array>,
): void {
  for (let i = 0; i < count; i++) {
    let v = bias ? sums[i] + bias[n + i] : sums[i];
    if (activation) v = ACTIVATIONS[activation](v);
    if (gate) v *= gate[at + i];
    v *= scale;
    if (softCap) v = softCap * Math.tanh(v / softCap);
    y[at + i] = residual ? y[at + i] + v : v;
  }
}

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

/** The constants that the WASM form is specialised on. */
export interface MatmulWasm {
  /** The most rows of a run. */
  readonly T: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDtype;
  /** Whether the processor may fuse a product and its sum. */
  readonly relaxed: boolean;
  readonly options: MatmulOptions<unknown>;
}

/**
 * The WASM form: y, x, weight, bias, gate and the number of rows in, addresses all but the last. The weight lies in panels
 * of 16 outputs; each passes through the cache once, under all rows. Kernels, and so the sums, do not depend on who runs them.
 */
export function matmulWasm(
  m: ModuleBuilder,
  math: MathFuncs,
  shape: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { T, N, K, dtype } = shape;
  const store = storeWasm(m, math, shape);
  // 6 rows by 8 outputs fill the 16 registers; one row takes a whole panel, and is bound by memory.
  const heights = [6, 2, 1].filter((rows) => rows <= T);
  const tiles = heights.map((rows) => ({ rows, tile: tileWasm(m, store, rows, shape) }));
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, rows) => {
      const [n, t, yt, xt, gt] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
      const advance = (at: Local<"i32">, bytes: number) => f.set(at, i32.add(at, bytes));
      f.for(n, 0, N, PANEL_COLUMNS, () => {
        f.set(t, 0);
        f.set(yt, y);
        f.set(xt, x);
        f.set(gt, gate);
        for (const { rows: height, tile } of tiles) {
          f.while(i32.leU(i32.add(t, height), rows), () => {
            f.do(call(tile, yt, xt, w, bias, gt, i32.sub(N, n)));
            advance(t, height);
            advance(yt, height * N * 4);
            advance(xt, height * K * 4);
            advance(gt, height * N * 4);
          });
        }
        advance(w, PANEL_COLUMNS * K * BYTES[dtype]);
        for (const at of [y, bias, gate]) advance(at, PANEL_COLUMNS * 4);
      });
    },
  );
}

/** Some rows by one panel: y, x, weight, bias, gate of its corner, and the outputs that are left from there. */
function tileWasm(
  m: ModuleBuilder,
  store: Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void">,
  rows: number,
  { N, K, dtype, relaxed }: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const vectors = rows > 2 ? 2 : 4;
  const unroll = rows > 2 ? 2 : 4;
  const stride = PANEL_COLUMNS * BYTES[dtype];
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left) => {
      const [xk, wk, end] = [0, 1, 2].map(() => f.local("i32"));
      const xr = f.local("v128");
      const weights = Array.from({ length: vectors }, () => f.local("v128"));
      const sums = Array.from({ length: rows }, () => weights.map(() => f.local("v128")));

      const multiply = (k: number, first: number) => {
        widenWasm(f, weights, wk, k * stride + first * BYTES[dtype], dtype);
        for (const [r, sum] of sums.entries()) {
          f.set(xr, v128.load32Splat(xk, 4 * (r * K + k)));
          for (const [j, s] of sum.entries()) {
            f.set(
              s,
              relaxed
                ? f32x4.relaxedMadd(xr, weights[j], s)
                : f32x4.add(f32x4.mul(xr, weights[j]), s),
            );
          }
        }
      };
      f.set(end, i32.add(x, 4 * (K - K % unroll)));
      for (let first = 0; first < PANEL_COLUMNS; first += 4 * vectors) {
        f.if(i32.gtS(left, first), () => {
          for (const s of sums.flat()) f.set(s, f32x4.splat(0));
          f.set(wk, w);
          f.for(xk, x, end, 4 * unroll, () => {
            for (let k = 0; k < unroll; k++) multiply(k, first);
            f.set(wk, i32.add(wk, unroll * stride));
          });
          for (let k = 0; k < K % unroll; k++) multiply(k, first);
          for (const [r, sum] of sums.entries()) {
            for (const [j, s] of sum.entries()) {
              const n = first + 4 * j;
              const at = (row: Local<"i32">) => i32.add(row, 4 * (r * N + n));
              f.do(call(store, s, at(y), i32.add(bias, 4 * n), at(gate), i32.sub(left, n)));
            }
          }
        });
      }
    },
  );
}

/** Vectors of four weights from `at` on; 16-bit ones come in pairs, see `wasm/panels.ts`. */
function widenWasm(
  f: FunctionBuilder,
  weights: readonly Local<"v128">[],
  at: Local<"i32">,
  offset: number,
  dtype: WeightDtype,
): void {
  if (dtype === "F32") {
    for (const [j, w] of weights.entries()) f.set(w, v128.load(at, offset + 16 * j));
    return;
  }
  for (let j = 0; j < weights.length; j += 2) {
    const [low, high] = [weights[j], weights[j + 1]];
    f.set(high, v128.load(at, offset + 8 * j));
    f.set(low, i32x4.shl(high, 16));
    if (dtype === "BF16") {
      f.set(high, v128.and(high, i32x4.splat(0xffff0000)));
    } else {
      // Sign, exponent and mantissa to their places in an F32, whose exponent counts from 112 further up.
      for (const w of [low, high]) {
        f.set(w, v128.and(i32x4.shrS(w, 3), i32x4.splat(0x8fffe000)));
        f.set(w, f32x4.mul(w, f32x4.splat(2 ** 112)));
      }
    }
  }
}

/** The epilogue of four outputs: their sums, y, bias, gate, and the outputs that are left from there. */
function storeWasm(
  m: ModuleBuilder,
  math: MathFuncs,
  { N, options }: MatmulWasm,
): Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void"> {
  const { activation, scale = 1, softCap, residual = false } = options;
  return m.define(["v128", "i32", "i32", "i32", "i32"], "void", (f, v, y, bias, gate, left) => {
    if (options.bias) f.set(v, f32x4.add(v, v128.load(bias)));
    if (activation === "relu") f.set(v, f32x4.max(v, f32x4.splat(0)));
    else if (activation) mapLanes(f, v, math[activation]);
    if (options.gate) f.set(v, f32x4.mul(v, v128.load(gate)));
    if (scale !== 1) f.set(v, f32x4.mul(v, f32x4.splat(scale)));
    if (softCap) {
      f.set(v, f32x4.div(v, f32x4.splat(softCap)));
      mapLanes(f, v, math.tanh);
      f.set(v, f32x4.mul(v, f32x4.splat(softCap)));
    }
    if (residual) f.set(v, f32x4.add(v128.load(y), v));
    f.if(
      i32.geS(left, 4),
      () => storeLanes(f, y, v, 4),
      () => f.if(i32.gtS(left, 0), () => storeLanes(f, y, v, N % 4)),
    );
  });
}

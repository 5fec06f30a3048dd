/**
 * WGSL online softmax: the running max, total and sum of rows whose numbers are shared out among
 * neighbouring lanes.
 *
 * A row of a head has ⌈D/4⌉ vectors of four numbers. `wide` neighbouring lanes hold one row, and
 * read a key's vectors side by side; each key that a lane reads serves all of its rows.
 *
 *     wide = 4, D = 64                   lane 0   lane 1   lane 2   lane 3
 *     q, k, v of a row:   vectors 0–3    q_0      q_0      q_0      q_0
 *                         vectors 4–7    q_1      q_1      q_1      q_1
 *                         vectors 8–11   q_2      q_2      q_2      q_2
 *                         vectors 12–15  q_3      q_3      q_3      q_3
 *
 * Block of four keys, with scores s and factor e^(top − above) of what was summed before
 * (Dao, FlashAttention-2, 2023):
 *
 *     s = sum over the lanes of a row of q · k
 *     above = max(top, s);  p = e^(s − above)
 *     total = total · e^(top − above) + Σ p;  sum = sum · e^(top − above) + Σ p · v;  top = above
 *
 * @module
 */
import type { GpuTarget } from "../contract.ts";
import { kvFormatOfShape } from "../kv_cache/mod.ts";
import type { AttentionOptions, AttentionShape } from "./mod.ts";
import { linesWgsl, type Shader, workgroupArray } from "../../wgsl/shader.ts";

/** Below any score; WGSL lets a device assume that there is no infinity. */
export const LOWEST = "-3e38";

/** Keys of a block: the scores of a row are one vector. */
export const BLOCK = 4;

/** Vectors of a lane at most: those of its queries and of their sums are 64 numbers. */
export const MOST_VECTORS = 8;

/** Constants of every attention shader. */
export interface AttentionWgsl extends AttentionShape {
  readonly options: AttentionOptions;
}

/** Rows of a workgroup's lanes. */
export interface Rows {
  /** Lanes of a workgroup. */
  readonly lanes: number;
  /** Lanes that share a row, a power of two that divides `lanes`. */
  readonly wide: number;
  /** Rows of a lane. */
  readonly rows: number;
}

/** Smallest power of two that is at least `x`. */
export function powerOfTwo(x: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, x)));
}

/** Vectors of four numbers of a head. */
export function vectorsOf(D: number): number {
  return Math.ceil(D / 4);
}

/** Vectors of a row that a lane holds. */
export function vectorsOfLane(D: number, { wide }: Pick<Rows, "wide">): number {
  return Math.ceil(vectorsOf(D) / wide);
}

/** Defines `score`: scales four dot products, and caps them if there is a cap. */
export function scoreWgsl({ D, options: { scale, softCap } }: AttentionWgsl): string {
  const capped = softCap
    ? `f32(${softCap}) * tanh(clamp(s / f32(${softCap}), vec4f(-15.0), vec4f(15.0)))`
    : "s";
  return /* wgsl */ `
fn score(sum: vec4f) -> vec4f {
  let s = sum * f32(${scale ?? 1 / Math.sqrt(D)});
  return ${capped};
}`;
}

/** Defines `first_of`: the first key that a row sees, if the last one is `end` − 1. */
export function firstWgsl(window: number | undefined): string {
  const first = window === undefined ? "0u" : `select(0u, end - ${window}u, end > ${window}u)`;
  return `fn first_of(end: u32) -> u32 { return ${first}; }`;
}

/** Declares k and v of a cache, and `k_at` and `v_at`, as `loadWgsl`. */
export function loadCacheWgsl(shape: AttentionShape): string {
  const { D } = shape;
  const packed = kvFormatOfShape(shape).wgsl;
  const load = (name: "k" | "v", binding: number) =>
    packed
      ? `@group(1) @binding(${binding}) var<storage, read> ${name}: array<${packed.type(D)}>;
fn ${name}_at(row: u32, i: u32) -> vec4f {
  ${packed.load(name, D)}
}`
      : loadWgsl(name, binding, D);
  return `${load("k", 2)}
${load("v", 3)}`;
}

/**
 * Declares q, k or v, and `<name>_at`: four numbers of a row. Vectors if D is a multiple of four,
 * else single numbers with zeros past D.
 */
export function loadWgsl(name: "q" | "k" | "v", binding: number, D: number): string {
  const whole = D % 4 === 0;
  const declare = `@group(1) @binding(${binding}) var<storage, read> ${name}: array<${
    whole ? "vec4f" : "f32"
  }>;`;
  if (whole) {
    return `${declare}
fn ${name}_at(row: u32, i: u32) -> vec4f { return ${name}[row * ${D / 4}u + i]; }`;
  }
  const number = (j: number) => j < D % 4 ? `${name}[at + ${j}u]` : "0.0";
  return `${declare}
fn ${name}_at(row: u32, i: u32) -> vec4f {
  let at = row * ${D}u + 4u * i;
  if (i == ${Math.floor(D / 4)}u) { return vec4f(${[0, 1, 2, 3].map(number).join(", ")}); }
  return vec4f(${name}[at], ${name}[at + 1u], ${name}[at + 2u], ${name}[at + 3u]);
}`;
}

/** Declares y at binding 0, and `put_y`: writes four numbers of a row, but none past D. */
export function storeWgsl(D: number): string {
  if (D % 4 === 0) {
    return `@group(1) @binding(0) var<storage, read_write> y: array<vec4f>;
fn put_y(row: u32, i: u32, value: vec4f) { y[row * ${D / 4}u + i] = value; }`;
  }
  const put = (j: number) => `  y[at + ${j}u] = value[${j}];`;
  const rest = linesWgsl(4 - D % 4, (j) => put(D % 4 + j));
  return `@group(1) @binding(0) var<storage, read_write> y: array<f32>;
fn put_y(row: u32, i: u32, value: vec4f) {
  let at = row * ${D}u + 4u * i;
${linesWgsl(D % 4, put)}
  if (i < ${Math.floor(D / 4)}u) {
  ${rest}
  }
}`;
}

/** How lanes of a row add up: by shuffles, or by workgroup memory. */
export type Exchange =
  /** Every subgroup of the device holds whole rows. */
  | "shuffle"
  /** The device has no subgroups. */
  | "memory"
  /** Subgroups of a size that only the shader sees. */
  | "either";

/** Properties of a device that decide the form. */
export type Device = Pick<GpuTarget, "software" | "smallestSubgroup">;

/**
 * The exchange among `wide` lanes. Drivers choose a subgroup's size per pipeline, and some report a
 * smaller one than they use.
 */
export function exchangeOf(wide: number, { smallestSubgroup }: Device): Exchange {
  if (smallestSubgroup >= wide) return "shuffle";
  return smallestSubgroup === 1 ? "memory" : "either";
}

/** Lanes on a software adapter: one subgroup, which shares a row. */
export function softwareLanes(vectors: number, { smallestSubgroup }: Device) {
  const lanes = smallestSubgroup === 1 ? 8 : Math.min(8, smallestSubgroup);
  return { lanes, wide: Math.min(lanes, powerOfTwo(vectors)) };
}

/**
 * Defines `sum_wide`: every lane gets the sum over the lanes of its row; all lanes of the workgroup
 * must call it. `near` is `near_of(lane)`, computed once: whether a subgroup holds whole rows.
 */
export function sumWideWgsl({ lanes, wide }: Rows, exchange: Exchange): Shader {
  if (wide === 1) {
    const wgsl = `
fn near_of(lane: u32) -> bool { return true; }
fn sum_wide(lane: u32, near: bool, mine: vec4f) -> vec4f { return mine; }`;
    return { wgsl, workgroupBytes: 0 };
  }
  const shuffles = linesWgsl(
    Math.log2(wide),
    (i) => `sum += subgroupShuffleXor(sum, ${2 ** i}u);`,
  );
  const pool = workgroupArray("wide_pool", "vec4f", lanes);
  const shuffled = /* wgsl */ `
fn sum_shuffled(mine: vec4f) -> vec4f {
  var sum = mine;
  ${shuffles}
  return sum;
}`;
  const stored = /* wgsl */ `
${pool.wgsl}
fn sum_stored(lane: u32, mine: vec4f) -> vec4f {
  workgroupBarrier(); // all have read the sums before
  wide_pool[lane] = mine;
  workgroupBarrier();
  let at = lane - lane % ${wide}u;
  var sum = wide_pool[at];
  ${linesWgsl(wide - 1, (i) => `sum += wide_pool[at + ${i + 1}u];`)}
  return sum;
}`;
  const define = (near: string, sum: string) => /* wgsl */ `
fn near_of(lane: u32) -> bool { ${near} }
fn sum_wide(lane: u32, near: bool, mine: vec4f) -> vec4f { ${sum} }`;
  switch (exchange) {
    case "shuffle":
      return {
        wgsl: shuffled + define("return true;", "return sum_shuffled(mine);"),
        workgroupBytes: 0,
      };
    case "memory":
      return { ...pool, wgsl: stored + define("return false;", "return sum_stored(lane, mine);") };
    case "either": {
      const near = /* wgsl */ `
  let size = subgroupAdd(1u);
  if (lane == 0u) { near_size = size; }
  return workgroupUniformLoad(&near_size) >= ${wide}u;`;
      const sum = /* wgsl */ `
  if (near) { return sum_shuffled(mine); }
  return sum_stored(lane, mine);`;
      return {
        wgsl: `\nvar<workgroup> near_size: u32;${shuffled}${stored}${define(near, sum)}`,
        workgroupBytes: pool.workgroupBytes + 4,
      };
    }
  }
}

/** Index among a row's vectors of vector p of a lane; past the last one, the last one. */
function vectorWgsl(D: number, { wide }: Rows, p: number): string {
  const [first, last] = [p * wide, vectorsOf(D) - 1];
  return first + wide - 1 > last ? `min(${first}u + column, ${last}u)` : `${first}u + column`;
}

/**
 * Declares the vectors that a lane holds, `i_p`, and the state of its rows: `top_r`, `total_r`,
 * `sum_r_p`. Needs `column`, the lane's place within its row.
 */
export function stateWgsl(D: number, rows: Rows): string {
  const perLane = vectorsOfLane(D, rows);
  return `${linesWgsl(perLane, (p) => `let i_${p} = ${vectorWgsl(D, rows, p)};`)}
  ${
    linesWgsl(rows.rows, (r) =>
      `var top_${r} = f32(${LOWEST}); var total_${r} = 0.0;
  ${linesWgsl(perLane, (p) => `var sum_${r}_${p} = vec4f(0.0);`)}`)
  }`;
}

/** Declares the queries `q_r_p` of rows `row_r` of q; zeros past the last vector. */
export function queriesWgsl(D: number, rows: Rows): string {
  const last = vectorsOf(D) - 1;
  const load = (r: number, p: number) => {
    const whole = (p + 1) * rows.wide - 1 <= last;
    const value = `q_at(row_${r}, i_${p})`;
    return whole
      ? `let q_${r}_${p} = ${value};`
      : `let q_${r}_${p} = select(vec4f(0.0), ${value}, ${p * rows.wide}u + column <= ${last}u);`;
  };
  return linesWgsl(
    rows.rows,
    (r) => linesWgsl(vectorsOfLane(D, rows), (p) => load(r, p)),
  );
}

/**
 * A block of four keys, whose vectors `k_u_p` and `v_u_p` are declared, for all rows of a lane.
 * `seen` is the WGSL of a vec4<bool>: which of the four keys a row sees.
 */
export function blockWgsl(D: number, rows: Rows, seen: (r: number) => string): string {
  const perLane = vectorsOfLane(D, rows);
  const product = (r: number, u: number) => {
    const first = `q_${r}_0 * k_${u}_0`;
    const sum = Array.from({ length: perLane - 1 }, (_, p) => p + 1)
      .reduce((inner, p) => `fma(q_${r}_${p}, k_${u}_${p}, ${inner})`, first);
    return `dot(${sum}, vec4f(1.0))`;
  };
  const row = (r: number) => /* wgsl */ `
    let dots_${r} = vec4f(
      ${Array.from({ length: BLOCK }, (_, u) => product(r, u)).join(",\n      ")},
    );
    let seen_${r} = ${seen(r)};
    let s_${r} = select(vec4f(${LOWEST}), score(sum_wide(lane, near, dots_${r})), seen_${r});
    let above_${r} = max(top_${r}, max(max(s_${r}.x, s_${r}.y), max(s_${r}.z, s_${r}.w)));
    let p_${r} = select(vec4f(0.0), exp(s_${r} - vec4f(above_${r})), seen_${r});
    let shrink_${r} = exp(top_${r} - above_${r});
    top_${r} = above_${r};
    total_${r} = fma(total_${r}, shrink_${r}, dot(p_${r}, vec4f(1.0)));
    ${linesWgsl(perLane, (p) => accumulateWgsl(r, p))}`;
  return linesWgsl(rows.rows, row);
}

/** Rescales a vector of a row's sum, and adds four values weighted by p. */
export function accumulateWgsl(r: number, p: number): string {
  const scaled = `sum_${r}_${p} * shrink_${r}`;
  const sum = Array.from({ length: BLOCK }, (_, u) => u)
    .reduce((inner, u) => `fma(vec4f(p_${r}[${u}]), v_${u}_${p}, ${inner})`, scaled);
  return `sum_${r}_${p} = ${sum};`;
}

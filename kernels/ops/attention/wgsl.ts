/**
 * WGSL attention: prefill with a running max and sum, decode as split and reduce. `mod.ts` has the
 * formula and the shapes.
 *
 * Prefill (several rows): a lane has a query row and walks over the keys that its workgroup sees,
 * with a running max and sum (Dao, FlashAttention-2, 2023).
 *
 * Decode (one row): the keys are split among workgroups. Each serves all H/G query heads of a
 * key/value head, so that keys and values are read once.
 *
 *     keys that the row sees
 *     ┌───── split 0 ──────┬───── split 1 ──────┬─ split 2 ─┐
 *     │ keysAtOnce keys    │ keysAtOnce keys    │ the rest  │   one workgroup per split and
 *     └─────────┬──────────┴─────────┬──────────┴─────┬─────┘   key/value head
 *               ▼                    ▼                ▼
 *     ┌────────────────────┬────────────────────┬───────────┐   table [splits, H, D + 2]:
 *     │ sum [D], max, total│ sum [D], max, total│ …         │   max of s, total = Σ e^(s − max),
 *     └─────────┬──────────┴─────────┬──────────┴─────┬─────┘   sum = Σ e^(s − max) · v
 *               └────────────────────┼────────────────┘
 *                                    ▼                          reduce, one workgroup per head:
 *     y[h] = Σᵢ e^(maxᵢ − m) · sumᵢ  /  Σᵢ e^(maxᵢ − m) · totalᵢ    m = max of maxᵢ
 *
 * A cache that one split covers takes one dispatch, which divides by its total and writes y itself.
 *
 * `run` and `index_of` in the shaders come from `PRELUDE` in `wgsl/shader.ts`.
 *
 * @module
 */
import type { Segment } from "../../step.ts";
import { type GpuDispatch, type GpuTarget, readOnly } from "../contract.ts";
import {
  type AttentionCall,
  attentionOperands,
  type AttentionOptions,
  type AttentionShape,
} from "./mod.ts";
import {
  linesWgsl,
  mainWgsl,
  type Shader,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";

/** Constants of the shaders. */
export interface AttentionWgsl extends AttentionShape {
  /** Lanes of a workgroup, a power of two up to 128. */
  readonly lanes: number;
  readonly options: AttentionOptions;
}

/** Below any score; WGSL lets a device assume that there is no infinity. */
const LOWEST = "-3e38";

/** Defines `score`: scales a dot product, and caps it if there is a cap. */
function scoreWgsl({ D, options: { scale, softCap } }: AttentionWgsl): string {
  const capped = softCap ? `f32(${softCap}) * tanh(clamp(s / f32(${softCap}), -15.0, 15.0))` : "s";
  return /* wgsl */ `
fn score(sum: f32) -> f32 {
  let s = sum * f32(${scale ?? 1 / Math.sqrt(D)});
  return ${capped};
}`;
}

/** Defines `first_of`: the first key that a row sees, if the last one is `end` − 1. */
function firstWgsl(window: number | undefined): string {
  const first = window === undefined ? "0u" : `select(0u, end - ${window}u, end > ${window}u)`;
  return `fn first_of(end: u32) -> u32 { return ${first}; }`;
}

/**
 * Declares q, k or v, and `<name>_at`: four numbers of a row. Vectors if D is a multiple of four,
 * else single numbers with zeros past D.
 */
function loadWgsl(name: string, binding: number, D: number): string {
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

/** Declarations of both forms that read keys. Bindings: 0 y, 1 q, 2 k, 3 v. */
function headWgsl(constants: AttentionWgsl): string {
  const { D, options: { window } } = constants;
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
${loadWgsl("q", 1, D)}
${loadWgsl("k", 2, D)}
${loadWgsl("v", 3, D)}
${scoreWgsl(constants)}
${firstWgsl(window)}`;
}

/** Constants of the prefill shader. */
interface AttentionPrefillWgsl extends AttentionWgsl {
  /** Rows per lane: each key and value that it reads serves all of them. */
  readonly queries: number;
}

/** Workgroups of the prefill shader. */
function attentionPrefillGroups(
  { H, lanes, queries }: AttentionPrefillWgsl,
  rows: number,
): number {
  return H * Math.ceil(rows / (lanes * queries));
}

/**
 * Keys per iteration of a lane: one new max, and one rescaling of the sums, for all of them. The
 * unrolled text grows with keys, rows and D, and twice the text takes more than twice the time to
 * compile.
 */
function keysAtATime({ D, queries }: AttentionPrefillWgsl): number {
  return D * queries <= 64 ? 2 : 1;
}

/**
 * Prefill. Bindings: 0 y, 1 q, 2 k, 3 v. A head's numbers are in named vectors: no array, no
 * barrier.
 *
 * Phases of an iteration: scores, softmax (new max, rescale), accumulate.
 */
export function attentionPrefillWgsl(constants: AttentionPrefillWgsl): Shader {
  const { H, G, D, S, lanes, queries, options: { window } } = constants;
  const vectors = Math.ceil(D / 4);
  const keys = keysAtATime(constants);
  const rows = lanes * queries;
  const eachRow = (line: (u: number) => string) => linesWgsl(queries, line);
  const eachKey = (line: (key: number) => string) => linesWgsl(keys, line);
  const over = (value: (key: number) => string) => Array.from({ length: keys }, (_, i) => value(i));
  const visible = (u: number, key: number) =>
    window === undefined
      ? `j + ${key}u < seen_${u}`
      : `j + ${key}u < seen_${u} && j + ${key}u + ${window}u >= seen_${u}`;
  const softmax = (u: number) => /* wgsl */ `
    ${
    eachKey((key) =>
      `s_${u}_${key} = select(f32(${LOWEST}), score(s_${u}_${key}), ${visible(u, key)});`
    )
  }
    let above_${u} = ${
    over((key) => `s_${u}_${key}`).reduce((a, b) => `max(${a}, ${b})`, `top_${u}`)
  };
    let turn_${u} = exp(top_${u} - above_${u});
    ${
    eachKey((key) =>
      `let p_${u}_${key} = select(0.0, exp(s_${u}_${key} - above_${u}), ${visible(u, key)});`
    )
  }
    top_${u} = above_${u};
    total_${u} = total_${u} * turn_${u} + ${over((key) => `p_${u}_${key}`).join(" + ")};`;
  const store = (u: number) => /* wgsl */ `
  if (t_${u} < run.rows) {
    let to = row_${u} * ${D}u;
    ${
    linesWgsl(vectors, (i) =>
      linesWgsl(
        Math.min(4, D - 4 * i),
        (c) => `y[to + ${4 * i + c}u] = sum_${u}_${i}[${c}] / total_${u};`,
      ))
  }
  }`;
  const wgsl = /* wgsl */ `${headWgsl(constants)}

${mainWgsl(lanes)} {
  let index = index_of(group, grid);
  let blocks = (run.rows + ${rows - 1}u) / ${rows}u;
  if (index >= ${H}u * blocks) { return; }
  let h = index / blocks;
  let first_row = (index % blocks) * ${rows}u;
  let before = run.length - run.rows + 1u; // keys that row 0 sees
  let end = before + min(first_row + ${rows - 1}u, run.rows - 1u);
  let kv = (h * ${G}u / ${H}u) * ${S}u;

  ${
    eachRow((u) => /* wgsl */ `
  let t_${u} = first_row + lane + ${u * lanes}u;
  let seen_${u} = before + t_${u};
  let row_${u} = min(t_${u}, run.rows - 1u) * ${H}u + h;
  var top_${u} = f32(${LOWEST});
  var total_${u} = 0.0;
  ${
      linesWgsl(
        vectors,
        (i) => `let q_${u}_${i} = q_at(row_${u}, ${i}u); var sum_${u}_${i} = vec4f(0.0);`,
      )
    }`)
  }
  for (var j = first_of(before + first_row); j < end; j += ${keys}u) {
    ${eachKey((key) => `let at_${key} = kv + min(j + ${key}u, end - 1u);`)}
    ${eachRow((u) => eachKey((key) => `var s_${u}_${key} = 0.0;`))}
    ${
    eachKey((key) =>
      linesWgsl(vectors, (i) =>
        `{ let key = k_at(at_${key}, ${i}u); ${
          eachRow((u) =>
            `s_${u}_${key} += dot(q_${u}_${i}, key);`
          )
        } }`)
    )
  }
    ${eachRow(softmax)}
    ${
    linesWgsl(vectors, (i) =>
      `{ ${eachKey((key) => `let v_${key} = v_at(at_${key}, ${i}u);`)}
      ${
        eachRow((u) =>
          `sum_${u}_${i} = sum_${u}_${i} * turn_${u} + ${
            over((key) => `p_${u}_${key} * v_${key}`).join(" + ")
          };`
        )
      } }`)
  }
  }
  ${eachRow(store)}
}
`;
  return { wgsl, workgroupBytes: 0 };
}

/** Most query heads per pass of a workgroup: each takes registers and workgroup memory. */
const MAX_HEADS = 16;

/** Bytes of workgroup memory on every device. */
const WORKGROUP_BYTES = 16384;

function headsAtOnce({ H, G }: AttentionWgsl): number {
  const heads = H / G;
  return Math.ceil(heads / Math.ceil(heads / MAX_HEADS));
}

/** Keys of a split: their scores fit workgroup memory, for all query heads of a pass. */
export function keysAtOnce(constants: AttentionWgsl): number {
  const { lanes } = constants;
  const rest = WORKGROUP_BYTES - (16 + 4) * lanes; // less `shares` and `totals`
  let keys = 256;
  while (4 * headsAtOnce(constants) * (keys + lanes) > rest) keys /= 2;
  return keys;
}

/** Number of splits of `visible` keys. */
function splitsOf(constants: AttentionWgsl, visible: number): number {
  return Math.ceil(visible / keysAtOnce(constants));
}

/**
 * Adds up the partial sums of lanes with the same numbers of a head, for query head r of the pass.
 */
function reduceSlicesWgsl(r: number, wide: number, slices: number): string {
  if (slices === 1) return "";
  return /* wgsl */ `
  workgroupBarrier();
  shares[lane] = sum_${r};
  totals[lane] = total_${r};
  workgroupBarrier();
  if (slice == 0u) {
    for (var other = lane + ${wide}u; other < ${wide * slices}u; other += ${wide}u) {
      sum_${r} += shares[other];
      total_${r} += totals[other];
    }
  }`;
}

/**
 * Decode. Bindings: 0 y, 1 q, 2 k, 3 v; under `split`, y is the table [splits, H, D + 2].
 *
 * Phases, for each pass of heads: scores, max over lanes, exp, accumulate, reduce slices, store.
 */
export function attentionDecodeWgsl(constants: AttentionWgsl, split: boolean): Shader {
  const { H, G, D, S, lanes } = constants;
  const keys = keysAtOnce(constants);
  const heads = headsAtOnce(constants);
  const vectors = Math.ceil(D / 4);
  // Keys per lane and iteration: each number of a query that it reads serves all of them.
  const beside = Math.min(4, Math.ceil(keys / lanes));
  // `wide` neighbouring lanes have four numbers of a head each; `slices` of them share out the
  // keys.
  const wide = Math.min(lanes, 2 ** Math.ceil(Math.log2(vectors)));
  const slices = lanes / wide;
  const each = (line: (r: number) => string) => linesWgsl(heads, line);
  const eachKey = (line: (key: number) => string) => linesWgsl(beside, line);
  const number = (r: number, c: number) => {
    const value = split ? `sum_${r}[${c}]` : `sum_${r}[${c}] / total_${r}`;
    const guard = 4 * (vectors - 1) + c < D ? "" : `if (i < ${vectors - 1}u) `;
    return `${guard}{ y[to + ${c}u] = ${value}; }`;
  };
  const store = (r: number) => {
    const row = split ? `(place * ${H}u + head_${r}) * ${D + 2}u` : `head_${r} * ${D}u`;
    const rest = split
      ? `if (i == 0u) { y[to + ${D}u] = maxima[${r * lanes}u]; y[to + ${D + 1}u] = total_${r}; }`
      : "";
    return `{ let to = ${row} + 4u * i; ${
      [0, 1, 2, 3].map((c) => number(r, c)).join(" ")
    } ${rest} }`;
  };
  const greatest = (r: number, other: string) =>
    `maxima[${r * lanes}u + lane] = max(maxima[${r * lanes}u + lane], maxima[${other}]);`;
  const product = (r: number) =>
    /* wgsl */ `{ let query = q_at(head_${r}, i);
        ${eachKey((key) => `score_${r}_${key} += dot(key_${key}, query);`)} }`;
  const keep = (r: number) =>
    eachKey((key) =>
      /* wgsl */ `score_${r}_${key} = score(score_${r}_${key});
    top_${r} = max(top_${r}, score_${r}_${key});
    if (j + ${key * lanes}u < count) { scores[${r * keys}u + j_${key}] = score_${r}_${key}; }`
    );
  const add = (r: number) =>
    /* wgsl */ `{ let near = scores[${r * keys}u + j];
        let far = select(0.0, scores[${r * keys}u + far], j + ${slices}u < count);
        sum_${r} += near * near_value + far * far_value; total_${r} += near + far; }`;
  const memory = [
    workgroupArray("scores", "f32", heads * keys),
    workgroupArray("maxima", "f32", heads * lanes),
    workgroupArray("shares", "vec4f", lanes),
    workgroupArray("totals", "f32", lanes),
  ];
  const wgsl = /* wgsl */ `${headWgsl(constants)}
${memory.map((array) => array.wgsl).join("\n")}

${mainWgsl(lanes)} {
  let index = index_of(group, grid);
  let g = index % ${G}u;
  let place = index / ${G}u;
  let start = first_of(run.length) + place * ${keys}u;
  if (run.rows == 0u || start >= run.length) { return; }
  let count = min(${keys}u, run.length - start);
  let kv = g * ${S}u + start;
  let slice = lane / ${wide}u;

  for (var taken = 0u; taken < ${H / G}u; taken += ${heads}u) {
    // Beyond the last head, the last one once more.
    ${each((r) => `let head_${r} = g * ${H / G}u + min(taken + ${r}u, ${H / G - 1}u);`)}
    ${each((r) => `var top_${r} = f32(${LOWEST});`)}
    for (var j = lane; j < count; j += ${beside * lanes}u) {
      ${eachKey((key) => `let j_${key} = min(j + ${key * lanes}u, count - 1u);`)}
      ${each((r) => eachKey((key) => `var score_${r}_${key} = 0.0;`))}
      for (var i = 0u; i < ${vectors}u; i++) {
        ${eachKey((key) => `let key_${key} = k_at(kv + j_${key}, i);`)}
        ${each(product)}
      }
      ${each(keep)}
    }
    ${each((r) => `maxima[${r * lanes}u + lane] = top_${r};`)}
    for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (lane < half) {
        ${each((r) => greatest(r, `${r * lanes}u + lane + half`))}
      }
    }
    workgroupBarrier();
    for (var j = lane; j < count; j += ${lanes}u) {
      ${
    each((r) => `scores[${r * keys}u + j] = exp(scores[${r * keys}u + j] - maxima[${r * lanes}u]);`)
  }
    }
    workgroupBarrier();
    for (var first = 0u; first < ${vectors}u; first += ${wide}u) {
      let i = first + lane % ${wide}u;
      ${each((r) => `var sum_${r} = vec4f(0.0); var total_${r} = 0.0;`)}
      if (i < ${vectors}u) {
        for (var j = slice; j < count; j += ${2 * slices}u) {
          let far = min(j + ${slices}u, count - 1u);
          let near_value = v_at(kv + j, i);
          let far_value = v_at(kv + far, i);
          ${each(add)}
        }
      }
      ${each((r) => reduceSlicesWgsl(r, wide, slices))}
      if (slice == 0u && i < ${vectors}u) {
        ${each(store)}
      }
    }
    workgroupBarrier(); // the next heads' scores come where these were
  }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes(memory) };
}

/** Reduce: combines the splits of one row; one workgroup per head. Bindings: 0 y, 1 the table. */
export function attentionReduceWgsl(constants: AttentionWgsl): Shader {
  const { H, D, lanes, options: { window } } = constants;
  const keys = keysAtOnce(constants);
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
@group(1) @binding(1) var<storage, read> table: array<f32>;
${firstWgsl(window)}

${mainWgsl(lanes)} {
  let h = index_of(group, grid);
  if (h >= ${H}u || run.rows == 0u) { return; }
  let visible = run.length - first_of(run.length);
  let end = (visible + ${keys - 1}u) / ${keys}u;
  var top = f32(${LOWEST});
  for (var i = 0u; i < end; i++) { top = max(top, table[(i * ${H}u + h) * ${D + 2}u + ${D}u]); }
  var total = 0.0;
  for (var i = 0u; i < end; i++) {
    let at = (i * ${H}u + h) * ${D + 2}u + ${D}u;
    total += exp(table[at] - top) * table[at + 1u];
  }
  for (var d = lane; d < ${D}u; d += ${lanes}u) {
    var sum = 0.0;
    for (var i = 0u; i < end; i++) {
      let at = (i * ${H}u + h) * ${D + 2}u;
      sum += exp(table[at + ${D}u] - top) * table[at + d];
    }
    y[h * ${D}u + d] = sum / total;
  }
}
`;
  return { wgsl, workgroupBytes: 0 };
}

/** Lowers the call: prefill to one dispatch; decode to one, or to split and reduce. */
export function attentionDispatches(call: AttentionCall, target: GpuTarget): GpuDispatch[] {
  return call.q.shape[0] > 1 ? prefillDispatches(call, target) : decodeDispatches(call, target);
}

function prefillDispatches(call: AttentionCall, { software }: GpuTarget): GpuDispatch[] {
  const { y, q, k, v } = attentionOperands(call);
  const { options, shape } = call;
  const [lanes, queries] = software ? [8, shape.D > 64 ? 1 : 2] : [32, 1];
  const constants = { ...shape, lanes, queries, options };
  return [{
    op: "attention",
    ...attentionPrefillWgsl(constants),
    operands: [y, q, k, v],
    groups: ({ rows }) => attentionPrefillGroups(constants, rows),
  }];
}

function decodeDispatches(call: AttentionCall, target: GpuTarget): GpuDispatch[] {
  const { y, q, k, v } = attentionOperands(call);
  const { options, shape } = call;
  const { H, G, D, S } = shape;
  const constants = { ...shape, lanes: target.software ? 32 : 128, options };
  const splits = (length: number) =>
    splitsOf(constants, Math.min(length, options.window ?? Infinity));
  const groups = ({ rows, length }: Segment) => rows * G * splits(length);
  const op = "attention";
  if (splits(S) === 1) {
    return [{ op, ...attentionDecodeWgsl(constants, false), operands: [y, q, k, v], groups }];
  }
  const table = target.scratch(4 * splits(S) * H * (D + 2)); // [splits, H, D + 2]
  return [
    { op, ...attentionDecodeWgsl(constants, true), operands: [table, q, k, v], groups },
    {
      op,
      ...attentionReduceWgsl(constants),
      operands: [y, readOnly(table)],
      groups: ({ rows }) => rows * H,
    },
  ];
}

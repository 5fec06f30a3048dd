/**
 * WGSL attention of one row (decode): one loop over keys and values with an online softmax.
 * `wgsl_state.ts` has the method.
 *
 * A workgroup serves some query heads of one key/value head. Its lanes form groups of `wide`; a
 * group walks over every groups-th key, and the groups' sums are merged at the end. While the keys
 * are few, that is one dispatch of a shader without a table. More keys are split among workgroups
 * of another shader, and a second dispatch reduces their sums, one workgroup per head:
 *
 *     keys that the row sees
 *     ┌───── split 0 ──────┬───── split 1 ──────┬─ split 2 ─┐
 *     │ `each` keys        │ `each` keys        │ the rest  │   one workgroup per split, key/value
 *     └─────────┬──────────┴─────────┬──────────┴─────┬─────┘   head and pass over its query heads
 *               ▼                    ▼                ▼
 *     ┌────────────────────┬────────────────────┬───────────┐   table [splits, H, vectors, 4]:
 *     │ sum, (top, total)  │ sum, (top, total)  │ …         │   top = max of s,
 *     └─────────┬──────────┴─────────┬──────────┴─────┬─────┘   total = Σ e^(s − top),
 *               └────────────────────┼────────────────┘         sum = Σ e^(s − top) · v
 *                                    ▼                          reduce
 *     y[h] = Σᵢ e^(topᵢ − m) · sumᵢ  /  Σᵢ e^(topᵢ − m) · totalᵢ      m = max of topᵢ
 *
 * `run` and `index_of` in the shaders come from `PRELUDE` in `wgsl/shader.ts`.
 *
 * @module
 */
import type { AttentionShape } from "./mod.ts";
import {
  accumulateWgsl,
  type AttentionWgsl,
  BLOCK,
  blockWgsl,
  type Device,
  type Exchange,
  exchangeOf,
  firstWgsl,
  loadCacheWgsl,
  loadWgsl,
  LOWEST,
  MOST_VECTORS,
  powerOfTwo,
  queriesWgsl,
  type Rows,
  scoreWgsl,
  softwareLanes,
  stateWgsl,
  storeWgsl,
  sumWideWgsl,
  vectorsOf,
  vectorsOfLane,
} from "./wgsl_state.ts";
import {
  linesWgsl,
  mainWgsl,
  type Shader,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";

/** How many keys a workgroup takes. */
export interface Splits {
  /** Most keys that one workgroup takes all of. */
  readonly few: number;
  /** More keys are split into multiples of so many … */
  readonly unit: number;
  /** … and into at most so many splits. */
  readonly most: number;
}

/** Constants of the decode and reduce shaders. */
export interface AttentionDecodeWgsl extends AttentionWgsl {
  /** Lanes of a workgroup; its rows are the query heads of a pass. */
  readonly rows: Rows;
  readonly exchange: Exchange;
  readonly splits: Splits;
  /** Rows of the reduce: one head. */
  readonly reduceRows: Rows;
}

/** Vectors of workgroup memory for the sums of a head: 8 KiB. */
const SHARED_VECTORS = 512;

/** Most lanes that share a row: as many as the smallest subgroup of most GPUs. */
const MOST_WIDE = 32;

/**
 * Constants for a device. On a GPU, 16 groups of lanes, so that a block of each is a tile of 64
 * keys, all of it in flight at once: D = 64 takes 128 lanes, D = 128 takes 256. A software adapter
 * runs a workgroup on one thread, and barriers are expensive: one subgroup, and no barrier.
 */
export function decodeConstants(
  shape: AttentionShape,
  options: AttentionWgsl["options"],
  device: Device,
): AttentionDecodeWgsl {
  const { H, G, D } = shape;
  const vectors = vectorsOf(D);
  const { lanes, wide, across, most, splits } = device.software
    ? softwarePlan(vectors, device)
    : gpuPlan(vectors, G);
  const passes = Math.ceil(H / G / most);
  return {
    ...shape,
    options,
    rows: { lanes, wide, rows: Math.ceil(H / G / passes) },
    exchange: exchangeOf(wide, device),
    splits,
    reduceRows: { ...across, rows: 1 },
  };
}

/** Lanes of both shaders, most query heads of a pass, and splits. */
interface DecodePlan extends Omit<Rows, "rows"> {
  readonly across: Omit<Rows, "rows">;
  readonly most: number;
  readonly splits: Splits;
}

function gpuPlan(vectors: number, G: number): DecodePlan {
  const wide = Math.min(MOST_WIDE, powerOfTwo(vectors / 2));
  const perLane = Math.ceil(vectors / wide);
  const across = Math.min(64, powerOfTwo(vectors));
  return {
    lanes: roomFor(wide, perLane, Math.max(32, 16 * wide)),
    wide,
    across: { lanes: roomFor(across, Math.ceil(vectors / across), 256), wide: across },
    most: Math.max(1, Math.floor(MOST_VECTORS / perLane)),
    splits: { few: 128, unit: 64, most: Math.max(32, Math.ceil(512 / G)) },
  };
}

function softwarePlan(vectors: number, device: Device): DecodePlan {
  const { lanes, wide } = softwareLanes(vectors, device);
  return {
    lanes,
    wide,
    across: { lanes, wide },
    most: Math.max(1, Math.floor(16 / Math.ceil(vectors / wide))),
    splits: { few: 256, unit: 256, most: 512 },
  };
}

/** Lanes of a workgroup, at most 256, whose vectors of a head fit workgroup memory. */
function roomFor(wide: number, perLane: number, wished: number): number {
  const room = 2 ** Math.floor(Math.log2(SHARED_VECTORS / perLane));
  return Math.max(wide, Math.min(wished, 256, room));
}

/** Passes over the query heads of a key/value head. */
function passesOf({ H, G, rows }: AttentionDecodeWgsl): number {
  return Math.ceil(H / G / rows.rows);
}

/** Most keys that a row sees. */
function mostVisible({ S, options: { window = Infinity } }: AttentionWgsl): number {
  return Math.min(S, window);
}

/** Whether one dispatch serves every step. */
export function isAlwaysWhole(constants: AttentionDecodeWgsl): boolean {
  return mostVisible(constants) <= constants.splits.few;
}

/** Keys of a split if the row sees `visible` keys; `eachWgsl` is its twin beyond `few`. */
function splitKeys({ few, unit, most }: Splits, visible: number): number {
  return visible <= few ? few : unit * Math.ceil(visible / (unit * most));
}

/** Sets `visible`, the keys that the row sees, and `each`, the keys of a split. */
function eachWgsl({ unit, most }: Splits): string {
  const covered = unit * most;
  return `let visible = run.length - first_of(run.length);
  let each = ${unit}u * ((visible + ${covered - 1}u) / ${covered}u);`;
}

/** Splits of the keys of a step. */
export function splitsOf(constants: AttentionDecodeWgsl, length: number): number {
  const visible = Math.min(length, constants.options.window ?? Infinity);
  return Math.ceil(visible / splitKeys(constants.splits, visible));
}

/** Workgroups of the decode shader of a form: none if the step takes the other one. */
export function decodeGroups(
  constants: AttentionDecodeWgsl,
  form: DecodeForm,
  length: number,
): number {
  const splits = splitsOf(constants, length);
  return (splits === 1) === (form === "whole") ? splits * constants.G * passesOf(constants) : 0;
}

/** Vectors of a head of the table, the last one (top, total, 0, 0); 32-byte sectors hold two. */
function tableVectors(D: number): number {
  return 2 * Math.ceil((vectorsOf(D) + 1) / 2);
}

/** Bytes of the table that the splits of a step pass to the reduce. */
export function tableBytes(constants: AttentionDecodeWgsl): number {
  const { D, H, splits: { unit, most } } = constants;
  const splits = Math.min(most, Math.ceil(mostVisible(constants) / unit));
  return 16 * splits * H * tableVectors(D);
}

/** Whether a workgroup takes all keys, or a split of them. */
export type DecodeForm = "whole" | "split";

/** The texts in which the forms differ. */
interface DecodeFormWgsl {
  readonly declare: string;
  /** Sets `start` and `end` of a workgroup's keys; `place` is its split. */
  readonly bounds: string;
  /** Writes a head's vector `i`, from its `sum`, `top` and `total`. */
  readonly store: (r: number) => string;
}

const WHOLE: DecodeFormWgsl = {
  declare: "",
  bounds: `let start = first_of(run.length);
  let end = run.length;`,
  store: (r) => `put_y(row_${r}, i, sum / total);`,
};

function splitWgsl({ D, H, splits }: AttentionDecodeWgsl): DecodeFormWgsl {
  const vectors = tableVectors(D);
  return {
    declare: "@group(1) @binding(4) var<storage, read_write> table: array<vec4f>;",
    bounds: `${eachWgsl(splits)}
  let start = first_of(run.length) + place * each;
  let end = min(start + each, run.length);`,
    store: (r) =>
      `let to = (place * ${H}u + row_${r}) * ${vectors}u;
    table[to + i] = sum;
    if (i == 0u) { table[to + ${vectors - 1}u] = vec4f(top, total, 0.0, 0.0); }`,
  };
}

/** Decode. Bindings: 0 y, 1 q, 2 k, 3 v; 4 the table of splits. */
export function attentionDecodeWgsl(constants: AttentionDecodeWgsl, form: DecodeForm): Shader {
  const { H, G, D, S, rows, exchange, options: { window } } = constants;
  const heads = H / G;
  const passes = passesOf(constants);
  const groups = rows.lanes / rows.wide;
  const { declare, bounds, store } = form === "whole" ? WHOLE : splitWgsl(constants);
  const exchanged = sumWideWgsl(rows, exchange);
  const merged = mergeWgsl(D, rows, store);
  const eachKey = (line: (u: number) => string) => linesWgsl(BLOCK, line);
  const eachVector = (line: (p: number) => string) => linesWgsl(vectorsOfLane(D, rows), line);
  const wgsl = /* wgsl */ `
${storeWgsl(D)}
${loadWgsl("q", 1, D)}
${loadCacheWgsl(constants)}
${declare}
${scoreWgsl(constants)}
${firstWgsl(window)}
${exchanged.wgsl}
${merged.declare.wgsl}

${mainWgsl(rows.lanes)} {
  let index = index_of(group, grid);
  let g = index % ${G}u;
  let round = index / ${G}u % ${passes}u;
  let place = index / ${G * passes}u;
  ${bounds}
  if (run.rows == 0u || start >= run.length) { return; }
  let near = near_of(lane);
  let column = lane % ${rows.wide}u;
  let mine = lane / ${rows.wide}u;
  // Beyond the last head, the last one once more.
  ${
    linesWgsl(
      rows.rows,
      (r) => `let row_${r} = g * ${heads}u + min(round * ${rows.rows}u + ${r}u, ${heads - 1}u);`,
    )
  }
  ${stateWgsl(D, rows)}
  ${queriesWgsl(D, rows)}
  for (var first = start; first < end; first += ${BLOCK * groups}u) {
    ${eachKey((u) => `let j_${u} = first + ${u * groups}u + mine;`)}
    ${eachKey((u) => `let at_${u} = g * ${S}u + min(j_${u}, end - 1u);`)}
    ${eachKey((u) => eachVector((p) => `let k_${u}_${p} = k_at(at_${u}, i_${p});`))}
    ${eachKey((u) => eachVector((p) => `let v_${u}_${p} = v_at(at_${u}, i_${p});`))}
    let seen = vec4<bool>(j_0 < end, j_1 < end, j_2 < end, j_3 < end);
    ${blockWgsl(D, rows, () => "seen")}
  }
  ${merged.body}
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([exchanged, merged.declare]) };
}

/**
 * Merges the states of a workgroup's groups of lanes, and stores each row by `store(r)`, which
 * sees a vector's index `i` and its `sum`, and the row's `top` and `total`.
 */
function mergeWgsl(
  D: number,
  rows: Rows,
  store: (r: number) => string,
): { declare: Shader; body: string } {
  const { lanes, wide } = rows;
  const groups = lanes / wide;
  const [vectors, perLane] = [vectorsOf(D), vectorsOfLane(D, rows)];
  const eachRow = (line: (r: number) => string) => linesWgsl(rows.rows, line);
  const eachVector = (line: (p: number) => string) => linesWgsl(perLane, line);
  if (groups === 1) {
    const body = eachRow((r) =>
      eachVector((p) =>
        /* wgsl */ `if (${p * wide}u + column < ${vectors}u) {
    let i = i_${p}; let sum = sum_${r}_${p}; let top = top_${r}; let total = total_${r};
    ${store(r)}
  }`
      )
    );
    return { declare: { wgsl: "", workgroupBytes: 0 }, body };
  }
  // A vector of every lane, then the next one; `wide` vectors apart, so that banks do not repeat.
  const apart = lanes + (perLane > 1 ? wide : 0);
  const memory = [
    workgroupArray("tops", "f32", rows.rows * groups),
    workgroupArray("totals", "f32", groups),
    workgroupArray("sums", "vec4f", perLane * apart),
  ];
  const over = (value: (g: number) => string, join: (a: string, b: string) => string) =>
    Array.from({ length: groups }, (_, g) => value(g)).reduce(join);
  const merge = (r: number) => /* wgsl */ `
  let all_${r} = ${over((g) => `tops[${r * groups + g}u]`, (a, b) => `max(${a}, ${b})`)};
  let share_${r} = exp(top_${r} - all_${r});
  if (column == 0u) { totals[mine] = total_${r} * share_${r}; }
  ${eachVector((p) => `sums[${p * apart}u + lane] = sum_${r}_${p} * share_${r};`)}
  workgroupBarrier();
  ${
    linesWgsl(Math.ceil(vectors / lanes), (n) =>
      /* wgsl */ `if (lane + ${n * lanes}u < ${vectors}u) {
    let i = lane + ${n * lanes}u;
    let top = all_${r};
    let at = i / ${wide}u * ${apart}u + i % ${wide}u;
    let total = ${
        over((g) => `totals[${g}u]`, (a, b) => `${a} + ${b}`)
      };
    let sum = ${over((g) => `sums[at + ${g * wide}u]`, (a, b) => `${a} + ${b}`)};
    ${store(r)}
  }`)
  }`;
  const body = /* wgsl */ `
  if (column == 0u) { ${eachRow((r) => `tops[${r * groups}u + mine] = top_${r};`)} }
  ${eachRow((r) => `workgroupBarrier();${merge(r)}`)}`;
  const declare = {
    wgsl: memory.map((array) => array.wgsl).join("\n"),
    workgroupBytes: workgroupBytes(memory),
  };
  return { declare, body };
}

/** Reduce: combines the splits of one row, one workgroup per head. Bindings: 0 y, 1 the table. */
export function attentionReduceWgsl(constants: AttentionDecodeWgsl): Shader {
  const { H, D, reduceRows: rows, options: { window } } = constants;
  const groups = rows.lanes / rows.wide;
  const [vectors, perLane] = [tableVectors(D), vectorsOfLane(D, rows)];
  const merged = mergeWgsl(D, rows, () => "put_y(h, i, sum / total);");
  const eachPart = (line: (u: number) => string) => linesWgsl(BLOCK, line);
  const each = (value: (u: number) => string) => [0, 1, 2, 3].map(value).join(", ");
  const wgsl = /* wgsl */ `
${storeWgsl(D)}
@group(1) @binding(1) var<storage, read> table: array<vec4f>;
${firstWgsl(window)}
${merged.declare.wgsl}

${mainWgsl(rows.lanes)} {
  let h = index_of(group, grid);
  if (h >= ${H}u || run.rows == 0u) { return; }
  ${eachWgsl(constants.splits)}
  let end = (visible + each - 1u) / each;
  let column = lane % ${rows.wide}u;
  let mine = lane / ${rows.wide}u;
  ${stateWgsl(D, rows)}
  for (var first = 0u; first < end; first += ${BLOCK * groups}u) {
    ${eachPart((u) => `let j_${u} = first + ${u * groups}u + mine;`)}
    ${eachPart((u) => `let at_${u} = (min(j_${u}, end - 1u) * ${H}u + h) * ${vectors}u;`)}
    ${eachPart((u) => `let part_${u} = table[at_${u} + ${vectors - 1}u];`)}
    ${eachPart((u) => linesWgsl(perLane, (p) => `let v_${u}_${p} = table[at_${u} + i_${p}];`))}
    let seen = vec4<bool>(${each((u) => `j_${u} < end`)});
    let s = select(vec4f(${LOWEST}), vec4f(${each((u) => `part_${u}.x`)}), seen);
    let above = max(top_0, max(max(s.x, s.y), max(s.z, s.w)));
    let p_0 = select(vec4f(0.0), exp(s - vec4f(above)), seen);
    let shrink_0 = exp(top_0 - above);
    top_0 = above;
    total_0 = fma(total_0, shrink_0, dot(p_0, vec4f(${each((u) => `part_${u}.y`)})));
    ${linesWgsl(perLane, (p) => accumulateWgsl(0, p))}
  }
  ${merged.body}
}
`;
  return { wgsl, workgroupBytes: merged.declare.workgroupBytes };
}

/**
 * WGSL attention of several rows (prefill): keys and values pass through workgroup memory, and
 * neighbouring lanes share a query row. `wgsl_state.ts` has the method.
 *
 *     rows of a head                        keys that the last row of the workgroup sees
 *     ┌─────────┐ q in registers            ┌──────┬──────┬──────┬──
 *     │ t, t+1 …│ `wide` lanes a row        │tile 0│tile 1│tile 2│ …   load tile, barrier,
 *     │         │ `rows` rows a lane        └──────┴──────┴──────┴──   blocks of four keys, barrier
 *     └─────────┘
 *
 * A tile is one run of memory: its lanes load it side by side. A lane's state, its parts of q and
 * of the sums, is at most 64 numbers, whatever the size of a head:
 *
 *     D     wide  vectors of a lane  rows   numbers of state    keys of a tile
 *     64    4     4                  2      2 · 2 · 16 = 64     24
 *     66    8     3                  2      2 · 2 · 12 = 48     20
 *     128   8     4                  2      2 · 2 · 16 = 64     12
 *     256   8     8                  1      1 · 2 · 32 = 64     4
 *
 * @module
 */
import type { AttentionShape } from "./mod.ts";
import {
  type AttentionWgsl,
  BLOCK,
  blockWgsl,
  type Device,
  type Exchange,
  exchangeOf,
  firstWgsl,
  loadCacheWgsl,
  loadWgsl,
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

/** Constants of the prefill shader. */
export interface AttentionPrefillWgsl extends AttentionWgsl {
  readonly rows: Rows;
  readonly exchange: Exchange;
  /** Keys of a tile, a multiple of four; 0 to read keys and values from the cache itself. */
  readonly tile: number;
}

/** Lanes of a workgroup on a GPU. */
const LANES = 128;

/** Bytes of the tiles of keys and values: with the sums of lanes, below 16 KiB. */
const TILE_BYTES = 12288;

/** Most keys of a tile. */
const MOST_KEYS = 32;

/** Workgroups that occupy a large GPU; with fewer, a lane takes one row. */
const ENOUGH_GROUPS = 128;

/**
 * Constants for at most `T` rows. Heads of which four keys and values exceed workgroup memory are
 * read without a tile.
 *
 * A software adapter runs a workgroup on one thread, and barriers are expensive: one subgroup, and
 * no tile. 128 rows of GPT-2 over 1024 keys take 40 ms on lavapipe, 64 if a lane has a whole row.
 */
export function prefillConstants(
  shape: AttentionShape,
  options: AttentionWgsl["options"],
  T: number,
  device: Device,
): AttentionPrefillWgsl {
  const { H, D } = shape;
  const vectors = vectorsOf(D);
  if (device.software) {
    const { lanes, wide } = softwareLanes(vectors, device);
    const rows = Math.min(4, T, Math.max(1, Math.floor(8 / Math.ceil(vectors / wide))));
    const exchange = exchangeOf(wide, device);
    return { ...shape, options, rows: { lanes, wide, rows }, exchange, tile: 0 };
  }
  const tile = Math.min(MOST_KEYS, BLOCK * Math.floor(TILE_BYTES / (32 * vectors * BLOCK)));
  let wide = Math.min(8, Math.max(4, powerOfTwo(vectors / 4)));
  while (Math.ceil(vectors / wide) > MOST_VECTORS) wide *= 2;
  const atOnce = LANES / wide; // rows, if a lane has one
  const most = Math.min(4, Math.floor(MOST_VECTORS / Math.ceil(vectors / wide)));
  const isEnough = H * Math.ceil(T / (atOnce * most)) >= ENOUGH_GROUPS;
  const rows = { lanes: LANES, wide, rows: isEnough ? most : 1 };
  return { ...shape, options, rows, exchange: exchangeOf(wide, device), tile };
}

/** Rows of a workgroup. */
function rowsOfGroup({ lanes, wide, rows }: Rows): number {
  return lanes / wide * rows;
}

/** Workgroups of the prefill shader. */
export function prefillGroups({ H, rows }: AttentionPrefillWgsl, count: number): number {
  return H * Math.ceil(count / rowsOfGroup(rows));
}

/** Prefill. Bindings: 0 y, 1 q, 2 k, 3 v. */
export function attentionPrefillWgsl(constants: AttentionPrefillWgsl): Shader {
  const { H, G, D, S, rows, tile, exchange, options: { window } } = constants;
  const high = rowsOfGroup(rows);
  const apart = rows.lanes / rows.wide;
  const vectors = vectorsOf(D);
  const memory = tile
    ? ["tile_k", "tile_v"].map((name) => workgroupArray(name, "vec4f", tile * vectors))
    : [];
  const exchanged = sumWideWgsl(rows, exchange);
  const eachRow = (line: (r: number) => string) => linesWgsl(rows.rows, line);
  const wgsl = /* wgsl */ `
${storeWgsl(D)}
${loadWgsl("q", 1, D)}
${loadCacheWgsl(constants)}
${memory.map((array) => array.wgsl).join("\n")}
${scoreWgsl(constants)}
${firstWgsl(window)}
${exchanged.wgsl}

${mainWgsl(rows.lanes)} {
  let index = index_of(group, grid);
  let blocks = (run.rows + ${high - 1}u) / ${high}u;
  if (index >= ${H}u * blocks) { return; }
  let h = index / blocks;
  let first_row = (index % blocks) * ${high}u;
  let before = run.length - run.rows + 1u; // keys that row 0 sees
  let start = first_of(before + first_row);
  let end = before + min(first_row + ${high - 1}u, run.rows - 1u);
  let kv = (h * ${G}u / ${H}u) * ${S}u;
  let near = near_of(lane);
  let column = lane % ${rows.wide}u;
  ${
    eachRow((r) =>
      /* wgsl */ `let t_${r} = first_row + lane / ${rows.wide}u + ${r * apart}u;
  let row_${r} = min(t_${r}, run.rows - 1u) * ${H}u + h;
  let before_${r} = first_of(before + t_${r});
  let after_${r} = before + t_${r};`
    )
  }
  ${stateWgsl(D, rows)}
  ${queriesWgsl(D, rows)}
  ${tile ? tilesWgsl(constants) : keysWgsl(constants)}
  ${
    eachRow((r) =>
      /* wgsl */ `if (t_${r} < run.rows) {
    ${linesWgsl(vectorsOfLane(D, rows), (p) => storeVectorWgsl(D, rows, r, p))}
  }`
    )
  }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([exchanged, ...memory]) };
}

/** All keys, a tile at a time. */
function tilesWgsl(constants: AttentionPrefillWgsl): string {
  const { D, tile } = constants;
  const vectors = vectorsOf(D);
  return /* wgsl */ `
  for (var first = start; first < end; first += ${tile}u) {
    workgroupBarrier(); // all have read the tile before
    ${loadTileWgsl(constants)}
    workgroupBarrier();
    for (var b = 0u; b < min(${tile}u, end - first); b += ${BLOCK}u) {
      let j = first + b;
      ${keyBlockWgsl(constants, (name, u, p) => `tile_${name}[(b + ${u}u) * ${vectors}u + i_${p}]`)}
    }
  }`;
}

/** All keys, from the cache itself. */
function keysWgsl(constants: AttentionPrefillWgsl): string {
  const at = (u: number) => `kv + min(j + ${u}u, end - 1u)`;
  return /* wgsl */ `
  for (var j = start; j < end; j += ${BLOCK}u) {
    ${keyBlockWgsl(constants, (name, u, p) => `${name}_at(${at(u)}, i_${p})`)}
  }`;
}

/** Loads a tile of keys and values; past the last key, the last one once more. */
function loadTileWgsl({ D, rows: { lanes }, tile }: AttentionPrefillWgsl): string {
  const vectors = vectorsOf(D);
  const count = tile * vectors;
  const at = (n: number) => `(lane + ${n * lanes}u)`;
  const load = (n: number) =>
    /* wgsl */ `let row_of_${n} = kv + min(first + ${at(n)} / ${vectors}u, end - 1u);
    let k_of_${n} = k_at(row_of_${n}, ${at(n)} % ${vectors}u);
    let v_of_${n} = v_at(row_of_${n}, ${at(n)} % ${vectors}u);`;
  const store = (n: number) => {
    const both = `tile_k[${at(n)}] = k_of_${n}; tile_v[${at(n)}] = v_of_${n};`;
    return (n + 1) * lanes <= count ? both : `if (${at(n)} < ${count}u) { ${both} }`;
  };
  const loads = Math.ceil(count / lanes);
  // All loads come before the first store, which waits for them.
  return `${linesWgsl(loads, load)}
    ${linesWgsl(loads, store)}`;
}

/** A block of four keys from key `j` on; `read` gives vector p of key or value j + u. */
function keyBlockWgsl(
  { D, rows, options: { window } }: AttentionPrefillWgsl,
  read: (name: "k" | "v", u: number, p: number) => string,
): string {
  const declare = (name: "k" | "v") =>
    linesWgsl(BLOCK, (u) =>
      linesWgsl(
        vectorsOfLane(D, rows),
        (p) => `let ${name}_${u}_${p} = ${read(name, u, p)};`,
      ));
  const each = (line: (u: number) => string) => [0, 1, 2, 3].map(line).join(", ");
  const seen = (r: number) => {
    const late = `vec4<bool>(${each((u) => `j + ${u}u < after_${r}`)})`;
    if (window === undefined) return late;
    return `${late} & vec4<bool>(${each((u) => `j + ${u}u >= before_${r}`)})`;
  };
  return `${declare("k")}
  ${declare("v")}
  ${blockWgsl(D, rows, seen)}`;
}

/** Writes a vector of a row of y. */
function storeVectorWgsl(D: number, { wide }: Rows, r: number, p: number): string {
  const put = `put_y(row_${r}, i_${p}, sum_${r}_${p} / total_${r});`;
  const isWhole = (p + 1) * wide <= vectorsOf(D);
  return isWhole ? put : `if (${p * wide}u + column < ${vectorsOf(D)}u) { ${put} }`;
}

/**
 * WGSL epilogue of a product that makes queries, keys and values: rotates and stores them, in place
 * of `writeKv`.
 *
 * A rotation mixes two outputs of a head, i and i + R/2 (or 2i and 2i + 1): partners. A workgroup
 * that owns both needs no further dispatch. Of a split tile, half the outputs come from the lower
 * half of the rotated numbers, and half are their partners:
 *
 *     outputs of a workgroup       │ j … j + 3 │ R/2 + j … R/2 + j + 3 │      lanes 0 … 7
 *     partner of lane l            │ l + 4     │ l − 4                 │      = l ^ 4
 *
 * A lane of a flat tile has both among its own outputs. `kv_cache/mod.ts` has the formula.
 *
 * @module
 */
import { rotaryDimOf, type WriteKvCall, type WriteKvShape } from "../kv_cache/mod.ts";
import { partsOf, type Tile } from "./tiles.ts";

/** Constants of the heads. */
export interface HeadsWgsl extends WriteKvShape {
  /** R: rotated numbers of a head; 0 without a table. */
  readonly rotaryDim: number;
  /** Whether pairs (2i, 2i + 1) are rotated, not (i, i + R/2). */
  readonly interleaved: boolean;
}

/** Constants of a call's heads. */
export function headsOf({ shape, options }: WriteKvCall): HeadsWgsl {
  const { interleaved = false } = options;
  return { ...shape, rotaryDim: rotaryDimOf(options), interleaved };
}

/**
 * Whether a workgroup of this tile owns the partner of each output.
 * @param starts first outputs of the weight's parts.
 */
export function ownsPartners(
  tile: Tile,
  { D, rotaryDim: R, interleaved }: HeadsWgsl,
  starts: readonly number[],
): boolean {
  if (R === 0 || partsOf(tile) > 1) return true; // split-K finishes each output by itself
  if (starts.some((first) => first % D !== 0)) return false;
  switch (tile.kind) {
    case "flat":
      return !interleaved && (R / 2) % tile.lanes === 0 && (tile.lanes * tile.outputs) % D === 0;
    case "split":
      return D % tile.outputs === 0 && (interleaved || R % tile.outputs === 0);
    case "shared":
      return false;
  }
}

/** Defines `row_at`: the output of place p of a part, for a split tile, as drawn above. */
export function rowAtWgsl(
  { H, G, D, rotaryDim: R, interleaved }: HeadsWgsl,
  outputs: number,
): string {
  if (R === 0 || interleaved) return "fn row_at(p: u32) -> u32 { return p; }";
  const side = outputs / 2;
  return /* wgsl */ `
fn row_at(p: u32) -> u32 {
  let i = p % ${D}u;
  if (i >= ${R}u || FIRST + p >= ${(H + G) * D}u) { return p; }
  let low = i / ${outputs}u * ${side}u + i % ${side}u;
  return p - i + low + select(0u, ${R / 2}u, i % ${outputs}u >= ${side}u);
}`;
}

/** Mask from a lane of a split tile to its partner; 0 without a rotation. */
export function partnerMask({ rotaryDim, interleaved }: HeadsWgsl, outputs: number): number {
  if (rotaryDim === 0) return 0;
  return interleaved ? 1 : outputs / 2;
}

/** The partner of output `j` of a lane of a flat tile; `j` itself without a rotation. */
export function partnerOutput(
  { D, rotaryDim: R }: HeadsWgsl,
  { lanes }: Tile & { readonly kind: "flat" },
  j: number,
): number {
  const i = (j * lanes) % D;
  if (i >= R) return j;
  return i < R / 2 ? j + R / 2 / lanes : j - R / 2 / lanes;
}

/**
 * Defines `store(t, n, sum, second)`: output n of row t goes to q, k or v; `second` is the sum of
 * its partner. Bindings: 0 q, 3 bias, 7 k, 8 v, 9 table.
 */
export function headsEpilogueWgsl(heads: HeadsWgsl, bias: boolean): string {
  const { H, G, D, S, rotaryDim: R } = heads;
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> q: array<f32>;
@group(1) @binding(7) var<storage, read_write> k_cache: array<f32>;
@group(1) @binding(8) var<storage, read_write> v_cache: array<f32>;
${bias ? "@group(1) @binding(3) var<storage, read> bias: array<f32>;" : ""}
${R ? "@group(1) @binding(9) var<storage, read> table: array<f32>;" : ""}
fn partner_of(n: u32) -> u32 { return ${partnerExpression(heads)}; }
fn store(t: u32, n: u32, sum: f32, second: f32) {
  let head = n / ${D}u;
  let i = n % ${D}u;
  var v = sum${bias ? " + bias[n]" : ""};
  ${R ? rotateWgsl(heads, bias) : ""}
  if (head < ${H}u) { q[t * ${H * D}u + n] = v; }
  else if (head < ${H + G}u) { k_cache[((head - ${H}u) * ${S}u + run.slot + t) * ${D}u + i] = v; }
  else { v_cache[((head - ${H + G}u) * ${S}u + run.slot + t) * ${D}u + i] = v; }
}`;
}

/** Expression of the output that output `n` is rotated with; `n` itself if it is not rotated. */
function partnerExpression({ D, rotaryDim: R, interleaved }: HeadsWgsl): string {
  if (R === 0) return "n";
  const i = `n % ${D}u`;
  const partner = interleaved ? `((${i}) ^ 1u)` : `(${i} + ${R / 2}u) % ${R}u`;
  return `n - ${i} + select(${i}, ${partner}, ${i} < ${R}u)`;
}

function rotateWgsl({ H, G, rotaryDim: R, interleaved }: HeadsWgsl, bias: boolean): string {
  const half = R / 2;
  const [pair, isFirst] = interleaved
    ? ["i / 2u", "i % 2u == 0u"]
    : [`i % ${half}u`, `i < ${half}u`];
  return /* wgsl */ `
  if (head < ${H + G}u && i < ${R}u) {
    let other = second${bias ? " + bias[partner_of(n)]" : ""};
    let at = (run.position + t) * ${R}u + ${pair};
    let sine = table[at + ${half}u];
    v = v * table[at] + other * select(sine, -sine, ${isFirst});
  }`;
}

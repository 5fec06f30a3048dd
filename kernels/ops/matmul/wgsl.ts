/**
 * WGSL matmul: a shader from its pieces, and the dispatches of a product.
 *
 *     wgsl_flat | wgsl_row | wgsl_rows   body of a tile: loads, multiplies, adds up
 *     wgsl_norm                          x, or its norm, and the sums over K
 *     wgsl_epilogue                      bias, activation, …; or wgsl_parts under split-K
 *
 * `mod.ts` has the formula and the shapes, `tiles.ts` the tiles.
 *
 * @module
 */
import type { NormOptions } from "../norm.ts";
import { type WeightDtype, wgslOf } from "../../formats/mod.ts";
import { panelWords, weightWgsl } from "../../formats/wgsl.ts";
import { type GpuDispatch, type GpuTarget, readOnly } from "../contract.ts";
import {
  type Columns,
  columnsOf,
  type MatmulCall,
  matmulOperands,
  type MatmulOptions,
} from "./mod.ts";
import { mainWgsl, type Shader, workgroupBytes } from "../../wgsl/shader.ts";
import { matmulGroups, partsOf, type Tile } from "./tiles.ts";
import { epilogueWgsl, type UpWgsl } from "./wgsl_epilogue.ts";
import { flatBody } from "./wgsl_flat.ts";
import {
  headsEpilogueWgsl,
  headsOf,
  type HeadsWgsl,
  ownsPartners,
  rowAtWgsl,
} from "./wgsl_heads.ts";
import { writeKvDispatches } from "../kv_cache/wgsl.ts";
import { loadXWgsl, ownNormWgsl, type Totals, totalsOf } from "./wgsl_norm.ts";
import { finishGroups, finishWgsl, keepWgsl, partialBytes } from "./wgsl_parts.ts";
import { rowBody, rowMemory } from "./wgsl_row.ts";
import { depthOf, rowsBody, rowsLanes, rowsMemory, stepsOf } from "./wgsl_rows.ts";

/** Constants of the shader. */
export interface MatmulWgsl {
  /** Outputs. */
  readonly N: number;
  /** Inputs. */
  readonly K: number;
  readonly dtype: WeightDtype;
  readonly tile: Tile;
  readonly options: MatmulOptions<unknown>;
  /** Columns of y that are written; default all. */
  readonly columns?: Columns;
  /** Outputs first … first + count, of a weight that exceeds one binding; default all. */
  readonly part?: { readonly first: number; readonly count: number };
  /**
   * Norm of x, computed by the same kernel: for `split` and `flat` tiles.
   */
  readonly norm?: NormOptions<unknown>;
  /** Second product of x, in place of a gate: for `split` and `flat` tiles. */
  readonly up?: UpWgsl;
  /** Heads that the outputs are: for tiles that own their partners. */
  readonly heads?: HeadsWgsl;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
}

/** The tile, with halves only of a format that has pairs of them. */
function heldTile<T extends Tile & { kind: "shared" }>(tile: T, dtype: WeightDtype): T {
  return { ...tile, half: tile.half && wgslOf(dtype).pairs !== undefined };
}

/** What a kernel loads at a time: a load of the format, or four inputs if its steps are shorter. */
function wordOf(dtype: WeightDtype, tile: Tile) {
  const { inputs, type } = wgslOf(dtype);
  const byFours = tile.kind === "shared" && inputs > depthOf(heldTile(tile, dtype));
  return byFours
    ? { byFours, inputs: 4, zero: "vec4f(0.0)" }
    : { byFours, inputs, zero: `${type}()` };
}

/** Parts of a shader that depend on the tile. */
interface Body {
  /** Lanes of a workgroup. */
  readonly lanes: number;
  /** Outputs of a workgroup. */
  readonly block: number;
  /** Workgroup memory, and functions that load x. */
  readonly pieces: readonly Shader[];
  readonly body: string;
}

function bodyOf(constants: MatmulWgsl, totals: Totals): Body {
  const { K, dtype, tile, norm, up, heads, subgroups = false } = constants;
  const { inputs } = wordOf(dtype, tile);
  const words = panelWords({ inputs }, K);
  const padded = words * inputs;
  const loadX = (padded: number) => ({ wgsl: loadXWgsl(K, padded), workgroupBytes: 0 });
  switch (tile.kind) {
    case "flat": {
      const own = { wgsl: norm ? ownNormWgsl(K, padded, norm) : "", workgroupBytes: 0 };
      const body = flatBody(tile, { words, inputs, normed: !!norm, gated: !!up, heads });
      const block = tile.lanes * tile.outputs;
      return { lanes: tile.lanes, block, pieces: [loadX(padded), own], body };
    }
    case "split": {
      const { outputs, slices } = tile;
      const rowAt = { wgsl: heads ? rowAtWgsl(heads, outputs) : "", workgroupBytes: 0 };
      const pieces = [loadX(padded), rowMemory(tile, totals), rowAt];
      const isBlock = wgslOf(dtype).ahead !== undefined;
      const body = rowBody(tile, { words, inputs, totals, subgroups, heads, isBlock });
      return { lanes: outputs * slices, block: outputs, pieces, body };
    }
    case "shared": {
      const own = heldTile(tile, dtype);
      const { zero } = wordOf(dtype, tile);
      const steps = stepsOf(own, { words, inputs });
      const pieces = [loadX(steps * depthOf(own)), ...rowsMemory(own)];
      const body = rowsBody(own, { words, inputs, zero });
      return { lanes: rowsLanes(own), block: own.tileN, pieces, body };
    }
  }
}

/** Sums of a product's kernel; a flat one norms x as it reads it. */
function totalsOfTile({ K, dtype, tile, norm, up }: MatmulWgsl): Totals {
  const { inputs } = wordOf(dtype, tile);
  const folded = tile.kind === "split" ? norm : undefined;
  return totalsOf(K, panelWords({ inputs }, K) * inputs, folded, up !== undefined);
}

/** Defines `store`. */
function endOf({ N, options, columns, up, heads }: MatmulWgsl): string {
  if (heads) return headsEpilogueWgsl(heads, !!options.bias);
  return epilogueWgsl(options, columns ?? { width: N, first: 0 }, up);
}

/**
 * The WGSL form. Bindings: 0 y (or the partial totals under split-K), 1 x, 2 weight in panels, 3
 * bias, 4 gate, 5 and 6 weight and bias of a norm, 7 and 8 weight and bias of the second product.
 * Of heads: 0 q, 7 k, 8 v, 9 table. `run` and `index_of` come from `PRELUDE`.
 */
export function matmulWgsl(constants: MatmulWgsl): Shader {
  const { N, K, dtype, tile, up, part } = constants;
  const { first, count } = part ?? { first: 0, count: N };
  const totals = totalsOfTile(constants);
  const { lanes, block, pieces, body } = bodyOf(constants, totals);
  const format = wgslOf(dtype);
  const { inputs, byFours } = wordOf(dtype, tile);
  const ahead = tile.kind === "split" ? format.ahead : undefined;
  const parameters = totals.names.map((name) => `${name}: f32`).join(", ");
  const end = partsOf(tile) > 1 ? keepWgsl(totals) : /* wgsl */ `${endOf(constants)}
fn result_of(${parameters}) -> f32 { return ${totals.result}; }
${totals.up ? `fn up_of(${parameters}) -> f32 { return ${totals.up}; }` : ""}
fn finish(t: u32, row: u32, sum: f32, second: f32) {
  if (t < run.rows && row < COUNT) { store(t, FIRST + row, sum, second); }
}`;
  const wgsl = /* wgsl */ `
const N = ${N}u;
const K = ${K}u;
const GROUPS = ${Math.ceil(K / 4)}u;
const WORDS = ${panelWords({ inputs }, K)}u;
const FIRST = ${first}u;
const COUNT = ${count}u;
const BLOCKS = ${Math.ceil(count / block)}u;
${format.declare}
${ahead?.declare ?? ""}
${weightWgsl(format, { name: "weight", binding: 2, K, byFours, ahead })}
${up ? weightWgsl(format, { name: "up", binding: 7, K, byFours, ahead }) : ""}
// Place of an output; beyond the last one, that of the last one.
fn start_of(row: u32) -> u32 { return weight_start(min(row, COUNT - 1u)); }
${pieces.map(({ wgsl }) => wgsl).join("\n")}
${totals.declare}
${end}

${mainWgsl(lanes)} {
  let index = index_of(group, grid);
  ${body}
}
`;
  return { wgsl, workgroupBytes: workgroupBytes(pieces) };
}

/**
 * Lowers the call to a dispatch for each part of the weight, and one that finishes a split-K; and
 * one that writes the heads, if the tile does not own their partners.
 */
export function matmulDispatches(call: MatmulCall, target: GpuTarget, tile: Tile): GpuDispatch[] {
  const all = matmulOperands(call);
  const weights = target.parts(all.weight);
  const heads = call.heads && headsOf(call.heads);
  if (heads && !ownsPartners(tile, heads, weights.map(({ first }) => first))) {
    const product = matmulDispatches({ ...call, heads: undefined }, target, tile);
    return [...product, ...writeKvDispatches(call.heads!, target)];
  }
  const { weight: { shape: [N, K], dtype }, options, norm, up } = call;
  const { subgroups } = target;
  const columns = columnsOf(call);
  const constants = { N, K, dtype, tile, options, columns, norm, up, heads, subgroups };
  const ups = all.upWeight && target.parts(all.upWeight);
  /** Operands of the epilogue, at bindings 0, 3, 4, and from 7 on. */
  const end = heads
    ? [all.q, all.bias, undefined, all.k, all.v, all.table]
    : [all.y, all.bias, all.gate, undefined, all.upBias];
  const products = (out: typeof end): GpuDispatch[] =>
    weights.map(({ first, count, operand }, i) => ({
      op: "matmul",
      ...matmulWgsl({ ...constants, part: { first, count } }),
      operands: [
        ...[out[0], all.x, operand, out[1], out[2], all.normWeight, all.normBias],
        ...[ups ? ups[i].operand : out[3], ...out.slice(4)],
      ],
      groups: (rows) => matmulGroups(tile, count, rows),
    }));
  const parts = partsOf(tile);
  if (parts === 1) return products(end);
  const totals = totalsOfTile(constants);
  const partials = target.partials(partialBytes(parts, totals, [call.x.shape[0], N]));
  const epilogue = endOf(constants);
  const [out, bias, gate, ...others] = end;
  return [...products([partials]), {
    op: "matmul",
    ...finishWgsl({ N, K, parts, totals, epilogue, paired: heads !== undefined }),
    operands: [out, readOnly(partials), undefined, bias, gate, undefined, undefined, ...others],
    groups: (rows) => finishGroups(N, rows),
  }];
}

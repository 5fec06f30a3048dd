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
import { type MatmulCall, matmulOperands, type MatmulOptions } from "./mod.ts";
import { mainWgsl, type Shader, workgroupBytes } from "../../wgsl/shader.ts";
import { matmulGroups, partsOf, type Tile } from "./tiles.ts";
import { epilogueWgsl } from "./wgsl_epilogue.ts";
import { flatBody } from "./wgsl_flat.ts";
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
  /** Outputs first … first + count, of a weight that exceeds one binding; default all. */
  readonly part?: { readonly first: number; readonly count: number };
  /**
   * Norm of x, computed by the same kernel: for `split` and `flat` tiles.
   */
  readonly norm?: NormOptions<unknown>;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
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

function bodyOf({ K, dtype, tile, norm, subgroups = false }: MatmulWgsl, totals: Totals): Body {
  const { inputs } = wgslOf(dtype);
  const words = panelWords({ inputs }, K);
  const padded = words * inputs;
  const loadX = (padded: number) => ({ wgsl: loadXWgsl(K, padded), workgroupBytes: 0 });
  switch (tile.kind) {
    case "flat": {
      const own = { wgsl: norm ? ownNormWgsl(K, padded, norm) : "", workgroupBytes: 0 };
      const body = flatBody(tile, { words, inputs, normed: !!norm });
      const block = tile.lanes * tile.outputs;
      return { lanes: tile.lanes, block, pieces: [loadX(padded), own], body };
    }
    case "split": {
      const { outputs, slices } = tile;
      const pieces = [loadX(padded), rowMemory(tile, totals)];
      const body = rowBody(tile, { words, inputs, totals, subgroups });
      return { lanes: outputs * slices, block: outputs, pieces, body };
    }
    case "shared": {
      const steps = stepsOf(tile, { words, inputs });
      const pieces = [loadX(steps * depthOf(tile)), ...rowsMemory(tile)];
      const body = rowsBody(tile, { words, inputs });
      return { lanes: rowsLanes(tile), block: tile.tileN, pieces, body };
    }
  }
}

/** Sums of a product's kernel; a flat one norms x as it reads it. */
function totalsOfTile({ K, dtype, tile, norm }: MatmulWgsl): Totals {
  const { inputs } = wgslOf(dtype);
  const folded = tile.kind === "split" ? norm : undefined;
  return totalsOf(K, panelWords({ inputs }, K) * inputs, folded);
}

/**
 * The WGSL form. Bindings: 0 y (or the partial totals under split-K), 1 x, 2 weight in panels, 3
 * bias, 4 gate, 5 and 6 weight and bias of a norm. `run` and `index_of` come from `PRELUDE`.
 */
export function matmulWgsl(constants: MatmulWgsl): Shader {
  const { N, K, dtype, tile, options, part } = constants;
  const { first, count } = part ?? { first: 0, count: N };
  const totals = totalsOfTile(constants);
  const { lanes, block, pieces, body } = bodyOf(constants, totals);
  const format = wgslOf(dtype);
  const parameters = totals.names.map((name) => `${name}: f32`).join(", ");
  const end = partsOf(tile) > 1 ? keepWgsl(totals) : /* wgsl */ `${epilogueWgsl(options)}
fn result_of(${parameters}) -> f32 { return ${totals.result}; }
fn finish(t: u32, row: u32, sum: f32) {
  if (t < run.rows && row < COUNT) { store(t, FIRST + row, sum); }
}`;
  const wgsl = /* wgsl */ `
const N = ${N}u;
const K = ${K}u;
const GROUPS = ${Math.ceil(K / 4)}u;
const WORDS = ${panelWords(format, K)}u;
const FIRST = ${first}u;
const COUNT = ${count}u;
const BLOCKS = ${Math.ceil(count / block)}u;
${weightWgsl(format, { name: "weight", binding: 2, K })}
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
 * Lowers the call to a dispatch for each part of the weight, and one that finishes a split-K.
 */
export function matmulDispatches(call: MatmulCall, target: GpuTarget, tile: Tile): GpuDispatch[] {
  const { y, x, weight, bias, gate, normWeight, normBias } = matmulOperands(call);
  const { weight: { shape: [N, K], dtype }, options, norm } = call;
  const { subgroups } = target;
  const constants = { N, K, dtype, tile, options, norm, subgroups };
  const products = (out: typeof y, ...epilogue: (typeof bias)[]): GpuDispatch[] =>
    target.parts(weight).map(({ first, count, operand }) => ({
      op: "matmul",
      ...matmulWgsl({ ...constants, part: { first, count } }),
      operands: [out, x, operand, epilogue[0], epilogue[1], normWeight, normBias],
      groups: ({ rows }) => matmulGroups(tile, count, rows),
    }));
  const parts = partsOf(tile);
  if (parts === 1) return products(y, bias, gate);
  const totals = totalsOfTile(constants);
  const partials = target.partials(partialBytes(parts, totals, [call.x.shape[0], N]));
  return [...products(partials), {
    op: "matmul",
    ...finishWgsl({ N, K, parts, totals, options }),
    operands: [y, readOnly(partials), undefined, bias, gate],
    groups: ({ rows }) => finishGroups(N, rows),
  }];
}

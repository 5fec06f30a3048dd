/**
 * Accesses of the WGSL matmul's hot loops, by the index expressions that its shaders are made of.
 *
 * @module
 */
import { startOf, WORD_BYTES, wordAt } from "../../kernels/formats/wgsl.ts";
import type { Access } from "./wgsl/access.ts";
import type { Tile } from "../../kernels/ops/matmul/tiles.ts";
import { fourAt } from "../../kernels/ops/matmul/wgsl_norm.ts";
import { outputOf, sliceOf } from "../../kernels/ops/matmul/wgsl_row.ts";
import {
  depthOf,
  placesOf,
  rowsLanes,
  tileWAt,
  tileXAt,
} from "../../kernels/ops/matmul/wgsl_rows.ts";

/** The product whose accesses are listed. */
export interface AccessShape {
  /** Inputs. */
  readonly K: number;
  /** Words per output, and inputs per word, of the weight's format. */
  readonly words: number;
  readonly inputs: number;
}

/** Loads and stores of a tile's loop over K, by a workgroup in its first iteration. */
export function matmulAccesses(tile: Tile, shape: AccessShape): Access[] {
  switch (tile.kind) {
    case "flat":
      return []; // for a software adapter, which has no warps
    case "split":
      return rowAccesses(tile, shape);
    case "shared":
      return rowsAccesses(tile, shape);
  }
}

function rowAccesses(
  { outputs, slices }: Tile & { kind: "split" },
  { K, words, inputs }: AccessShape,
): Access[] {
  const common = { memory: "storage", bytes: WORD_BYTES, lane: "lane", names: {} } as const;
  const lanes = Math.min(outputs * slices, outputs * words);
  const four = (p: number) => `${sliceOf(outputs)} * ${inputs / 4}u + ${p}u`;
  return [
    {
      ...common,
      what: "weight, load",
      lanes,
      index: wordAt(startOf(`(${outputOf(outputs)})`, words), sliceOf(outputs)),
    },
    ...Array.from({ length: inputs / 4 }, (_, p): Access => ({
      ...common,
      what: `x ${p}, load`,
      lanes,
      index: fourAt("t", four(p), "GROUPS"),
      names: { t: 0, GROUPS: Math.ceil(K / 4) },
    })),
  ];
}

function rowsAccesses(
  tile: Tile & { kind: "shared" },
  { K, words, inputs }: AccessShape,
): Access[] {
  const { w, x, column, row } = placesOf(tile, inputs);
  const names = { GROUPS: Math.ceil(K / 4) };
  const storage = { memory: "storage", bytes: WORD_BYTES, lane: "unit", names } as const;
  const workgroup = { memory: "workgroup", bytes: 16, lane: "unit", names: {} } as const;
  const lanes = { w: Math.min(w.count, rowsLanes(tile)), x: Math.min(x.count, rowsLanes(tile)) };
  const word = (i: number) => wordAt(startOf(`(${w.output("unit", i)})`, words), w.word("unit"));
  const toW = (c: number) =>
    tileWAt(tile, `(${w.word("unit")}) * ${inputs}u + ${c}u`, w.vector("unit"));
  const toX = (c: number) => tileXAt(tile, `(${x.four("unit")})`, c, `(${x.vector("unit")})`);
  const each = (count: number, access: (i: number) => Access) =>
    Array.from({ length: count }, (_, i) => access(i));
  const read = { ...workgroup, lane: "lane", lanes: rowsLanes(tile) };
  return [
    ...each(4, (i) => ({ ...storage, what: `weight ${i}, load`, lanes: lanes.w, index: word(i) })),
    ...each(4, (i) => ({
      ...storage,
      what: `x ${i}, load`,
      lanes: lanes.x,
      index: fourAt(`(${x.row("unit", i)})`, x.four("unit"), "GROUPS"),
    })),
    ...each(
      inputs,
      (c) => ({ ...workgroup, what: `tile_w ${c}, store`, lanes: lanes.w, index: toW(c) }),
    ),
    ...each(
      4,
      (c) => ({ ...workgroup, what: `tile_x ${c}, store`, lanes: lanes.x, index: toX(c) }),
    ),
    ...each(depthOf(tile), (k) => ({
      ...read,
      what: `tile_w ${k}, read`,
      index: tileWAt(tile, `${k}u`, column),
    })),
    ...each(depthOf(tile), (k) => ({
      ...read,
      what: `tile_x ${k}, read`,
      index: tileXAt(tile, `${Math.floor(k / 4)}u`, k % 4, `(${row})`),
    })),
  ];
}

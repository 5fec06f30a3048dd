/**
 * Matmul of many rows in WASM over blocked weights, with x in 8 bits: register tiles of integer dot
 * products. `wasm_units.ts` draws the operands.
 *
 *     for each panel (item):  unpack panel → for each tile: multiply unit by unit, epilogue
 *
 * A tile is four rows × two vectors of outputs: eight integer sums in registers; its F32 sums are
 * in memory meanwhile. A vector has 8 outputs where V8 joins pairs to 256 bits (`asm/join.ts`),
 * otherwise 4.
 *
 *     bytes   products of bytes, summed in 16 bits, then in 32
 *     words   products of 16-bit integers, summed in 32 bits
 *
 * Trick: a 16-bit sum starts at offset · Σ xq. It may wrap around before all codes are added, but
 * ends at Σ (q + offset) · xq, which fits; so an offset takes no operation.
 *
 * @module
 */
import { call, f32x4, i16x8, i32x4, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
} from "../../asm/assembler.ts";
import { f32PairLoads, joinPairs, type PairLoads } from "../../asm/join.ts";
import { spread } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { LINE } from "../../formats/block_panels.ts";
import type { BlockForm } from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import {
  type MatmulWasm,
  type Store,
  storeParts,
  storeTileWasm,
  sumArgs,
  TILE_COLUMNS,
  type TileVector,
} from "./wasm_epilogue.ts";
import { MOST } from "./wasm_quantise.ts";
import { TILE_ROWS, type Units, unitsOf } from "./wasm_units.ts";

/**
 * Multiplies tiles of rows x by an unpacked panel w. y, bias and gate are addresses of the panel's
 * first output; `left` is the number of the row's outputs from there.
 */
type Product = Func<Ints<"y" | "x" | "w" | "bias" | "gate" | "left" | "rows">>;
const PRODUCT = ints("y", "x", "w", "bias", "gate", "left", "rows");

/** Variables of a tile. */
interface Tile {
  readonly x: Local<Int>;
  readonly w: Local<Int>;
  /** Sums by row, then vector of outputs. */
  readonly sums: readonly Local<"v128">[];
  /** Vectors of a line of the panel. */
  readonly weights: readonly Local<"v128">[];
  /** Loads line `line` of a unit. */
  loadLine(line: number): void;
  /** Calls `body` with each row's word of a unit in all lanes, and the index of its first sum. */
  eachRow(word: number, body: (x: Local<"v128">, first: number) => void): void;
}

/** Defines the product of all rows with an unpacked panel. */
export function blockRowsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  form: BlockForm,
): Product {
  const { K, options, columns: { width }, simd } = shape;
  const units = unitsOf(form, shape);
  const columns = TILE_COLUMNS[simd];
  const places = Array.from({ length: TILE_ROWS * columns / 4 }, (_, i): TileVector => {
    const [row, column] = [Math.floor(4 * i / columns), 4 * i % columns];
    return { row, column, ofRow: 4 * (row * width + column) };
  });
  const storeAll = storeTileWasm(m, math, places, options);
  const [rowBytes, panelBytes] = [units.x.bytes, units.panelBytes].map((unit) =>
    K / units.inputs * unit
  );
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left, rows }) => {
    const { column, end } = f.locals(ints("column", "end"));
    const sums = f.array("v128", "sum", places.length);
    const loads = f32PairLoads(f, simd);
    const tile = tileOf(f, { x, w, sums }, columns, loads);
    const multiply = unitProduct(f, math, tile, units);
    f.while(rows.gtS(0), () => {
      f.for(column, 0, PANEL_COLUMNS, columns, () => {
        for (const sum of sums) sum.set(0);
        end.set(x.plus(rowBytes));
        f.while(x.lt(end), () => {
          multiply();
          x.advance(units.x.bytes);
          w.advance(units.panelBytes);
        });
        if (simd !== "128") joinPairs(f, w, sums, loads);
        const storeWhole = () => f.do(call(storeAll, { ...sumArgs(sums), y, bias, gate }));
        const isWhole = left.geS(columns).and(rows.geS(TILE_ROWS));
        f.if(
          isWhole,
          storeWhole,
          () => storeParts(f, store, places, sums, { y, bias, gate, left, rows }),
        );
        // Next columns.
        x.advance(-rowBytes);
        w.advance(4 * columns - panelBytes);
        for (const at of [y, bias, gate]) at.advance(4 * columns);
        left.advance(-columns);
      });
      // Next rows.
      x.advance(rowBytes);
      for (const at of [w, bias]) at.advance(-LINE);
      for (const at of [y, gate]) at.advance(4 * TILE_ROWS * width - LINE);
      left.advance(PANEL_COLUMNS);
      rows.advance(-TILE_ROWS);
    });
  });
}

/** The variables of a tile over an unpacked panel w and rows x side by side. */
export function tileOf(
  f: FunctionBuilder,
  { x, w, sums }: Pick<Tile, "x" | "w" | "sums">,
  columns: number,
  loads: PairLoads,
): Tile {
  const { four, one } = f.locals(vectors("four", "one"));
  const weights = f.array("v128", "weight", columns / 4);
  return {
    x,
    w,
    sums,
    weights,
    loadLine(line) {
      for (let j = 0; j < weights.length; j += 2) {
        loads.load([weights[j], weights[j + 1]], w, line * LINE + 16 * j);
      }
    },
    eachRow(word, body) {
      four.set(v128.load(x, 16 * word));
      for (let row = 0; row < TILE_ROWS; row++) {
        one.set(spread(four, row));
        body(one, row * weights.length);
      }
    },
  };
}

/** Emitter of the product of a unit, which is added to the sums. */
export function unitProduct(
  f: FunctionBuilder,
  math: Pick<VectorMath, "madd">,
  tile: Tile,
  units: Units,
): () => void {
  const { sums, weights, loadLine, eachRow } = tile;
  const { words, x: { scale, scaledSums } } = units;
  const dots = f.array("v128", "dot", sums.length);
  const multiply = units.dots === "bytes"
    ? byteDots(f, tile, units, dots)
    : wordDots(tile, units, dots);
  return () => {
    multiply();
    loadLine(words);
    eachRow(scale, (x, first) => {
      for (const [j, weight] of weights.entries()) {
        const sum = sums[first + j];
        sum.set(math.madd(f32x4.convertI32x4S(dots[first + j]), weight.times(x), sum));
      }
    });
    if (scaledSums === null) return;
    loadLine(words + 1);
    eachRow(scaledSums, (x, first) => {
      for (const [j, weight] of weights.entries()) {
        sums[first + j].set(math.madd(weight, x, sums[first + j]));
      }
    });
  };
}

/** The form "words". */
export function wordDots(
  { weights, loadLine, eachRow }: Tile,
  { words }: Units,
  dots: readonly Local<"v128">[],
): () => void {
  return () => {
    for (let word = 0; word < words; word++) {
      loadLine(word);
      eachRow(word, (x, first) => {
        for (const [j, weight] of weights.entries()) {
          const [sum, dot] = [dots[first + j], i32x4.dotI16x8S(weight, x)];
          sum.set(word === 0 ? dot : i32x4.add(sum, dot));
        }
      });
    }
  };
}

/** The form "bytes". */
function byteDots(
  f: FunctionBuilder,
  { weights, loadLine, eachRow }: Tile,
  { words, most, x: { shares } }: Units,
  dots: readonly Local<"v128">[],
): () => void {
  const halves = f.array("v128", "half", dots.length);
  /** Words whose products fit a 16-bit sum: all of them if there are shares. */
  const room = Math.floor(32767 / (2 * MOST.int8 * most!));
  const widen = (isFirst: boolean) => {
    for (const [i, half] of halves.entries()) {
      const wide = i32x4.extaddPairwiseI16x8S(half);
      dots[i].set(isFirst ? wide : i32x4.add(dots[i], wide));
    }
  };
  return () => {
    if (shares !== null) {
      eachRow(shares, (x, first) => {
        for (const j of weights.keys()) halves[first + j].set(x);
      });
    }
    for (let word = 0; word < words; word++) {
      loadLine(word);
      eachRow(word, (x, first) => {
        for (const [j, weight] of weights.entries()) {
          const half = halves[first + j];
          const dot = i16x8.relaxedDotI8x16I7x16S(x, weight);
          half.set(word % room === 0 && shares === null ? dot : i16x8.add(half, dot));
        }
      });
      if ((word + 1) % room === 0 || word + 1 === words) widen(word < room);
    }
  };
}

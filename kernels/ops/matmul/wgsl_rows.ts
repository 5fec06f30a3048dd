/**
 * WGSL matmul of many rows (prefill): tiles in workgroup memory, two buffers, outer products.
 *
 *                       tileN outputs
 *                  ┌───────┬───────┬─────────┐      for each step of `depth` inputs:
 *                  │ tile_w│       │         │      store      registers → buffer s % 2
 *                  └───────┴───────┴─────────┘      barrier
 *        ┌────────┐┌───────┬───────┬─────────┐      prefetch   next step → registers
 *        │ tile_x ││ a b … │ a b … │ a b …   │      multiply   this step, from its buffer
 *        │        ││ c d … │ c d … │ c d …   │
 *        ├────────┤├───────┼───────┼─────────┤ tileT rows     lane a: rows × outputs sums,
 *        │        ││ a b … │ a b … │ a b …   │                in vectors of four outputs
 *        └────────┘└───────┴───────┴─────────┘
 *          depth
 *
 * Both tiles are stored by input, four outputs or rows to a vector: vector b of tile_w has outputs
 * b, b + tileN/4, b + 2·tileN/4, b + 3·tileN/4, so that lanes side by side load words side by side,
 * and four words of a lane become vectors without a shuffle. A product of one input is then
 * `fma(vec4f(x), w, sum)`: four instructions for four multiply-adds, where `dot` takes five.
 *
 * @module
 */
import { linesWgsl, type Shader, workgroupArray } from "../../wgsl/shader.ts";
import { partsOf, type Tile } from "./tiles.ts";

type SharedTile = Tile & { readonly kind: "shared" };

/** Workgroup memory that every device has, in bytes. */
const LEAST_MEMORY = 16384;

/** Constants of the body. */
export interface RowsBody {
  /** Words per output. */
  readonly words: number;
  /** Inputs per word. */
  readonly inputs: number;
  /** WGSL expression: a word of zeros. */
  readonly zero: string;
}

/** Inputs of a step: as many as two buffers of both tiles leave room for, at most 16. */
export function depthOf(tile: SharedTile, most = LEAST_MEMORY): number {
  return 2 * 16 * 4 * (tile.tileN / pairOf(tile) + tile.tileT) <= most ? 16 : 8;
}

/** Inputs in a number of tile_w. */
export function pairOf({ half }: SharedTile): number {
  return half ? 2 : 1;
}

/** Steps of a tile over K. */
export function stepsOf(tile: SharedTile, { words, inputs }: Omit<RowsBody, "zero">): number {
  return Math.ceil(words * inputs / depthOf(tile));
}

/** Index expression in tile_w: vector `b` of input, or pair of inputs, `k`. */
export function tileWAt({ tileN }: SharedTile, k: string, b: string): string {
  return `(${k}) * ${tileN / 4}u + ${b}`;
}

/**
 * Index expression in tile_x: vector `r` of input 4·`g` + `i`. Lanes that write neighbouring g at
 * once would meet in one bank; the exclusive or spreads them over all.
 */
export function tileXAt(tile: SharedTile, g: string, i: number, r: string): string {
  const spread = 8 / (depthOf(tile) / 4);
  return `(4u * (${g}) + ${i}u) * ${tile.tileT / 4}u + (${r} ^ ((${g}) * ${spread}u))`;
}

/**
 * Index expressions of a lane: of a unit that it moves, `unit`, and of the sums that it keeps. A
 * unit is four words of tile_w or four vectors of tile_x.
 */
export function placesOf(tile: SharedTile, inputs: number) {
  const { tileN, tileT, outputs } = tile;
  const [ofN, ofT, groups] = [tileN / 4, tileT / 4, depthOf(tile) / 4];
  const wide = tileN / outputs;
  return {
    /** First vectors of a lane's outputs and rows. */
    column: `lane % ${wide}u`,
    row: `lane / ${wide}u`,
    w: {
      count: ofN * depthOf(tile) / inputs,
      /** Vector of outputs; output i of a unit; word of the step. */
      vector: (unit: string) => `${unit} % ${ofN}u`,
      output: (unit: string, i: number) => `${unit} % ${ofN}u + ${i * ofN}u`,
      word: (unit: string) => `${unit} / ${ofN}u`,
    },
    x: {
      count: ofT * groups,
      /** Vector of rows; row i of a unit; four inputs of the step. */
      vector: (unit: string) => `${unit} / ${groups}u`,
      row: (unit: string, i: number) => `${unit} / ${groups}u + ${i * ofT}u`,
      four: (unit: string) => `${unit} % ${groups}u`,
    },
  };
}

/** Lanes of a workgroup. */
export function rowsLanes({ tileN, tileT, outputs, rows }: SharedTile): number {
  return tileN / outputs * (tileT / rows);
}

/** Vectors of one buffer of tile_w. */
function bufferOf(tile: SharedTile): number {
  return depthOf(tile) / pairOf(tile) * tile.tileN / 4;
}

/** Two buffers of both tiles. */
export function rowsMemory(tile: SharedTile): Shader[] {
  const depth = depthOf(tile);
  return [
    workgroupArray("tile_w", tile.half ? "vec4u" : "vec4f", bufferOf(tile) * 2),
    workgroupArray("tile_x", "vec4f", 2 * depth * tile.tileT / 4),
  ];
}

/** The units of a lane in one tile: four words of tile_w, or four vectors of tile_x. */
interface Units {
  readonly name: string;
  /** Unit 0 of a lane: a permutation of the lanes. */
  readonly lane: string;
  readonly count: number;
  /** Register i of unit u; its type and zero. */
  readonly register: string;
  readonly zero: string;
  /** Place of register i of unit u outside the loop over K. */
  readonly place: (u: number, i: number) => string;
}

const FOUR = [0, 1, 2, 3];
const AXES = ["x", "y", "z", "w"];

/** Declares the units of a lane, their places and registers. */
function declareUnits(
  { name, lane, count, register, zero, place }: Units,
  lanes: number,
): string {
  return linesWgsl(Math.ceil(count / lanes), (u) =>
    [
      `let ${name}_${u} = ${lane} + ${u * lanes}u;`,
      ...FOUR.map((i) => `let ${name}_at_${u}_${i} = ${place(u, i)};`),
      ...FOUR.map((i) => `var ${register}_${u}_${i} = ${zero};`),
    ].join("\n  "));
}

/** Statements for each unit of a lane, in a block of their own. */
function linesOfUnits(
  { name, count }: Units,
  lanes: number,
  each: (u: number) => string,
): string {
  return linesWgsl(Math.ceil(count / lanes), (u) => {
    const isWhole = (u + 1) * lanes <= count;
    return `${isWhole ? "" : `if (${name}_${u} < ${count}u) `}{
    ${each(u)}
    }`;
  });
}

/** Phases that move a step: from memory to registers, and from there to a buffer. */
function moveWgsl(tile: SharedTile, { inputs, zero }: RowsBody) {
  const depth = depthOf(tile);
  const [lanes, fours, groups] = [rowsLanes(tile), inputs / 4, depth / 4];
  const places = placesOf(tile, inputs);
  const w: Units = {
    name: "w_unit",
    lane: "lane",
    count: places.w.count,
    register: "q",
    zero,
    place: (u, i) => `start_of(n + ${places.w.output(`w_unit_${u}`, i)})`,
  };
  const x: Units = {
    name: "x_unit",
    lane: `(lane ^ ${lanes / 2}u)`, // other lanes than those that load words
    count: places.x.count,
    register: "v",
    zero: "vec4f(0.0)",
    place: (u, i) => `min(t + ${places.x.row(`x_unit_${u}`, i)}, run.rows - 1u)`,
  };
  const vector = (part: (i: number) => string) => `vec4f(${FOUR.map(part).join(", ")})`;
  const loadW = (step: string) => (u: number) =>
    `let k = min(${step} * ${depth / inputs}u + ${places.w.word(`w_unit_${u}`)}, WORDS - 1u);
    ${FOUR.map((i) => `q_${u}_${i} = weight_word(w_unit_at_${u}_${i}, k);`).join("\n    ")}`;
  const loadX = (step: string) => (u: number) =>
    `let g = ${step} * ${groups}u + ${places.x.four(`x_unit_${u}`)};
    ${FOUR.map((i) => `v_${u}_${i} = load_x(x_unit_at_${u}_${i}, g);`).join("\n    ")}`;
  const storePairs = (u: number) =>
    AXES.map((axis, c) => {
      const unit = `w_unit_${u}`;
      const at = tileWAt(tile, `(${places.w.word(unit)}) * 4u + ${c}u`, places.w.vector(unit));
      return `tile_w[at_w + ${at}] = vec4u(${FOUR.map((i) => `q_${u}_${i}.${axis}`).join(", ")});`;
    }).join("\n      ");
  const storeW = (u: number) =>
    linesWgsl(fours, (p) => {
      const unit = `w_unit_${u}`;
      const k = (c: number) => `(${places.w.word(unit)}) * ${inputs}u + ${4 * p + c}u`;
      const to = (c: number) => `tile_w[at_w + ${tileWAt(tile, k(c), places.w.vector(unit))}]`;
      return `{
      ${FOUR.map((i) => `let p_${i} = weight_${p}(q_${u}_${i});`).join("\n      ")}
      ${AXES.map((axis, c) => `${to(c)} = ${vector((i) => `p_${i}.${axis}`)};`).join("\n      ")}
    }`;
    });
  const storeX = (u: number) =>
    AXES.map((axis, c) => {
      const unit = `x_unit_${u}`;
      const to = tileXAt(tile, `(${places.x.four(unit)})`, c, `(${places.x.vector(unit)})`);
      return `tile_x[at_x + ${to}] = ${vector((i) => `v_${u}_${i}.${axis}`)};`;
    }).join("\n    ");
  const both = (ofW: (u: number) => string, ofX: (u: number) => string) =>
    [
      linesOfUnits(w, lanes, ofW),
      linesOfUnits(x, lanes, ofX),
    ].join("\n    ");
  return {
    declare: `${declareUnits(w, lanes)}
  ${declareUnits(x, lanes)}`,
    load: (step: string) => both(loadW(step), loadX(step)),
    store: both(tile.half ? storePairs : storeW, storeX),
  };
}

/** Multiply-adds of a lane in one iteration at least: 8 inputs of 4 × 4 sums, 4 of more sums. */
const UNROLLED = 128;

/**
 * Phase that multiplies a step: one outer product per input. Not all of a step is unrolled: a
 * browser's software adapter takes minutes to compile it.
 */
function multiplyWgsl(tile: SharedTile): string {
  const { tileN, tileT, outputs, rows } = tile;
  const [wide, high, pair] = [tileN / outputs, tileT / rows, pairOf(tile)];
  const unroll = Math.max(1, UNROLLED / (4 * outputs * rows));
  const input = (u: number) => (i: number) => {
    const g = `(g + ${u}u)`;
    const w = (j: number) => {
      const k = `${g} * ${4 / pair}u + ${Math.floor(i / pair)}u`;
      const read = `tile_w[at_w + ${tileWAt(tile, k, `column + ${j * wide}u`)}]`;
      return `let w_${j} = ${tile.half ? `weight_${i % 2 ? "high" : "low"}(${read})` : read};`;
    };
    const x = (h: number) =>
      `let x_${h} = tile_x[at_x + ${tileXAt(tile, g, i, `(row + ${h * high}u)`)}];`;
    const product = (r: number) =>
      linesWgsl(outputs / 4, (j) => {
        const sum = `sum_${r}_${j}`;
        return `${sum} = fma(vec4f(x_${Math.floor(r / 4)}.${AXES[r % 4]}), w_${j}, ${sum});`;
      });
    return `{
      ${linesWgsl(outputs / 4, w)}
      ${linesWgsl(rows / 4, x)}
      ${linesWgsl(rows, product)}
    }`;
  };
  return `for (var g = 0u; g < ${depthOf(tile) / 4}u; g += ${unroll}u) {
    ${linesWgsl(unroll, (u) => linesWgsl(4, input(u)))}
    }`;
}

/** The body: `finish` gets each sum, or `keep` under split-K. */
export function rowsBody(tile: SharedTile, body: RowsBody): string {
  const { tileN, tileT, outputs, rows } = tile;
  const [wide, high, depth] = [tileN / outputs, tileT / rows, depthOf(tile)];
  const [parts, steps] = [partsOf(tile), stepsOf(tile, body)];
  const span = Math.ceil(steps / parts);
  const places = placesOf(tile, body.inputs);
  const { declare, load, store } = moveWgsl(tile, body);
  const each = (line: (i: number, j: number) => string) =>
    linesWgsl(rows, (i) => linesWgsl(outputs / 4, (j) => line(i, j)));
  const end = (i: number, j: number) =>
    AXES.map((axis, c) => {
      const at = `t + row + ${Math.floor(i / 4) * high + (i % 4) * tileT / 4}u, `;
      const to = `n + column + ${j * wide + c * tileN / 4}u, sum_${i}_${j}.${axis}`;
      return parts === 1 ? `finish(${at}${to}, 0.0);` : `keep(part, 0u, ${at}${to});`;
    }).join(" ");
  return /* wgsl */ `
  let tiles = (run.rows + ${tileT - 1}u) / ${tileT}u;
  if (index >= BLOCKS * ${parts}u * tiles) { return; }
  let t = (index % tiles) * ${tileT}u;
  let part = index / tiles % ${parts}u;
  let n = index / tiles / ${parts}u * ${tileN}u;
  let column = ${places.column};
  let row = ${places.row};
  let first = min(part * ${span}u, ${steps - 1}u);
  let last = min(part * ${span}u + ${span}u, ${steps}u);
  ${each((i, j) => `var sum_${i}_${j} = vec4f(0.0);`)}
  ${declare}
  ${load("first")}
  for (var s = part * ${span}u; s < last; s++) {
    let at_w = s % 2u * ${bufferOf(tile)}u;
    let at_x = s % 2u * ${depth * tileT / 4}u;
    ${store}
    workgroupBarrier(); // who still multiplies reads the other buffer
    let next = min(s + 1u, ${steps - 1}u);
    ${load("next")}
    ${multiplyWgsl(tile)}
  }
  ${each(end)}`;
}

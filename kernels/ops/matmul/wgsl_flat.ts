/**
 * WGSL matmul without workgroup memory: each lane walks all of K for its outputs and rows.
 *
 * @module
 */
import { linesWgsl } from "../../wgsl/shader.ts";
import type { Tile } from "./tiles.ts";
import { type HeadsWgsl, partnerOutput } from "./wgsl_heads.ts";
import { UP } from "./wgsl_norm.ts";

/** Inputs per iteration at least, if K allows. */
const INPUTS = 8;

/** Constants of the body. */
export interface FlatBody {
  /** Words per output. */
  readonly words: number;
  /** Inputs per word. */
  readonly inputs: number;
  /** Whether x is normed as it is read. */
  readonly normed: boolean;
  /** Whether there is a second product. */
  readonly gated: boolean;
  /** Heads that the outputs are. */
  readonly heads?: HeadsWgsl;
}

/**
 * Flat: sums are named, not indexed.
 */
export function flatBody(tile: Tile & { kind: "flat" }, body: FlatBody): string {
  const { lanes, outputs, rows } = tile;
  const { words, inputs, normed, gated, heads } = body;
  const each = (line: (i: number, j: number) => string) =>
    linesWgsl(rows, (i) => linesWgsl(outputs, (j) => line(i, j)));
  // Eight inputs per iteration: more loads in flight, and a CPU that emulates the GPU checks the
  // active lanes once for all of them.
  const most = Math.max(1, INPUTS / inputs);
  const depth = words % most === 0 ? most : 1;
  const fours = inputs / 4;
  const load = (i: number, g: string) =>
    normed ? `normed_x(t_${i}, ${g}, stats_${i})` : `load_x(t_${i}, ${g})`;
  const second = (i: number, j: number) => {
    if (gated) return `${UP}sum_${i}_${j}`;
    return heads ? `sum_${i}_${partnerOutput(heads, tile, j)}` : "0.0";
  };
  /** `part` is the call that unpacks part `p` of a word. */
  const multiply = (p: string, part: (name: string, word: string) => string) =>
    /* wgsl */ `{
    ${linesWgsl(outputs, (j) => `let w_${j} = ${part("weight_", `q_${j}`)};`)}
    ${gated ? linesWgsl(outputs, (j) => `let ${UP}w_${j} = ${part(UP, `${UP}q_${j}`)};`) : ""}
    ${linesWgsl(rows, (i) => `let x_${i} = ${load(i, `g + ${p}`)};`)}
    ${each((i, j) => `sum_${i}_${j} += dot(w_${j}, x_${i});`)}
    ${gated ? each((i, j) => `${UP}sum_${i}_${j} += dot(${UP}w_${j}, x_${i});`) : ""}
  }`;
  // The eight parts of a block are a loop: unrolled, a driver compiles for half a minute.
  const parts = fours > 2
    ? `for (var p = 0u; p < ${fours}u; p += 1u) ${
      multiply("p", (name, q) => `${name}part(${q}, p)`)
    }`
    : linesWgsl(fours, (p) => multiply(`${p}u`, (name, q) => `${name}${p}(${q})`));
  const word = (d: number) =>
    /* wgsl */ `{
    let g = (k + ${d}u) * ${fours}u;
    ${linesWgsl(outputs, (j) => `let q_${j} = weight_word(at_${j}, k + ${d}u);`)}
    ${gated ? linesWgsl(outputs, (j) => `let ${UP}q_${j} = ${UP}word(at_${j}, k + ${d}u);`) : ""}
    ${parts}
  }`;
  return /* wgsl */ `
  let tiles = (run.rows + ${rows - 1}u) / ${rows}u;
  if (index >= BLOCKS * tiles) { return; }
  let t = (index % tiles) * ${rows}u;
  let n = (index / tiles) * ${lanes * outputs}u + lane;
  ${linesWgsl(rows, (i) => `let t_${i} = min(t + ${i}u, run.rows - 1u);`)}
  ${linesWgsl(outputs, (j) => `let at_${j} = start_of(n + ${j * lanes}u);`)}
  ${normed ? linesWgsl(rows, (i) => `let stats_${i} = stats_of(t_${i});`) : ""}
  ${each((i, j) => `var sum_${i}_${j} = 0.0;`)}
  ${gated ? each((i, j) => `var ${UP}sum_${i}_${j} = 0.0;`) : ""}
  for (var k = 0u; k < WORDS; k += ${depth}u) {
  ${linesWgsl(depth, word)}
  }
  ${each((i, j) => `finish(t + ${i}u, n + ${j * lanes}u, sum_${i}_${j}, ${second(i, j)});`)}`;
}

/**
 * WGSL matmul without workgroup memory: each lane walks all of K for its outputs and rows.
 *
 * @module
 */
import { linesWgsl } from "../../wgsl/shader.ts";
import type { Tile } from "./tiles.ts";

/** Inputs per iteration at least, if K allows. */
const INPUTS = 8;

/**
 * Flat: sums are named, not indexed.
 * @param words per output.
 * @param inputs per word.
 * @param normed whether x is normed as it is read.
 */
export function flatBody(
  { lanes, outputs, rows }: Tile & { kind: "flat" },
  { words, inputs, normed }: { words: number; inputs: number; normed: boolean },
): string {
  const each = (line: (i: number, j: number) => string) =>
    linesWgsl(rows, (i) => linesWgsl(outputs, (j) => line(i, j)));
  // Eight inputs per iteration: more loads in flight, and a CPU that emulates the GPU checks the
  // active lanes once for all of them.
  const depth = words % (INPUTS / inputs) === 0 ? INPUTS / inputs : 1;
  const fours = inputs / 4;
  const load = (i: number, g: string) =>
    normed ? `normed_x(t_${i}, ${g}, stats_${i})` : `load_x(t_${i}, ${g})`;
  const multiply = (p: number) =>
    /* wgsl */ `{
    ${linesWgsl(outputs, (j) => `let w_${j} = weight_${p}(q_${j});`)}
    ${linesWgsl(rows, (i) => `let x_${i} = ${load(i, `g + ${p}u`)};`)}
    ${each((i, j) => `sum_${i}_${j} += dot(w_${j}, x_${i});`)}
  }`;
  const word = (d: number) =>
    /* wgsl */ `{
    let g = (k + ${d}u) * ${fours}u;
    ${linesWgsl(outputs, (j) => `let q_${j} = weight_word(at_${j}, k + ${d}u);`)}
    ${linesWgsl(fours, multiply)}
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
  for (var k = 0u; k < WORDS; k += ${depth}u) {
  ${linesWgsl(depth, word)}
  }
  ${each((i, j) => `finish(t + ${i}u, n + ${j * lanes}u, sum_${i}_${j});`)}`;
}

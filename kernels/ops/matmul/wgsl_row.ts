/**
 * WGSL matmul of one row (decode): words of 16 bytes, several in flight, K shared out over lanes.
 *
 *     workgroup: `outputs` × `slices` lanes; lane = slice · outputs + output
 *
 *                 word 0   1   2   3   4   5 …            load words    `depth`, before the first
 *     output 0    s0  s1  s2  s3  s0  s1 …                              is used
 *     output 1    s0  s1  s2  s3  s0  s1 …                multiply      x from the cache
 *     output 2    s0  s1  s2  s3  s0  s1 …                add slices    subgroups, then one barrier
 *
 * Words of neighbouring outputs are neighbours in memory: a slice reads `outputs` · 16 bytes in a
 * row. Everything is unrolled in the text: naga adds a counter to each loop, and drivers do not
 * unroll such loops.
 *
 * @module
 */
import { linesWgsl, type Shader, workgroupArray } from "../../wgsl/shader.ts";
import { loadsAhead, partsOf, type Tile } from "./tiles.ts";
import { type HeadsWgsl, partnerMask } from "./wgsl_heads.ts";
import { type Totals, UP } from "./wgsl_norm.ts";

type SplitTile = Tile & { readonly kind: "split" };

/** Constants of the body. */
export interface RowBody {
  /** Words per output. */
  readonly words: number;
  /** Inputs per word. */
  readonly inputs: number;
  readonly totals: Totals;
  /** Whether the device has subgroups. */
  readonly subgroups: boolean;
  /** Heads that the outputs are. */
  readonly heads?: HeadsWgsl;
  /** Whether a load is a block, of several words. */
  readonly isBlock: boolean;
}

/** Expression: a lane's output in its workgroup. */
export function outputOf(outputs: number): string {
  return `lane % ${outputs}u`;
}

/** Expression: a lane's slice, which is its first word, too. */
export function sliceOf(outputs: number): string {
  return `lane / ${outputs}u`;
}

/** Words of a row that one workgroup adds up, at most; a multiple of its slices. */
function spanOf(tile: SplitTile, words: number): number {
  return Math.ceil(words / (tile.slices * partsOf(tile))) * tile.slices;
}

/** Loads and multiplies the words of a lane: whole iterations, then the rest at once. */
function loopWgsl(tile: SplitTile, { words, inputs, totals, isBlock }: RowBody): string {
  const { slices } = tile;
  const depth = loadsAhead(tile, isBlock);
  const fours = inputs / 4;
  const span = spanOf(tile, words);
  const isEven = words % (slices * partsOf(tile)) === 0;
  const four = (d: number) => (p: number) =>
    /* wgsl */ `{
      let g = k_${d} * ${fours}u + ${isBlock ? `(${p}u ^ odd)` : `${p}u`};
      let w = weight_${p}(q_${d});
      ${totals.up ? `let ${UP}w = ${UP}${p}(${UP}q_${d});` : ""}
      let x = load_x(t, g);
      ${totals.each}
    }`;
  const names = totals.up ? ["weight_", UP] : ["weight_"];
  const q = (name: string, d: number) => `${name === UP ? UP : ""}q_${d}`;
  const place = (d: number) => `k + ${d * slices}u`;
  const load = (d: number, k: string) =>
    `let k_${d} = ${k};
    ${
      names.map((name) =>
        isBlock
          ? `let raw_${q(name, d)} = ${name}raw(start, k_${d});`
          : `let ${q(name, d)} = ${name}word(start, k_${d});`
      ).join("\n    ")
    }`;
  // Trick: lanes of odd outputs take each two fours in turned order, so that one instruction reads
  // 32 bytes of x, a whole sector, for a slice.
  const decode = (name: string, d: number) =>
    `let ${q(name, d)} = swapped(${name}block(raw_${q(name, d)}, k_${d}), odd == 1u);`;
  const add = (d: number) =>
    `${isBlock ? names.map((name) => decode(name, d)).join("\n    ") : ""}
    ${linesWgsl(fours, four(d))}`;
  const whole = /* wgsl */ `for (; ${place(depth - 1)} < last; k += ${depth * slices}u) {
    ${linesWgsl(depth, (d) => load(d, place(d)))}
    ${linesWgsl(depth, add)}
  }`;
  // The rest is loaded at once, too; a lane beyond the last word reads that word again.
  const each = span / slices;
  const rest = isEven ? each % depth : Math.min(depth - 1, each);
  const left = (d: number) => isEven ? add(d) : `if (${place(d)} < last) { ${add(d)} }`;
  return /* wgsl */ `
  ${each >= depth ? whole : ""}
  ${linesWgsl(rest, (d) => load(d, isEven ? place(d) : `min(${place(d)}, last - 1u)`))}
  ${linesWgsl(rest, left)}`;
}

/** Adds up the slices: `total_NAME` of lanes 0 … outputs − 1 is complete. */
function addSlicesWgsl(
  { outputs, slices }: SplitTile,
  { names }: Totals,
  subgroups: boolean,
): string {
  const lanes = outputs * slices;
  const each = (line: (name: string, i: number) => string) => names.map(line).join("\n  ");
  const share = (i: number, at: string) => `share_of[${i * lanes}u + ${at}]`;
  if (!subgroups) {
    const halves = Array.from({ length: Math.log2(slices) }, (_, i) => slices / 2 ** (i + 1));
    return /* wgsl */ `
  ${each((name, i) => `${share(i, "lane")} = dot(${name}, vec4f(1.0));`)}
  ${
      halves.map((half) =>
        `workgroupBarrier();
  if (slice < ${half}u) {
    ${each((_, i) => `${share(i, "lane")} += ${share(i, `lane + ${half * outputs}u`)};`)}
  }`
      ).join("\n  ")
    }
  ${each((name, i) => `let total_${name} = ${share(i, "lane")};`)}`;
  }
  // Slices of one subgroup: a shuffle from beyond it is not used.
  const masks: number[] = [];
  for (let mask = outputs; mask < Math.min(128, lanes); mask *= 2) masks.push(mask);
  const shuffled = (name: string) =>
    `var total_${name} = dot(${name}, vec4f(1.0));
  ${
      masks.map((mask) =>
        `total_${name} += select(0.0, subgroupShuffleXor(total_${name}, ${mask}u), ${mask}u < size);`
      ).join("\n  ")
    }`;
  return /* wgsl */ `
  let size = subgroupAdd(1u); // a workgroup may have fewer lanes than a subgroup
  ${each(shuffled)}
  let apart = max(size, ${outputs}u); // lanes that share their sums
  if (lane % apart < ${outputs}u) {
    let at = (lane / apart) * ${outputs}u + lane % ${outputs}u;
    ${each((name, i) => `${share(i, "at")} = total_${name};`)}
  }
  workgroupBarrier();
  ${each((name) => `total_${name} = 0.0;`)}
  if (lane < ${outputs}u) {
    // Four at once: shares beyond the last are zero, as workgroup memory begins.
    for (var i = 0u; i < ${lanes}u / apart; i += 4u) {
      let at = i * ${outputs}u + lane;
      ${
    each((name, i) =>
      [0, 1, 2, 3].map((j) => `total_${name} += ${share(i, `at + ${j * outputs}u`)};`).join(" ")
    )
  }
    }
  }`;
}

/** Memory of a workgroup's sums. */
export function rowMemory({ outputs, slices }: SplitTile, { names }: Totals): Shader {
  return workgroupArray("share_of", "f32", names.length * outputs * slices);
}

/** Ends the body: `finish` gets each output's sum, or `keep` each of its totals under split-K. */
function endWgsl(tile: SplitTile, { totals, heads }: RowBody): string {
  const { outputs } = tile;
  const all = totals.names.map(totalOf).join(", ");
  if (partsOf(tile) > 1) {
    const keep = (name: string, i: number) => `keep(part, ${i}u, t, n, ${totalOf(name)});`;
    return `if (lane < ${outputs}u) {
    ${totals.names.map(keep).join("\n    ")}
  }`;
  }
  const mask = heads ? partnerMask(heads, outputs) : 0;
  if (!mask) {
    const second = totals.up ? `up_of(${all})` : "0.0";
    return `if (lane < ${outputs}u) { finish(t, n, result_of(${all}), ${second}); }`;
  }
  return /* wgsl */ `workgroupBarrier(); // all shares are read
  if (lane < ${outputs}u) { share_of[lane] = result_of(${all}); }
  workgroupBarrier();
  if (lane < ${outputs}u) { finish(t, n, share_of[lane], share_of[lane ^ ${mask}u]); }`;
}

/** The body of a split tile. */
export function rowBody(tile: SplitTile, body: RowBody): string {
  const { outputs } = tile;
  const { totals, words, subgroups, heads } = body;
  const parts = partsOf(tile);
  const span = spanOf(tile, words);
  const last = parts === 1 ? "WORDS" : `min((part + 1u) * ${span}u, WORDS)`;
  const place = `index / run.rows / ${parts}u * ${outputs}u + ${outputOf(outputs)}`;
  return /* wgsl */ `
  if (index >= BLOCKS * ${parts}u * run.rows) { return; }
  let t = index % run.rows;
  let part = index / run.rows % ${parts}u;
  let n = ${heads && parts === 1 ? `row_at(${place})` : place};
  let start = start_of(n);
  let slice = ${sliceOf(outputs)};
  let last = ${last};
  ${body.isBlock ? "let odd = lane % 2u;" : ""}
  ${totals.before}
  ${totals.names.map((name) => `var ${name} = vec4f(0.0);`).join("\n  ")}
  var k = part * ${span}u + slice;
  ${loopWgsl(tile, body)}
  ${addSlicesWgsl(tile, totals, subgroups)}
  ${endWgsl(tile, body)}`;
}

function totalOf(name: string): string {
  return `total_${name}`;
}

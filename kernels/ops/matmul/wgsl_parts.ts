/**
 * WGSL of split-K: partial totals of a product in scratch, and the dispatch that finishes them.
 *
 *     partials [parts][totals][rows][N]     product: workgroups of each part write theirs
 *                                           finish: a lane per number adds its parts in order
 *
 * Two dispatches, because WGSL orders memory between workgroups nowhere else. The order of the sum
 * is that of the parts, so that every run has the same bits.
 *
 * @module
 */
import { linesWgsl, mainWgsl, type Shader } from "../../wgsl/shader.ts";
import type { Totals } from "./wgsl_norm.ts";

/** Lanes of a workgroup of `finish`. */
const LANES = 64;

/** Bytes of the partial totals. */
export function partialBytes(
  parts: number,
  { names }: Totals,
  [T, N]: readonly [number, number],
): number {
  return 4 * parts * names.length * T * N;
}

/** Index expression of total `i` of a part, for output `n` of row `t`. */
function partialAt(part: string, i: string, { names }: Totals): string {
  return `((${part} * ${names.length}u + ${i}) * run.rows + t) * N + n`;
}

/** Defines `keep`, which writes a partial total. Binding: 0 the partials. */
export function keepWgsl(totals: Totals): string {
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> partials: array<f32>;
fn keep(part: u32, i: u32, t: u32, row: u32, v: f32) {
  if (t >= run.rows || row >= COUNT) { return; }
  let n = FIRST + row;
  partials[${partialAt("part", "i", totals)}] = v;
}`;
}

/** Constants of the finishing shader. */
export interface PartsWgsl {
  readonly N: number;
  readonly K: number;
  readonly parts: number;
  readonly totals: Totals;
  /** Defines `store`. */
  readonly epilogue: string;
  /** Whether `store` takes the sum of an output's partner. */
  readonly paired: boolean;
}

/** Adds up the parts and stores. Bindings: 1 the partials, and those of the epilogue. */
export function finishWgsl({ N, K, parts, totals, epilogue, paired }: PartsWgsl): Shader {
  const add = (name: string, i: number) =>
    `var ${name} = 0.0;
  ${linesWgsl(parts, (p) => `${name} += partials[${partialAt(`${p}u`, `${i}u`, totals)}];`)}`;
  const sumAt = (name: string, result: string) =>
    /* wgsl */ `fn ${name}(t: u32, n: u32) -> f32 {
  ${totals.names.map(add).join("\n  ")}
  return ${result};
}`;
  const second = totals.up ? "up_at(t, n)" : paired ? "sum_at(t, partner_of(n))" : "0.0";
  const wgsl = /* wgsl */ `
const N = ${N}u;
const K = ${K}u;
@group(1) @binding(1) var<storage, read> partials: array<f32>;
${epilogue}
${sumAt("sum_at", totals.result)}
${totals.up ? sumAt("up_at", totals.up) : ""}

${mainWgsl(LANES)} {
  let i = index_of(group, grid) * ${LANES}u + lane;
  let t = i / N;
  let n = i % N;
  if (t >= run.rows) { return; }
  store(t, n, sum_at(t, n), ${second});
}
`;
  return { wgsl, workgroupBytes: 0 };
}

/** Workgroups of the finishing shader. */
export function finishGroups(N: number, rows: number): number {
  return Math.ceil(N * rows / LANES);
}

/**
 * WGSL building blocks: prelude, entry point, workgroup memory, unrolled lines, sums over lanes.
 *
 * @module
 */

/** WGSL text of a shader or a piece of one, and the workgroup memory that it declares. */
export interface Shader {
  readonly wgsl: string;
  /** Bytes of workgroup memory. Browsers enforce the device's limit, Deno does not. */
  readonly workgroupBytes: number;
}

/**
 * Text in front of every shader: the step as `run`, and `index_of`, the number of a workgroup. The
 * grid has two dimensions, because a dispatch may exceed the limit of one.
 */
export const PRELUDE = /* wgsl */ `
struct Run { rows: u32, position: u32, slot: u32, length: u32 }
@group(0) @binding(0) var<uniform> run: Run;
fn index_of(group: vec3u, grid: vec3u) -> u32 { return group.y * grid.x + group.x; }
`;

/**
 * Head of an entry point. Its body sees the workgroup's `group` in `grid` and its `lane`;
 * `index_of(group, grid)` and `run` come from `PRELUDE`.
 */
export function mainWgsl(lanes: number): string {
  return `@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
)`;
}

/** Unrolls a loop: one line for each i. */
export function linesWgsl(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join("\n  ");
}

/** Bytes per element of an array in workgroup memory; a vec3 is aligned to 16. */
const ELEMENT_BYTES = {
  "f32": 4,
  "u32": 4,
  "atomic<u32>": 4,
  "vec2u": 8,
  "vec3f": 16,
  "vec3u": 16,
  "vec4f": 16,
  "vec4u": 16,
} as const;

/** Declares an array of `count` elements in workgroup memory; `extent` is the count as WGSL. */
export function workgroupArray(
  name: string,
  type: keyof typeof ELEMENT_BYTES,
  count: number,
  extent = `${count}`,
): Shader {
  const wgsl = `var<workgroup> ${name}: array<${type}, ${extent}>;`;
  return { wgsl, workgroupBytes: ELEMENT_BYTES[type] * count };
}

/** Bytes of workgroup memory of several pieces. */
export function workgroupBytes(pieces: readonly Shader[]): number {
  return pieces.reduce((sum, piece) => sum + piece.workgroupBytes, 0);
}

/** Options of a sum over the lanes of a workgroup. */
export interface SumOverLanes {
  /** Name of the function; default `sum_over_lanes`. */
  readonly name?: string;
  /** Type of the summands; default `f32`. */
  readonly type?: "f32" | "vec3f" | "vec3u";
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
}

/**
 * Defines `sum_over_lanes`: every lane gets the sum of all lanes' values. `lanes` is a power of
 * two; all lanes of the workgroup must call it.
 *
 *     plain      halves: lane i adds lane i + half, for half = lanes/2 … 1, with a barrier each
 *     subgroups  subgroupAdd, one sum per subgroup to memory, barrier, subgroupAdd of those
 *
 * The second assumes that neighbouring lanes share a subgroup. WGSL does not promise it;
 * `tryFeatures` checks it.
 */
export function sumOverLanesWgsl(
  lanes: number,
  { name = "sum_over_lanes", type = "f32", subgroups = false }: SumOverLanes = {},
): Shader {
  const pool = `${name}_pool`;
  const memory = workgroupArray(pool, type, lanes);
  const declare = /* wgsl */ `
${memory.wgsl}
fn ${name}(lane: u32, mine: ${type}) -> ${type} {`;
  if (!subgroups) {
    const wgsl = /* wgsl */ `${declare}
  ${pool}[lane] = mine;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { ${pool}[lane] += ${pool}[lane + half]; }
  }
  return workgroupUniformLoad(&${pool}[0]);
}`;
    return { ...memory, wgsl };
  }
  const wgsl = /* wgsl */ `${declare}
  let size = subgroupAdd(1u); // a workgroup may have fewer lanes than a subgroup
  let share = subgroupAdd(mine);
  if (lane % size == 0u) { ${pool}[lane / size] = share; }
  workgroupBarrier();
  var sum = ${type}();
  for (var i = lane % size; i < ${lanes}u / size; i += size) { sum += ${pool}[i]; }
  sum = subgroupAdd(sum);
  workgroupBarrier(); // all have read before the next sum's shares are written
  return sum;
}`;
  return { ...memory, wgsl };
}

/**
 * Pieces that shaders of several operations are made of. `index_of` and `run` come from the prelude in `pipeline.ts`.
 *
 * @module
 */

/** The head of an entry point whose workgroup is `group` of `grid`, and whose invocation is `lane` of it. */
export function mainWgsl(lanes: number): string {
  return `@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
)`;
}

/** Lines that differ by a number alone: a loop that is unrolled. */
export function linesWgsl(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join("\n  ");
}

/** How a sum over the lanes of a workgroup is made. */
export interface SumOverLanes {
  /** Of the function; default `sum_over_lanes`. */
  readonly name?: string;
  /** Of what is summed; default `f32`. */
  readonly type?: "f32" | "vec3f" | "vec3u";
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
}

/**
 * `sum_over_lanes`: the sum of what each lane has, which every lane gets. `lanes` is a power of two; all of them must call it.
 *
 * By halves, with a barrier for each; or subgroup by subgroup, and then over the subgroups' sums. Neighbouring lanes are then taken to
 * be in one subgroup, which WGSL does not promise and `tryFeatures` has tried.
 */
export function sumOverLanesWgsl(
  lanes: number,
  { name = "sum_over_lanes", type = "f32", subgroups = false }: SumOverLanes = {},
): string {
  const pool = `${name}_pool`;
  const declare = /* wgsl */ `
var<workgroup> ${pool}: array<${type}, ${lanes}>;
fn ${name}(lane: u32, mine: ${type}) -> ${type} {`;
  if (!subgroups) {
    return /* wgsl */ `${declare}
  ${pool}[lane] = mine;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { ${pool}[lane] += ${pool}[lane + half]; }
  }
  return workgroupUniformLoad(&${pool}[0]);
}`;
  }
  return /* wgsl */ `${declare}
  let size = subgroupAdd(1u); // a workgroup may have fewer lanes than a subgroup
  let share = subgroupAdd(mine);
  if (lane % size == 0u) { ${pool}[lane / size] = share; }
  workgroupBarrier();
  var sum = ${type}();
  for (var i = lane % size; i < ${lanes}u / size; i += size) { sum += ${pool}[i]; }
  sum = subgroupAdd(sum);
  workgroupBarrier(); // nobody writes the next one's share before all have read
  return sum;
}`;
}

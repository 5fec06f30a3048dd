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

/** `sum_over_lanes`: the sum of what each lane has, which every lane gets. `lanes` is a power of two; all of them must call it. */
export function sumOverLanesWgsl(lanes: number): string {
  return /* wgsl */ `
var<workgroup> lane_sums: array<f32, ${lanes}>;
fn sum_over_lanes(lane: u32, mine: f32) -> f32 {
  lane_sums[lane] = mine;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { lane_sums[lane] += lane_sums[lane + half]; }
  }
  return workgroupUniformLoad(&lane_sums[0]);
}`;
}

/**
 * Trial of a device's optional features: a feature counts as present once a small computation with
 * it has given the right result.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import type { Feature, Gpu } from "./device.ts";
import type { Compiler, ShaderCall } from "./pipeline.ts";
import type { StepQueue } from "./queue.ts";
import { mainWgsl, sumOverLanesWgsl } from "../wgsl/shader.ts";

/** Lanes of the trial: more than any subgroup has. */
const LANES = 256;

/** The step that a trial runs. */
const STEP = { rows: 1, position: 0, slot: 0, length: 1 };

/** Device, queue and buffer of a trial. */
interface Trial {
  readonly gpu: Gpu;
  readonly queue: StepQueue;
  readonly compiler: Compiler;
  /** LANES words of output. */
  readonly out: GPUBuffer;
}

/** Whether a feature gives the right result; an error counts as no. */
const TRIALS: Readonly<Record<Feature, (trial: Trial) => Promise<boolean>>> = {
  "subgroups": trySubgroups,
  "timestamp-query": tryClock,
};

/** Tries the granted features; adds those that work to `gpu.features`. */
export async function tryFeatures(gpu: Gpu, queue: StepQueue, compiler: Compiler): Promise<void> {
  const out = gpu.storage(4 * LANES, "staging");
  try {
    for (const feature of gpu.granted) {
      if (await TRIALS[feature]({ gpu, queue, compiler, out })) gpu.features.add(feature);
    }
  } finally {
    gpu.free(out);
  }
}

/** Masks of the shuffles in kernels; a subgroup has at most 128 lanes. */
const MASKS = [1, 2, 4, 8, 16, 32, 64];

/**
 * Two consecutive sums over a workgroup, as kernels compute them. The numbers are small integers,
 * so the result is exact and the same in every lane. With subgroups, it also adds the error of
 * shuffles between neighbouring lanes.
 */
function sumsCall(out: GPUBuffer, subgroups: boolean): ShaderCall {
  const sum = sumOverLanesWgsl(LANES, { subgroups });
  const shuffles = subgroups ? shuffleErrorWgsl() : "let error = 0.0;";
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
${sum.wgsl}

${mainWgsl(LANES)} {
  let first = sum_over_lanes(lane, f32(lane));
  let second = sum_over_lanes(lane, f32(lane * lane % 7u) + f32(index_of(group, grid)));
  ${shuffles}
  out[lane] = first + 2.0 * second + error;
}
`;
  const operands = [{ buffer: out, written: true }];
  return { op: "trial", ...sum, wgsl, operands, groups: () => 1 };
}

/** Declares `error`: the sum over masks of what a shuffle gives, less what it should. */
function shuffleErrorWgsl(): string {
  const each = (mask: number) =>
    `error += select(0.0, abs(f32(subgroupShuffleXor(lane, ${mask}u)) - f32(lane ^ ${mask}u)), ` +
    `${mask}u < size);`;
  return `let size = subgroupAdd(1u);
  var error = 0.0;
  ${MASKS.map(each).join("\n  ")}`;
}

/** Result of `sumsCall` in every lane. */
function sumsExpected(): number {
  let sum = 0;
  for (let lane = 0; lane < LANES; lane++) sum += lane + 2 * (lane * lane % 7);
  return sum;
}

/** Browsers require `enable subgroups;` at a shader's head; Deno rejects the directive. */
async function trySubgroups(trial: Trial): Promise<boolean> {
  for (const directives of ["enable subgroups;\n", ""]) {
    trial.gpu.directives = directives;
    if (await sumsAreRight(trial)) return true;
  }
  return false;
}

async function sumsAreRight({ queue, compiler, out }: Trial): Promise<boolean> {
  return await orFalse(async () => {
    queue.run(STEP, [await compiler.prepare(sumsCall(out, true))]);
    const sums = new Float32Array((await queue.read(out, 0, 4 * LANES)).buffer);
    const expected = sumsExpected();
    return sums.every((sum) => sum === expected);
  });
}

/** Tries timestamp queries: the clock runs, and not backwards. */
async function tryClock({ gpu, queue, compiler, out }: Trial): Promise<boolean> {
  return await orFalse(async () => {
    const { QUERY_RESOLVE, COPY_SRC } = GPUBufferUsage;
    const queries = gpu.device.createQuerySet({ type: "timestamp", count: 2 });
    const clocks = gpu.buffer(16, QUERY_RESOLVE | COPY_SRC, "staging");
    try {
      const dispatch = await compiler.prepare(sumsCall(out, false));
      queue.runTimed(STEP, [dispatch], queries, clocks);
      const [begin, end] = new BigUint64Array((await queue.read(clocks, 0, 16)).buffer);
      return end > 0n && end >= begin;
    } finally {
      queries.destroy();
      gpu.free(clocks);
    }
  });
}

/** Result of `trial`; false if the device refuses it. */
async function orFalse(trial: () => Promise<boolean>): Promise<boolean> {
  try {
    return await trial();
  } catch (error) {
    if (error instanceof DeviceError || error instanceof TypeError) return false;
    throw error;
  }
}

/**
 * Features of a device are taken for there when a small piece of work that uses
 * them has come out right.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import type { Feature, Gpu } from "./device.ts";
import type { Compiler, ShaderCall } from "./pipeline.ts";
import type { StepQueue } from "./queue.ts";
import { mainWgsl, sumOverLanesWgsl } from "../wgsl/shader.ts";

/** Lanes of the trial, more than any subgroup has. */
const LANES = 256;

/** A trial takes one step. */
const STEP = { rows: 1, position: 0, slot: 0, length: 1 };

/** What a feature is tried on. */
interface Trial {
  readonly gpu: Gpu;
  readonly queue: StepQueue;
  readonly compiler: Compiler;
  /** LANES words, which any kernel may write. */
  readonly out: GPUBuffer;
}

/** Whether a feature does what it should; what goes wrong on the way means that it does not. */
const TRIALS: Readonly<Record<Feature, (trial: Trial) => Promise<boolean>>> = {
  "subgroups": trySubgroups,
  "timestamp-query": tryClock,
};

/**
 * Tries the features that a device was opened with; those that work stand in `gpu.features` then.
 */
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

/**
 * Two sums over a workgroup, one after the other, as kernels make them: exact,
 * and the same in every lane.
 */
function sumsCall(out: GPUBuffer, subgroups: boolean): ShaderCall {
  const sum = sumOverLanesWgsl(LANES, { subgroups });
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
${sum.wgsl}

${mainWgsl(LANES)} {
  let first = sum_over_lanes(lane, f32(lane));
  let second = sum_over_lanes(lane, f32(lane * lane % 7u) + f32(index_of(group, grid)));
  out[lane] = first + 2.0 * second;
}
`;
  const operands = [{ buffer: out, written: true }];
  return { op: "trial", ...sum, wgsl, operands, groups: () => 1 };
}

/** What each lane of `sumsCall` has. */
function sumsExpected(): number {
  let sum = 0;
  for (let lane = 0; lane < LANES; lane++) sum += lane + 2 * (lane * lane % 7);
  return sum;
}

/**
 * A browser wants to be told of subgroups at a shader's head; Deno knows no such
 * directive, and needs none.
 */
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

/** The clock goes, and not backwards. */
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

/** What `trial` finds; false where the device refuses it. */
async function orFalse(trial: () => Promise<boolean>): Promise<boolean> {
  try {
    return await trial();
  } catch (error) {
    if (error instanceof DeviceError || error instanceof TypeError) return false;
    throw error;
  }
}

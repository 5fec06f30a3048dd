/**
 * Roofline of a WebGPU adapter: memory bandwidth and FLOP/s, to compare kernels with.
 *
 * @module
 */
import type { ComputeHost } from "../host.ts";
import { bestMs, type DeviceLimits, type LimitMeter } from "../meter.ts";
import { type Gpu, openGpu } from "./device.ts";
import type { Dispatch } from "./dispatch.ts";
import { tryFeatures } from "./features.ts";
import { Compiler, type ShaderCall } from "./pipeline.ts";
import { StepQueue } from "./queue.ts";
import { mainWgsl } from "../wgsl/shader.ts";

/** Milliseconds of each measurement of `measureWebGpu`. */
const MEASURED_MS = 100;

/** Bytes to read: more than the caches of most GPUs, and of most processors. */
const [GPU_BYTES, SOFTWARE_BYTES] = [256 << 20, 64 << 20];

/** Most dispatches of one measurement. */
const MOST_DISPATCHES = 256;

/** Lanes of a workgroup. */
const LANES = 64;

/** Iterations of a lane's loop; lavapipe ends a loop after 65,535. */
const ITERATIONS = 2048;

/** Independent chains of multiply-adds in a lane, which hide their latency. */
const CHAINS = 8;

/** Workgroups of `multiplyCall`: enough to occupy any GPU. */
const GROUPS = 512;

/** The same for a software adapter: 5 % of a second on two cores. */
const SOFTWARE_GROUPS = 128;

/** FLOPs of one run of `multiplyCall` with `GROUPS`. */
export const LIMIT_FLOPS = 2 * 4 * CHAINS * ITERATIONS * LANES * GROUPS;

const MAIN = /* wgsl */ `
${mainWgsl(LANES)}`;

/**
 * Reads every byte of a buffer once.
 *
 * Trick: writes `out` only if the sum is 12345.678, which it never is. Without a use of the sum the
 * compiler drops the reads.
 */
export function readCall(from: GPUBuffer, out: GPUBuffer): ShaderCall {
  const vectors = Math.floor(from.size / 16);
  const perLane = 16;
  const lanes = Math.ceil(vectors / perLane);
  const reads = Array.from(
    { length: perLane },
    (_, i) => `s_${i % 4} += source[at + ${i * LANES}u];`,
  );
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
@group(1) @binding(1) var<storage, read> source: array<vec4f>;
${MAIN} {
  let at = index_of(group, grid) * ${LANES * perLane}u + lane;
  var s_0 = vec4f(0.0); var s_1 = vec4f(0.0); var s_2 = vec4f(0.0); var s_3 = vec4f(0.0);
  ${reads.join("\n  ")}
  let sum = dot(s_0 + s_1 + s_2 + s_3, vec4f(1.0));
  if (sum == 12345.678) { out[0] = sum; }
}`;
  const operands = [{ buffer: out, written: true }, { buffer: from, written: false }];
  const groups = () => Math.ceil(lanes / LANES);
  return { op: "read", wgsl, workgroupBytes: 0, operands, groups };
}

/** Multiplies and adds in registers, `LIMIT_FLOPS` in 512 groups, with the trick of `readCall`. */
export function multiplyCall(out: GPUBuffer, groups = GROUPS): ShaderCall {
  const each = (line: (i: number) => string) => Array.from({ length: CHAINS }, (_, i) => line(i));
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
${MAIN} {
  let x = vec4f(f32(lane) * 1e-6 + 0.5);
  ${each((i) => `var s_${i} = vec4f(f32(${i}u + group.x));`).join("\n  ")}
  for (var i = 0u; i < ${ITERATIONS}u; i++) {
    ${each((i) => `s_${i} = fma(s_${i}, x, x);`).join("\n    ")}
  }
  let sum = dot(${each((i) => `s_${i}`).join(" + ")}, vec4f(1.0));
  if (sum == 12345.678) { out[0] = sum; }
}`;
  const operands = [{ buffer: out, written: true }];
  return { op: "multiply", wgsl, workgroupBytes: 0, operands, groups: () => groups };
}

/** Measured and reported limits of an adapter. */
export interface WebGpuLimits {
  /** Bytes read from memory per second, from a buffer larger than caches if one binding allows. */
  readonly readBytesPerSec: number;
  /** FLOP/s in F32; a multiply-add is two. */
  readonly flopsPerSec: number;
  /** Most bytes of one binding. */
  readonly maxBindingBytes: number;
  /** Most bytes of workgroup memory. */
  readonly workgroupBytes: number;
  /** Most lanes of a workgroup. */
  readonly workgroupLanes: number;
  /** Optional features that passed their trial. */
  readonly features: readonly string[];
  /** Optional features that the adapter claims, but refused or computed wrongly. */
  readonly faulty: readonly string[];
}

/**
 * Measures the adapter that the `webgpu` backend opens, in about half a second on a GPU.
 *
 * @param host platform that provides WebGPU; default by web standards.
 * @throws {DeviceError} If there is no WebGPU or no adapter.
 * @example
 * ```ts
 * import { measureWebGpu, probeWebGpu } from "@wgslm/wgslm/kernels";
 *
 * const adapter = await probeWebGpu();
 * if (adapter && !adapter.software) {
 *   const { readBytesPerSec, maxBindingBytes } = await measureWebGpu();
 *   console.log(readBytesPerSec / 1e9, "GB/s,", maxBindingBytes, "bytes in one binding");
 * }
 * ```
 */
export async function measureWebGpu(host?: ComputeHost): Promise<WebGpuLimits> {
  await using meter = await GpuMeter.open(host);
  const { gpu } = meter;
  const { limits } = gpu.device;
  return {
    maxBindingBytes: gpu.maxBytes,
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    workgroupLanes: limits.maxComputeInvocationsPerWorkgroup,
    features: [...gpu.features],
    faulty: gpu.claimed.filter((name) => !gpu.features.has(name)),
    ...await meter.measure(MEASURED_MS),
  };
}

/** A meter of the adapter's limits, on a device of its own. */
export class GpuMeter implements LimitMeter {
  private constructor(
    readonly gpu: Gpu,
    readonly queue: StepQueue,
    /** Measure bytes read, and FLOPs, per second. */
    readonly reading: Rate,
    readonly multiplying: Rate,
  ) {}

  /**
   * Opens the adapter once more.
   * @param bytes to read on a software adapter, at most 64 MiB; a GPU reads 256 MiB.
   * @throws {DeviceError} If there is no WebGPU or no adapter, or its memory is full.
   */
  static async open(host?: ComputeHost, bytes = SOFTWARE_BYTES): Promise<GpuMeter> {
    const gpu = await openGpu({ host });
    const queue = new StepQueue(gpu);
    try {
      const compiler = new Compiler(gpu, queue);
      await tryFeatures(gpu, queue, compiler);
      const asked = gpu.software ? Math.min(bytes, SOFTWARE_BYTES) : GPU_BYTES;
      const source = gpu.storage(Math.min(Math.ceil(asked / 16) * 16, gpu.maxBytes), "staging");
      const out = gpu.storage(4, "staging");
      const groups = gpu.software ? SOFTWARE_GROUPS : GROUPS;
      const rate = async (call: ShaderCall, work: number) =>
        await openRate(queue, await compiler.prepare(call), out, work);
      return new GpuMeter(
        gpu,
        queue,
        await rate(readCall(source, out), source.size),
        await rate(multiplyCall(out, groups), LIMIT_FLOPS * groups / GROUPS),
      );
    } catch (error) {
      gpu.close();
      await queue.settle();
      throw error;
    }
  }

  async measure(ms: number): Promise<DeviceLimits> {
    return {
      readBytesPerSec: await this.reading(ms),
      flopsPerSec: await this.multiplying(ms),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gpu.close();
    await this.queue.settle();
  }
}

/** Measures work per second for `ms` milliseconds. */
type Rate = (ms: number) => Promise<number>;

/**
 * Prepares the measurement of a dispatch. A read-back takes 0.2 to 12 ms, in which a GPU reads
 * gigabytes: as many dispatches are queued before it as take four times as long, and its own time
 * is subtracted.
 */
async function openRate(
  queue: StepQueue,
  dispatch: Dispatch,
  out: GPUBuffer,
  work: number,
): Promise<Rate> {
  const batch = (count: number) => async () => {
    for (let i = 0; i < count; i++) {
      queue.run({ rows: 1, position: 0, slot: 0, length: 1 }, [dispatch]);
    }
    await queue.read(out, 0, 4);
  };
  await batch(1)(); // the first run may upload and compile
  const idleMs = await bestMs(batch(0), 0);
  let count = 1;
  while (count < MOST_DISPATCHES && await bestMs(batch(count), 0) < 5 * idleMs) count *= 2;
  return async (ms) => {
    const batchMs = await bestMs(batch(count), ms);
    return 1000 * count * work / Math.max(batchMs - idleMs, batchMs / 2);
  };
}

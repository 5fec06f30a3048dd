/**
 * What an adapter can do at best: reading, and multiplying and adding. Kernels are held against it.
 *
 * @module
 */
import type { ComputeHost } from "../host.ts";
import { openGpu } from "./device.ts";
import { tryFeatures } from "./features.ts";
import { Compiler, type ShaderCall } from "./pipeline.ts";
import { StepQueue } from "./queue.ts";
import { mainWgsl } from "../wgsl/shader.ts";

/** Lanes of a workgroup. */
const LANES = 64;

/** Turns of a lane; lavapipe ends a loop after 65,535 of them. */
const TURNS = 2048;

/** Chains of a lane that do not wait for each other. */
const CHAINS = 8;

/** Workgroups of `multiplyCall`: enough for any GPU to be full. */
const GROUPS = 512;

/** Operations of one run of `multiplyCall`. */
export const LIMIT_FLOPS = 2 * 4 * CHAINS * TURNS * LANES * GROUPS;

const MAIN = /* wgsl */ `
${mainWgsl(LANES)}`;

/**
 * Reads every byte of a buffer once; `out` is written if their sum is one number that it never is.
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

/** Multiplies and adds in registers, `LIMIT_FLOPS` in all. */
export function multiplyCall(out: GPUBuffer): ShaderCall {
  const each = (line: (i: number) => string) => Array.from({ length: CHAINS }, (_, i) => line(i));
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
${MAIN} {
  let x = vec4f(f32(lane) * 1e-6 + 0.5);
  ${each((i) => `var s_${i} = vec4f(f32(${i}u + group.x));`).join("\n  ")}
  for (var i = 0u; i < ${TURNS}u; i++) {
    ${each((i) => `s_${i} = fma(s_${i}, x, x);`).join("\n    ")}
  }
  let sum = dot(${each((i) => `s_${i}`).join(" + ")}, vec4f(1.0));
  if (sum == 12345.678) { out[0] = sum; }
}`;
  const operands = [{ buffer: out, written: true }];
  return { op: "multiply", wgsl, workgroupBytes: 0, operands, groups: () => GROUPS };
}

/** What was measured of an adapter. */
export interface WebGpuLimits {
  /**
   * Of memory, from a buffer that no cache holds, unless one binding cannot be larger than a cache.
   */
  readonly readBytesPerSec: number;
  /** Multiply-adds ×2, F32. */
  readonly flopsPerSec: number;
  /** The most bytes that a shader sees in one piece. */
  readonly maxBindingBytes: number;
  /** Bytes that the lanes of a workgroup share. */
  readonly workgroupBytes: number;
  /** Lanes that a workgroup can have. */
  readonly workgroupLanes: number;
  /** Those of the features that kernels or profiles use which were tried and work. */
  readonly features: readonly string[];
  /** Those that the adapter says it has, and which it refused or which gave a wrong answer. */
  readonly faulty: readonly string[];
}

/**
 * Measures the adapter that `openWebGpuBackend` opens; about half a second on a GPU.
 * @throws {DeviceError} when there is none.
 */
export async function measureWebGpu(host?: ComputeHost): Promise<WebGpuLimits> {
  const gpu = await openGpu({ host });
  const queue = new StepQueue(gpu);
  try {
    const compiler = new Compiler(gpu, queue);
    await tryFeatures(gpu, queue, compiler);
    const source = gpu.storage(
      Math.min(gpu.maxBytes, gpu.software ? 64 << 20 : 256 << 20),
      "staging",
    );
    const out = gpu.storage(4, "staging");
    const best = async (call: ShaderCall, work: number) => {
      const dispatch = await compiler.prepare(call);
      let perSec = 0;
      for (let i = 0; i < 5; i++) {
        const start = performance.now();
        queue.run({ rows: 1, position: 0, slot: 0, length: 1 }, [dispatch]);
        await queue.read(out, 0, 4);
        perSec = Math.max(perSec, 1000 * work / (performance.now() - start));
      }
      return perSec;
    };
    const { limits } = gpu.device;
    return {
      maxBindingBytes: gpu.maxBytes,
      workgroupBytes: limits.maxComputeWorkgroupStorageSize,
      workgroupLanes: limits.maxComputeInvocationsPerWorkgroup,
      features: [...gpu.features],
      faulty: gpu.claimed.filter((name) => !gpu.features.has(name)),
      readBytesPerSec: await best(readCall(source, out), source.size),
      flopsPerSec: await best(multiplyCall(out), LIMIT_FLOPS),
    };
  } finally {
    gpu.close();
    await queue.settle();
  }
}

/**
 * From shaders and operands to pipelines with ready bind groups, and plans of them.
 *
 * @module
 */
import type { Plan, Step } from "../backend.ts";
import { DeviceError, messageOf } from "../errors.ts";
import type { Gpu } from "./device.ts";
import type { Dispatch, StepQueue } from "./queue.ts";

/** What every shader begins with: the step, and a workgroup's number in a grid that is folded where it would be too wide. */
export const PRELUDE = /* wgsl */ `
struct Run { rows: u32, position: u32, slot: u32, length: u32 }
@group(0) @binding(0) var<uniform> run: Run;
fn index_of(group: vec3u, grid: vec3u) -> u32 { return group.y * grid.x + group.x; }
`;

/** An operand at the binding of its place; absent ones leave a gap. */
export type Operand = { readonly buffer: GPUBuffer; readonly written: boolean } | undefined;

/** A shader, what it works on, and its workgroups for a step. */
export interface Call {
  readonly op: string;
  readonly wgsl: string;
  readonly operands: readonly Operand[];
  readonly groups: (step: Step) => number;
}

/** Compiles shaders, once each. */
export class Compiler {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();

  constructor(gpu: Gpu, queue: StepQueue) {
    this.#gpu = gpu;
    this.#queue = queue;
  }

  /** A plan of calls, compiled together; `scratch` is freed with it. @throws {DeviceError} naming the operation that the device refuses. */
  async plan(calls: readonly Call[], scratch: readonly GPUBuffer[]): Promise<Plan> {
    try {
      const dispatches = await Promise.all(calls.map((call) => this.prepare(call)));
      return new WebGpuPlan(this.#gpu, this.#queue, dispatches, scratch);
    } catch (error) {
      for (const buffer of scratch) this.#gpu.free(buffer);
      throw error;
    }
  }

  /** @throws {DeviceError} naming the operation that the device refuses. */
  async prepare({ op, wgsl, operands, groups }: Call): Promise<Dispatch> {
    const { device } = this.#gpu;
    const most = device.limits.maxStorageBuffersPerShaderStage;
    const count = operands.filter((operand) => operand).length;
    if (count > most) {
      throw new DeviceError(
        `Cannot bind "${op}" on webgpu: expected at most ${most} operands, got ${count}`,
      );
    }
    const layout = this.#layoutOf(operands);
    const code = this.#gpu.directives + PRELUDE + wgsl;
    let compiling = this.#pipelines.get(code);
    if (!compiling) {
      compiling = this.#compile(op, code, layout);
      this.#pipelines.set(code, compiling);
    }
    const pipeline = await compiling;
    const entries = operands.flatMap((operand, binding) =>
      operand ? [{ binding, resource: { buffer: operand.buffer } }] : []
    );
    device.pushErrorScope("validation");
    const bound = device.createBindGroup({ label: op, layout, entries });
    const error = await device.popErrorScope();
    if (error) throw new DeviceError(`Cannot bind "${op}" on webgpu: ${error.message}`);
    return { pipeline, operands: bound, groups };
  }

  /** One layout for each pattern of operands, so that equal shaders share a pipeline. */
  #layoutOf(operands: readonly Operand[]): GPUBindGroupLayout {
    const key = operands.map((operand) => operand ? (operand.written ? "w" : "r") : "-").join("");
    let layout = this.#layouts.get(key);
    if (!layout) {
      const entries = operands.flatMap((operand, binding): GPUBindGroupLayoutEntry[] => {
        if (!operand) return [];
        const type = operand.written ? "storage" : "read-only-storage";
        return [{ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }];
      });
      layout = this.#gpu.device.createBindGroupLayout({ entries });
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  async #compile(
    op: string,
    code: string,
    layout: GPUBindGroupLayout,
  ): Promise<GPUComputePipeline> {
    const { device } = this.#gpu;
    expectWorkgroupRoom(op, code, device.limits.maxComputeWorkgroupStorageSize);
    // The scope is closed before anything is awaited: scopes are one stack for the whole device.
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: op, code });
    const compiling = device.createComputePipelineAsync({
      label: op,
      layout: device.createPipelineLayout({ bindGroupLayouts: [this.#queue.layout, layout] }),
      compute: { module, entryPoint: "main" },
    });
    const [pipeline, error] = await Promise.allSettled([compiling, device.popErrorScope()]);
    // The shader's own message says more than the pipeline's, which only says that the shader is bad.
    if (error.status === "fulfilled" && error.value) throw cannotCompile(op, error.value);
    if (pipeline.status === "rejected") throw cannotCompile(op, pipeline.reason);
    return pipeline.value;
  }
}

/** Bytes that an element of workgroup memory takes; vectors of three stand as far apart as those of four. */
const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  f32: 4,
  u32: 4,
  i32: 4,
  vec2f: 8,
  vec2u: 8,
  vec3f: 16,
  vec3u: 16,
  vec4f: 16,
  vec4u: 16,
};

/** Bytes of workgroup memory that a shader declares; NaN where that is not told by its constants. */
export function workgroupBytes(code: string): number {
  const constants = new Map(
    Array.from(code.matchAll(/^const (\w+) = ([^;]+);/gm), ([, name, value]) => [name, value]),
  );
  const valueOf = (product: string): number =>
    product.split("*").reduce((all, factor) => {
      const text = factor.trim();
      const constant = constants.get(text);
      return all * (constant === undefined ? Number(text.replace(/u$/, "")) : valueOf(constant));
    }, 1);
  let bytes = 0;
  for (const [, declared] of code.matchAll(/var<workgroup> \w+: ([^;]+);/g)) {
    const [, type, count] = /^array<(\w+), ([^>]+)>$/.exec(declared) ?? [null, declared, "1"];
    bytes += ELEMENT_BYTES[type] * valueOf(count);
  }
  return bytes;
}

/** Deno does not look after this limit, and a browser refuses the shader. @throws {DeviceError} beyond it. */
function expectWorkgroupRoom(op: string, code: string, most: number): void {
  const bytes = workgroupBytes(code);
  if (bytes <= most) return;
  throw new DeviceError(
    `Cannot compile "${op}" on webgpu: expected at most ${most} bytes of workgroup memory, got ${bytes}`,
  );
}

function cannotCompile(op: string, error: unknown): DeviceError {
  const message = (error as { message?: string }).message ?? messageOf(error);
  return new DeviceError(`Cannot compile "${op}" on webgpu: ${message.trim()}`, { cause: error });
}

class WebGpuPlan implements Plan {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #dispatches: Dispatch[];
  readonly #scratch: readonly GPUBuffer[];

  constructor(gpu: Gpu, queue: StepQueue, dispatches: Dispatch[], scratch: readonly GPUBuffer[]) {
    this.#gpu = gpu;
    this.#queue = queue;
    this.#dispatches = dispatches;
    this.#scratch = scratch;
  }

  run(step: Step): void {
    if (!this.#gpu.closed) this.#queue.run(step, this.#dispatches);
  }

  [Symbol.dispose](): void {
    this.#dispatches.length = 0;
    for (const buffer of this.#scratch) this.#gpu.free(buffer);
  }
}

/**
 * Shader compiler: from shaders and operands to pipelines with bind groups, and plans of them.
 *
 * @module
 */
import type { Plan } from "../backend.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { onlySegment, type Segment, type Step, type StepRoom } from "../step.ts";
import { PRELUDE, type Shader } from "../wgsl/shader.ts";
import type { Gpu } from "./device.ts";
import { type BoundShader, Dispatch, type Workgroups } from "./dispatch.ts";
import type { StepQueue } from "./queue.ts";

/** A buffer at a binding, or bytes of one, read-only or read-write. */
export interface Binding {
  readonly buffer: GPUBuffer;
  /** First byte; default 0. */
  readonly start?: number;
  /** Default all from there on. */
  readonly bytes?: number;
  readonly written: boolean;
  /**
   * Bytes that the shader expects in the buffer; default 0: the device checks it in each dispatch
   * (6 % of the host's time of a decode step, lavapipe).
   */
  readonly least?: number;
}

/** A shader and the buffers at its bindings. */
export interface Bindable extends Shader {
  readonly op: string;
  /** In order of bindings; undefined leaves a gap. */
  readonly operands: readonly (Binding | undefined)[];
}

/** A shader, the buffers at its bindings, and its workgroups. */
export interface ShaderCall extends Bindable, Workgroups {}

/** Layout of the operands of shaders, and of their pipelines. */
interface Layout {
  readonly operands: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
  /** The pipelines of this layout, by their text. */
  readonly compiled: Map<string, Promise<GPUComputePipeline>>;
}

/** Compiles each distinct shader once. */
export class Compiler {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #layouts = new Map<string, Layout>();

  constructor(gpu: Gpu, queue: StepQueue) {
    this.#gpu = gpu;
    this.#queue = queue;
  }

  /**
   * Compiles the shaders of a plan concurrently; `free` is called when it is disposed.
   * @throws {DeviceError} If the device refuses a shader, naming its operation.
   */
  async plan(calls: readonly ShaderCall[], room: StepRoom, free: () => void): Promise<Plan> {
    try {
      const dispatches = await Promise.all(calls.map((call) => this.prepare(call)));
      return new WebGpuPlan(this.#gpu, this.#queue, dispatches, room, free);
    } catch (error) {
      free();
      throw error;
    }
  }

  /**
   * Compiles and binds one call.
   * @throws {DeviceError} If the device refuses it, naming the operation.
   */
  async prepare(call: ShaderCall): Promise<Dispatch> {
    return new Dispatch(await this.bind(call), call);
  }

  /**
   * Compiles and binds a shader.
   * @throws {DeviceError} If the device refuses it, naming the operation.
   */
  async bind(call: Bindable): Promise<BoundShader> {
    const { op, workgroupBytes, operands } = call;
    const { device } = this.#gpu;
    const most = device.limits.maxStorageBuffersPerShaderStage;
    const count = operands.filter((operand) => operand).length;
    if (count > most) {
      throw new DeviceError(
        `Cannot bind "${op}" on webgpu: expected at most ${most} operands, got ${count}`,
      );
    }
    const layout = this.#layoutOf(operands);
    const code = this.textOf(call);
    let compiling = layout.compiled.get(code);
    if (!compiling) {
      expectWorkgroupRoom(op, workgroupBytes, device.limits.maxComputeWorkgroupStorageSize);
      compiling = this.#compile(op, code, layout.pipeline);
      layout.compiled.set(code, compiling);
    }
    const pipeline = await compiling;
    const entries = operands.flatMap((operand, binding) => {
      if (!operand) return [];
      const { buffer, start: offset, bytes: size } = operand;
      return [{ binding, resource: { buffer, offset, size } }];
    });
    device.pushErrorScope("validation");
    const bound = device.createBindGroup({ label: op, layout: layout.operands, entries });
    const error = await device.popErrorScope();
    if (error) throw new DeviceError(`Cannot bind "${op}" on webgpu: ${error.message}`);
    return { pipeline, operands: bound };
  }

  /** The text that is compiled: directives, prelude, shader. */
  textOf({ wgsl }: Shader): string {
    return this.#gpu.directives + PRELUDE + wgsl;
  }

  /** One layout per pattern of operands, so that equal shaders share a pipeline. */
  #layoutOf(operands: ShaderCall["operands"]): Layout {
    const key = operands.map((operand) => JSON.stringify([operand?.written, operand?.least]))
      .join();
    let layout = this.#layouts.get(key);
    if (!layout) {
      const entries = operands.flatMap((operand, binding): GPUBindGroupLayoutEntry[] => {
        if (!operand) return [];
        const type = operand.written ? "storage" : "read-only-storage";
        const buffer = { type, minBindingSize: operand.least ?? 0 } as const;
        return [{ binding, visibility: GPUShaderStage.COMPUTE, buffer }];
      });
      const { device } = this.#gpu;
      const group = device.createBindGroupLayout({ entries });
      const bindGroupLayouts = [this.#queue.layout, group];
      const pipeline = device.createPipelineLayout({ bindGroupLayouts });
      layout = { operands: group, pipeline, compiled: new Map() };
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  async #compile(
    op: string,
    code: string,
    layout: GPUPipelineLayout,
  ): Promise<GPUComputePipeline> {
    const { device } = this.#gpu;
    // No await before the scope is popped: scopes form one stack for the whole device.
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: op, code });
    const compiling = device.createComputePipelineAsync({
      label: op,
      layout,
      compute: { module, entryPoint: "main" },
    });
    const [pipeline, error] = await Promise.allSettled([compiling, device.popErrorScope()]);
    // The scope's message names the fault in the shader; the pipeline's only says that it is
    // invalid.
    if (error.status === "fulfilled" && error.value) throw cannotCompile(op, error.value);
    if (pipeline.status === "rejected") throw cannotCompile(op, pipeline.reason);
    return pipeline.value;
  }
}

/**
 * Browsers enforce this limit, Deno does not.
 * @throws {DeviceError} If the shader declares more than `most` bytes.
 */
function expectWorkgroupRoom(op: string, bytes: number, most: number): void {
  if (bytes <= most) return;
  throw new DeviceError(
    `Cannot compile "${op}" on webgpu: expected at most ${most} bytes of workgroup memory, ` +
      `got ${bytes}`,
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
  readonly #room: StepRoom;
  readonly #free: () => void;

  constructor(
    gpu: Gpu,
    queue: StepQueue,
    dispatches: Dispatch[],
    room: StepRoom,
    free: () => void,
  ) {
    this.#gpu = gpu;
    this.#queue = queue;
    this.#dispatches = dispatches;
    this.#room = room;
    this.#free = free;
  }

  run(step: Step | Segment): void {
    const segment = onlySegment(step, this.#room);
    if (!this.#gpu.closed) this.#queue.run(segment, this.#dispatches);
  }

  [Symbol.dispose](): void {
    this.#dispatches.length = 0;
    this.#free();
  }
}

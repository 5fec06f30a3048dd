/**
 * From the calls of a forward pass to compute pipelines with their operands bound, and their replay.
 *
 * @module
 */
import type { Plan, Recorder, Step } from "../backend.ts";
import { DeviceError, expectThat } from "../errors.ts";
import { checkMatmul } from "../matmul/mod.ts";
import { matmulWgsl, PANEL } from "../matmul/wgsl.ts";
import { checkNorm, normWgsl } from "../norm.ts";
import { checkSample } from "../sample/mod.ts";
import { sampleWgsl } from "../sample/wgsl.ts";
import type { Tensor, Weight, WeightDtype } from "../tensor.ts";
import { type Gpu, GpuTensor, messageOf } from "./device.ts";

/** What every shader begins with: the step, and a workgroup's number in a grid that is folded where it would be too wide. */
const PRELUDE = /* wgsl */ `
struct Run { rows: u32, position: u32, slot: u32, length: u32 }
@group(0) @binding(0) var<uniform> run: Run;
fn index_of(group: vec3u, grid: vec3u) -> u32 { return group.y * grid.x + group.x; }
`;

/** A weight in panels; `matmulWgsl` tells the layout. */
export class GpuWeight implements Weight {
  constructor(
    readonly shape: readonly [N: number, K: number],
    readonly dtype: WeightDtype,
    readonly buffer: GPUBuffer,
  ) {}
}

/** An operand at the binding of its place; absent ones leave a gap. */
type Operand = { readonly buffer: GPUBuffer; readonly written: boolean } | undefined;

/** A call as it was recorded. */
interface Call {
  readonly op: string;
  readonly wgsl: string;
  readonly operands: readonly Operand[];
  /** Workgroups for a number of rows. */
  readonly groups: (rows: number) => number;
}

/** A call that is ready to be replayed. */
interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly operands: GPUBindGroup;
  readonly groups: (rows: number) => number;
}

/** Compiles shaders once each, and keeps the uniform that tells them the step. */
export class Compiler {
  readonly #gpu: Gpu;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #stepLayout: GPUBindGroupLayout;
  readonly #stepBuffer: GPUBuffer;
  readonly #stepGroup: GPUBindGroup;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    const { COPY_DST, UNIFORM } = GPUBufferUsage;
    this.#stepBuffer = gpu.buffer(16, COPY_DST | UNIFORM, "staging");
    this.#stepLayout = gpu.device.createBindGroupLayout({
      entries: [{ binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } }],
    });
    this.#stepGroup = gpu.device.createBindGroup({
      layout: this.#stepLayout,
      entries: [{ binding: 0, resource: { buffer: this.#stepBuffer } }],
    });
  }

  /** @throws {DeviceError} naming the operation that the device does not take. */
  async plan(recorder: WebGpuRecorder): Promise<Plan> {
    try {
      const dispatches = await Promise.all(recorder.calls.map((call) => this.#prepare(call)));
      return new WebGpuPlan(
        this.#gpu,
        this.#stepBuffer,
        this.#stepGroup,
        dispatches,
        recorder.scratch,
      );
    } catch (error) {
      for (const buffer of recorder.scratch) this.#gpu.free(buffer);
      throw error;
    }
  }

  async #prepare({ op, wgsl, operands, groups }: Call): Promise<Dispatch> {
    const { device } = this.#gpu;
    const layout = this.#layoutOf(operands);
    let compiling = this.#pipelines.get(wgsl);
    if (!compiling) {
      compiling = this.#compile(op, wgsl, layout);
      this.#pipelines.set(wgsl, compiling);
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
    wgsl: string,
    layout: GPUBindGroupLayout,
  ): Promise<GPUComputePipeline> {
    const { device } = this.#gpu;
    // The scope is closed before anything is awaited: scopes are one stack for the whole device.
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: op, code: PRELUDE + wgsl });
    const compiling = device.createComputePipelineAsync({
      label: op,
      layout: device.createPipelineLayout({ bindGroupLayouts: [this.#stepLayout, layout] }),
      compute: { module, entryPoint: "main" },
    });
    const [pipeline, error] = await Promise.allSettled([compiling, device.popErrorScope()]);
    // The shader's own message says more than the pipeline's, which only says that the shader is bad.
    if (error.status === "fulfilled" && error.value) throw cannotCompile(op, error.value);
    if (pipeline.status === "rejected") throw cannotCompile(op, pipeline.reason);
    return pipeline.value;
  }
}

function cannotCompile(op: string, error: unknown): DeviceError {
  const message = (error as { message?: string }).message ?? messageOf(error);
  return new DeviceError(`Cannot compile "${op}" on webgpu: ${message.trim()}`, { cause: error });
}

class WebGpuPlan implements Plan {
  readonly #gpu: Gpu;
  readonly #stepBuffer: GPUBuffer;
  readonly #stepGroup: GPUBindGroup;
  readonly #dispatches: Dispatch[];
  readonly #scratch: readonly GPUBuffer[];
  readonly #step = new Uint32Array(4);
  readonly #widest: number;

  constructor(
    gpu: Gpu,
    stepBuffer: GPUBuffer,
    stepGroup: GPUBindGroup,
    dispatches: Dispatch[],
    scratch: readonly GPUBuffer[],
  ) {
    this.#gpu = gpu;
    this.#stepBuffer = stepBuffer;
    this.#stepGroup = stepGroup;
    this.#dispatches = dispatches;
    this.#scratch = scratch;
    this.#widest = gpu.device.limits.maxComputeWorkgroupsPerDimension;
  }

  run({ rows, position, slot, length }: Step): void {
    const { device } = this.#gpu;
    const step = this.#step;
    step[0] = rows;
    step[1] = position;
    step[2] = slot;
    step[3] = length;
    // One uniform serves every step: the queue puts each write between the passes that it was called between.
    device.queue.writeBuffer(this.#stepBuffer, 0, step);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setBindGroup(0, this.#stepGroup);
    for (const { pipeline, operands, groups } of this.#dispatches) {
      const count = groups(rows);
      const height = Math.ceil(count / this.#widest);
      pass.setPipeline(pipeline);
      pass.setBindGroup(1, operands);
      pass.dispatchWorkgroups(height === 0 ? 0 : Math.ceil(count / height), height);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  [Symbol.dispose](): void {
    this.#dispatches.length = 0;
    for (const buffer of this.#scratch) this.#gpu.free(buffer);
  }
}

/** Turns the calls of a forward pass into shaders and operands. */
export class WebGpuRecorder implements Recorder {
  readonly calls: Call[] = [];
  /** Buffers of the plan's own. */
  readonly scratch: GPUBuffer[] = [];
  readonly #gpu: Gpu;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  norm: Recorder["norm"] = (y, x, options) => {
    const { C } = checkNorm(y, x, options);
    const inPlace = y === x;
    const wgsl = normWgsl({ C, lanes: this.#gpu.software ? 32 : 128, inPlace, options });
    const { weight, bias } = options;
    const operands = [writes(y), inPlace ? undefined : reads(x), reads(weight), reads(bias)];
    this.#call({ op: "norm", wgsl, operands, groups: (rows) => rows });
  };

  matmul: Recorder["matmul"] = (y, x, weight, options = {}) => {
    const { N, K } = checkMatmul(y, x, weight, options);
    const tile = x.shape[0] === 1 ? 1 : 4;
    const wgsl = matmulWgsl({ N, K, dtype: weight.dtype, tile, options });
    const operands = [writes(y), reads(x), reads(weight), reads(options.bias), reads(options.gate)];
    const panels = Math.ceil(N / PANEL);
    this.#call({ op: "matmul", wgsl, operands, groups: (rows) => panels * Math.ceil(rows / tile) });
  };

  sample: Recorder["sample"] = (ids, logits, sampling) => {
    const { V, R } = checkSample(ids, logits, sampling);
    // lavapipe ends a shader's loops after 65535 rounds in all: more lanes, and each makes fewer.
    const wgsl = sampleWgsl({ V, R, lanes: this.#gpu.software ? 512 : 256 });
    const { settings, counter, seen, drawn } = sampling;
    const keys = this.#gpu.storage(4 * V, "activations");
    this.scratch.push(keys);
    const operands = [
      writes(ids),
      reads(logits),
      reads(settings),
      writes(counter),
      writes(seen),
      writes(drawn),
      { buffer: keys, written: true },
    ];
    this.#call({ op: "sample", wgsl, operands, groups: () => 1 });
  };

  embed: Recorder["embed"] = () => unsupported("embed");
  addPosition: Recorder["addPosition"] = () => unsupported("addPosition");
  writeKv: Recorder["writeKv"] = () => unsupported("writeKv");
  attention: Recorder["attention"] = () => unsupported("attention");

  #call(call: Call): void {
    const present = call.operands.filter((operand) => operand !== undefined);
    const alone = present.every((a) =>
      !a.written || present.every((b) => a === b || a.buffer !== b.buffer)
    );
    expectThat(call.op, alone, "what is written to be another tensor than the other operands");
    this.calls.push(call);
  }
}

function unsupported(op: string): never {
  throw new DeviceError(
    `Cannot record "${op}" on webgpu: it has no shader yet; choose "cpu"`,
  );
}

function reads(t: Tensor | Weight): Operand;
function reads(t: Tensor | undefined): Operand;
function reads(t: Tensor | Weight | undefined): Operand {
  return t && { buffer: bufferOf(t), written: false };
}

function writes(t: Tensor): Operand {
  return { buffer: bufferOf(t), written: true };
}

function bufferOf(t: Tensor | Weight): GPUBuffer {
  if (t instanceof GpuTensor || t instanceof GpuWeight) return t.buffer;
  throw new TypeError("Cannot record on webgpu: expected a tensor of this backend, got another's");
}

/**
 * The GPU under test: a backend with its device, single dispatches, and weights made on the device.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { type WeightDtype, wgslOf } from "../../kernels/formats/mod.ts";
import { PANEL, panelBytes } from "../../kernels/formats/wgsl.ts";
import { openWebGpuBackend, type WebGpuOptions } from "../../kernels/webgpu/backend.ts";
import { openGpu } from "../../kernels/webgpu/device.ts";
import { Compiler, type ShaderCall } from "../../kernels/webgpu/pipeline.ts";
import { StepQueue } from "../../kernels/webgpu/queue.ts";
import { GpuWeight } from "../../kernels/webgpu/weights.ts";
import { mainWgsl } from "../../kernels/wgsl/shader.ts";

const STEP = { rows: 1, position: 0, slot: 0, length: 1 };

/** A device for single shaders. */
export class Bare implements AsyncDisposable {
  private constructor(
    readonly gpu: Awaited<ReturnType<typeof openGpu>>,
    readonly queue: StepQueue,
    readonly compiler: Compiler,
  ) {}

  static async open(): Promise<Bare> {
    return Bare.#of(await openGpu());
  }

  /** Opens a device with F16 arithmetic; null if the adapter has none. */
  static async openF16(): Promise<Bare | null> {
    const feature = "shader-f16";
    if (!(await navigator.gpu.requestAdapter())?.features.has(feature)) return null;
    const platform = gpuOf((open, descriptor) =>
      open({ ...descriptor, requiredFeatures: [...descriptor?.requiredFeatures ?? [], feature] })
    );
    const gpu = await openGpu({ host: { gpu: platform } as WebGpuOptions["host"] });
    gpu.directives = "enable f16;\n";
    return Bare.#of(gpu);
  }

  static #of(gpu: Awaited<ReturnType<typeof openGpu>>): Bare {
    const queue = new StepQueue(gpu);
    return new Bare(gpu, queue, new Compiler(gpu, queue));
  }

  /** Prepares shaders; the result runs them in order, and returns host and total milliseconds. */
  async prepare(calls: readonly ShaderCall[], out: GPUBuffer) {
    const dispatches = await Promise.all(calls.map((call) => this.compiler.prepare(call)));
    return async () => {
      const start = performance.now();
      this.queue.run(STEP, dispatches);
      const host = performance.now() - start;
      await this.queue.read(out, 0, 4);
      return { host, total: performance.now() - start };
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gpu.close();
    await this.queue.settle();
  }
}

/** Lanes of the shader that fills a weight, and words of a lane. */
const [LANES, WORDS] = [64, 16];

/** Words of 32 bits from a state `s`: one F32, or two of 16 bits; deviation 0.02, as GPT-2's. */
const WORD_WGSL: Partial<Record<WeightDtype, string>> = {
  F32: "bitcast<u32>(number(next(&s)))",
  F16: "pack2x16float(vec2f(number(next(&s)), number(next(&s))))",
  BF16: "(bitcast<u32>(number(next(&s))) >> 16u) | (bitcast<u32>(number(next(&s))) & 0xffff0000u)",
};

/** Fills a weight's words by xorshift32 (Marsaglia 2003), each lane from a state of its own. */
function fillWgsl(dtype: WeightDtype): string {
  const word = WORD_WGSL[dtype];
  if (!word) throw new RangeError(`Cannot fill "${dtype}": expected F32, F16 or BF16`);
  return /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
fn next(s: ptr<function, u32>) -> u32 {
  *s ^= *s << 13u; *s ^= *s >> 17u; *s ^= *s << 5u;
  return *s;
}
fn number(bits: u32) -> f32 { return f32(bitcast<i32>(bits)) * 1.6130714e-11; }
${mainWgsl(LANES)} {
  let first = ((group.y * grid.x + group.x) * ${LANES}u + lane) * ${WORDS}u;
  var s = (first ^ 0x9e3779b9u) * 0x85ebca6bu | 1u;
  for (var i = first; i < first + ${WORDS}u; i++) {
    let word = ${word};
    if (i < arrayLength(&words)) { words[i] = word; }
  }
}`;
}

/** Makes random weights on a device, without an upload. */
class WeightMaker {
  readonly #pipelines = new Map<WeightDtype, GPUComputePipeline>();

  constructor(readonly device: GPUDevice) {}

  weight(shape: readonly [number, number], dtype: WeightDtype): GpuWeight {
    const [N, K] = shape;
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    const panel = panelBytes(wgslOf(dtype), K);
    const fit = Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / panel) * PANEL;
    const parts = [];
    for (let first = 0; first < N; first += fit) {
      const count = Math.min(fit, N - first);
      const size = Math.ceil(count / PANEL) * panel;
      const { STORAGE, COPY_SRC } = GPUBufferUsage;
      const buffer = this.device.createBuffer({ size, usage: STORAGE | COPY_SRC });
      this.#fill(buffer, dtype);
      parts.push({ first, count, buffer });
    }
    return new GpuWeight(shape, dtype, parts);
  }

  #fill(buffer: GPUBuffer, dtype: WeightDtype): void {
    const { device } = this;
    let pipeline = this.#pipelines.get(dtype);
    if (!pipeline) {
      const module = device.createShaderModule({ code: fillWgsl(dtype) });
      pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
      this.#pipelines.set(dtype, pipeline);
    }
    const entries = [{ binding: 0, resource: { buffer } }];
    const layout = pipeline.getBindGroupLayout(0);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    const groups = Math.ceil(buffer.size / (4 * LANES * WORDS));
    const height = Math.ceil(groups / device.limits.maxComputeWorkgroupsPerDimension);
    pass.dispatchWorkgroups(Math.ceil(groups / height), height);
    pass.end();
    device.queue.submit([encoder.finish()]);
  }
}

type OpenDevice = (descriptor?: GPUDeviceDescriptor) => Promise<GPUDevice>;

/** The platform's WebGPU, whose adapter opens devices by `open`. */
function gpuOf(
  open: (original: OpenDevice, descriptor?: GPUDeviceDescriptor) => Promise<GPUDevice>,
): GPU {
  return {
    async requestAdapter(wanted?: GPURequestAdapterOptions) {
      const adapter = await navigator.gpu.requestAdapter(wanted);
      if (!adapter) return null;
      const { info, features, limits } = adapter;
      const original: OpenDevice = (descriptor) => adapter.requestDevice(descriptor);
      const requestDevice = (descriptor?: GPUDeviceDescriptor) => open(original, descriptor);
      return { info, features, limits, requestDevice } as unknown as GPUAdapter;
    },
  } as unknown as GPU;
}

/** Opens the backend; its weights are random numbers made on the device, whatever `fill` gives. */
export async function openWithWeights(options: WebGpuOptions = {}): Promise<Backend> {
  let device: GPUDevice | undefined;
  const gpu = gpuOf(async (open, descriptor) => device = await open(descriptor));
  const backend = await openWebGpuBackend({ ...options, host: { gpu } as WebGpuOptions["host"] });
  const maker = new WeightMaker(device!);
  const weight: Backend["weight"] = (shape, dtype) =>
    Promise.resolve(maker.weight([shape[0], shape[1]], dtype));
  return new Proxy(backend, {
    get(target, name) {
      if (name === "weight") return weight;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

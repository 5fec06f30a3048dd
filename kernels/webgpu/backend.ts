/**
 * WebGPU backend: one compute shader per operation; a plan is a list of prepared dispatches.
 *
 *     record ── fuse ── tune tiles ── lower ── compile ──▶ Plan      once per plan
 *     run(step) ── one compute pass, one submit                      per token
 *
 * @module
 */
import type {
  Backend,
  KernelText,
  KernelTime,
  Plan,
  Recorder,
  TensorSizes,
  TensorSpec,
} from "../backend.ts";
import { recordPass, roomOf } from "../calls.ts";
import { DeviceError } from "../errors.ts";
import { fuse } from "../fuse.ts";
import type { ComputeHost } from "../host.ts";
import { type Memory, nudgeGc } from "../memory.ts";
import { addUpTexts, kernelTexts } from "../kernel_text.ts";
import { partsOf } from "../profile.ts";
import { onlySegment, type Segment, type Step } from "../step.ts";
import { BYTES, FORMATS, hostArray, type Weight, type WeightDtype } from "../formats/mod.ts";
import {
  bytesOf,
  type Dtype,
  type FillRows,
  type HostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
} from "../tensor.ts";
import { MAX_PARTIALS, MAX_PARTS } from "../ops/matmul/tiles.ts";
import { type Gpu, type GpuTensor, openGpu } from "./device.ts";
import { tryFeatures } from "./features.ts";
import { WebGpuLowering } from "./lowering.ts";
import { Compiler, type ShaderCall } from "./pipeline.ts";
import { fitsClock, profileByClock, profileByDifference } from "./profile.ts";
import { StepQueue } from "./queue.ts";
import { Tiles, type TileStore } from "./tuner.ts";
import { Uploader } from "./weights.ts";

export { probeWebGpu, type WebGpuAdapter } from "./device.ts";
export { GpuMeter, measureWebGpu, type WebGpuLimits } from "./limits.ts";
export type { TileStore } from "./tuner.ts";

/** Steps per read: an awaited read costs as much as several steps of a small model. */
const READ_AHEAD = 64;

/** Rows of a prefill chunk on a GPU. */
const PREFILL_ROWS = 512;

/** Options of `openWebGpuBackend`; defaults depend on the adapter. */
export interface WebGpuOptions {
  /** Whether to choose kernels for a software adapter (a GPU emulated by the CPU). */
  readonly software?: boolean;
  /** Whether a profile uses timestamp queries if the device has them; default true. */
  readonly clock?: boolean;
  /** Whether kernels use subgroups if the device has them; default true. */
  readonly subgroups?: boolean;
  /** Whether to choose matmul tiles by timing them, on a hardware GPU; default true. */
  readonly tune?: boolean;
  /** Where to keep those choices; default nowhere. */
  readonly store?: TileStore;
  /** Platform that provides WebGPU; default by web standards. */
  readonly host?: ComputeHost;
}

/**
 * Opens the WebGPU backend, on a software adapter, too.
 * @throws {DeviceError} If there is no WebGPU, no adapter, or the adapter refuses a device.
 */
export async function openWebGpuBackend(options: WebGpuOptions = {}): Promise<Backend> {
  const gpu = await openGpu(options);
  const queue = new StepQueue(gpu);
  const compiler = new Compiler(gpu, queue);
  await tryFeatures(gpu, queue, compiler);
  if (options.subgroups === false) gpu.features.delete("subgroups");
  return new WebGpuBackend(gpu, queue, compiler, options);
}

class WebGpuBackend implements Backend {
  readonly name = "webgpu";
  readonly onGpu = true;
  readonly threads = 1;
  readonly description: string;
  readonly software: boolean;
  /**
   * A guess: a current integrated GPU, or lavapipe on two cores. A measured figure would vary
   * between runs, and with it the bounds of the chunks and the low bits of the sums.
   */
  readonly nominalFlops: number;
  /** On a GPU, 512: at 128 rows, a product of 2048 outputs has 64 tiles for 132 cores. */
  readonly prefillRows?: number;
  readonly readAhead = READ_AHEAD;
  readonly memory: Memory;
  readonly recordFixed?: Backend["record"];
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #compiler: Compiler;
  readonly #uploader: Uploader;
  readonly #tiles: Tiles;
  /** Texts of the plans in use, keyed by the function that frees the plan. */
  readonly #plans = new Map<() => void, () => KernelText[]>();
  readonly #clock: boolean;

  constructor(gpu: Gpu, queue: StepQueue, compiler: Compiler, options: WebGpuOptions) {
    this.description = gpu.description;
    this.software = gpu.software;
    this.nominalFlops = gpu.software ? 10e9 : 1e12;
    if (!gpu.software) this.prefillRows = PREFILL_ROWS;
    this.memory = gpu.memory;
    this.#clock = options.clock ?? true;
    this.#gpu = gpu;
    this.#queue = queue;
    this.#compiler = compiler;
    this.#uploader = new Uploader(gpu, queue, compiler);
    this.#tiles = new Tiles(gpu, queue, compiler, options);
    if (this.#tiles.measured) {
      const fixed = new Tiles(gpu, queue, compiler, { tune: false });
      this.recordFixed = (build) => this.#record(build, fixed);
    }
  }

  /** Partial sums of split-K; a software adapter's tiles have none. */
  scratchBytes({ widest }: TensorSizes): number {
    return this.software ? 0 : Math.min(MAX_PARTIALS, 4 * MAX_PARTS * widest);
  }

  async expectFree(what: string, bytes: number, largest = 0): Promise<void> {
    const most = this.#gpu.maxBytes;
    if (largest > most) {
      throw new DeviceError(
        `Cannot load "${what}" on webgpu: expected no tensor of more than ${most} bytes (one ` +
          `binding), got one of ${largest}; a smaller context takes less`,
      );
    }
    // A software adapter uses the host's memory and promises more of it than is free.
    if (!this.#gpu.software) await this.#gpu.expectFree(what, bytes);
  }

  /** @throws {RangeError} If the tensor is larger than one binding. */
  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor {
    return this.#gpu.tensors([{ shape, dtype }], kind)[0];
  }

  tensorsTogether(specs: readonly TensorSpec[], kind: MemoryClass): Tensor[] {
    return this.#gpu.tensors(specs, kind);
  }

  readonly holds = (dtype: WeightDtype): boolean => FORMATS[dtype].wgsl !== null;

  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    { stored }: { readonly stored: StoredOrder },
  ): Promise<Weight> {
    this.#gpu.expectOpen();
    return await this.#uploader.weight(shape, dtype, fill, stored);
  }

  /**
   * @throws {TypeError} If `data` is not the array type of the tensor's dtype: bits are copied.
   * @throws {RangeError} If it exceeds the tensor, or starts or ends within four bytes of a 16-bit
   *   one.
   */
  write(t: Tensor, data: HostArray, offset = 0): void {
    const tensor = t as GpuTensor;
    const { buffer, dtype, shape, start } = tensor;
    const kind = hostArray(dtype, 0).constructor;
    if (data.constructor !== kind) {
      throw new TypeError(
        `Cannot write to ${dtype} [${shape}]: expected ${kind.name}, got ${data.constructor.name}`,
      );
    }
    expectInside("write to", t, offset, data.length);
    const end = offset + data.length;
    const at = offset * BYTES[dtype];
    const whole = data.byteLength % 4 === 0 || end === sizeOf(shape);
    if (at % 4 !== 0 || !whole) {
      throw new RangeError(
        `Cannot write to ${dtype} [${shape}]: expected an even start and end, ` +
          `got ${offset} … ${end}`,
      );
    }
    let bytes = bytesOf(data);
    if (bytes.length % 4 !== 0) {
      const padded = new Uint8Array(bytes.length + 2);
      padded.set(bytes);
      bytes = padded;
    }
    this.#queue.flush(); // steps queued before still see the old values
    this.#gpu.device.queue.writeBuffer(buffer, start + at, bytes);
    if (offset === 0 && data.length) tensor.first = data[0];
  }

  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    const { buffer, dtype, ...own } = t as GpuTensor;
    expectInside("read", t, start, count);
    // Copies are multiples of four bytes: a 16-bit read may start one element early.
    const size = BYTES[dtype];
    const from = Math.min(Math.floor(start * size / 4) * 4, own.bytes - 4);
    const bytes = Math.max(4, Math.ceil((start + count) * size / 4) * 4 - from);
    const data = await this.#queue.read(buffer, own.start + from, bytes);
    const into = hostArray(dtype, count);
    const skip = start * size - from;
    bytesOf(into).set(data.subarray(skip, skip + count * size));
    return into;
  }

  /** @throws {DeviceError} If a shader does not compile or bind, naming its operation. */
  async record(build: (k: Recorder) => void): Promise<Plan> {
    return await this.#record(build, this.#tiles);
  }

  async #record(build: (k: Recorder) => void, tiles: Tiles): Promise<Plan> {
    const { calls, buffers, lowered } = await this.#lower(build, tiles);
    const free = () => {
      this.#plans.delete(free);
      for (const buffer of buffers) this.#gpu.free(buffer);
    };
    const plan = await this.#compiler.plan(lowered.flat(), roomOf(calls), free);
    const codeOf = (shader: ShaderCall) => {
      const text = this.#compiler.textOf(shader);
      return { text, bytes: new TextEncoder().encode(text).length };
    };
    this.#plans.set(free, () => kernelTexts(calls, lowered, "wgsl", codeOf));
    return plan;
  }

  shaders(): KernelText[] {
    return addUpTexts([...this.#plans.values()].flatMap((texts) => texts()));
  }

  async profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]> {
    const { calls, buffers, lowered } = await this.#lower(build, this.#tiles);
    const shaders = lowered.flat();
    if (!shaders.length) return [];
    try {
      const segment = onlySegment(step, roomOf(calls));
      const dispatches = await Promise.all(shaders.map((call) => this.#compiler.prepare(call)));
      const profiled = { parts: partsOf(calls, lowered, segment), dispatches };
      if (this.#clock && fitsClock(this.#gpu, dispatches)) {
        return await profileByClock(this.#gpu, this.#queue, profiled, segment);
      }
      const written = shaders[0].operands.find((operand) => operand?.written)!;
      const settle = () => this.#queue.read(written.buffer, 0, 4);
      return await profileByDifference(this.#queue, settle, profiled, segment);
    } finally {
      for (const buffer of buffers) this.#gpu.free(buffer);
    }
  }

  /** Records and fuses the calls of a pass, and lowers each to its shaders. */
  async #lower(build: (k: Recorder) => void, tiles: Tiles) {
    this.#gpu.expectOpen();
    const { calls: recorded, discarded } = recordPass(build);
    const calls = fuse(recorded, { folds: !this.software, discarded });
    await tiles.tune(calls, () => new WebGpuLowering(this.#gpu, tiles));
    const target = new WebGpuLowering(this.#gpu, tiles);
    const { buffers } = target;
    try {
      return { calls, buffers, lowered: calls.map((call) => target.lower(call)) };
    } catch (error) {
      for (const buffer of buffers) this.#gpu.free(buffer);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gpu.close();
    await this.#queue.settle();
    nudgeGc(); // the device's host memory is freed with its object
  }
}

function expectInside(verb: string, t: Tensor, start: number, count: number): void {
  if (start < 0 || count < 0 || start + count > sizeOf(t.shape)) {
    throw new RangeError(
      `Cannot ${verb} ${t.dtype} [${t.shape}]: expected elements 0 … ${
        sizeOf(t.shape)
      }, got ${start} … ${start + count}`,
    );
  }
}

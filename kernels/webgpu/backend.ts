/**
 * The WebGPU backend: every operation a compute shader; a plan is one pass of ready dispatches, and one submit a run.
 *
 * @module
 */
import type { Backend, Plan, Recorder } from "../backend.ts";
import { DeviceError } from "../errors.ts";
import { PANEL } from "../matmul/wgsl.ts";
import type { Memory } from "../memory.ts";
import {
  BYTES,
  bytesOf,
  type Dtype,
  type FillRows,
  type HostArray,
  hostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
  type Weight,
  type WeightDtype,
} from "../tensor.ts";
import { type Gpu, GpuTensor, openGpu, tensorBytes } from "./device.ts";
import { Compiler, GpuWeight, WebGpuRecorder } from "./pipeline.ts";

/** Bytes of a file's rows that are packed at a time; uploads of 4 MiB were the fastest. */
const SCRATCH_BYTES = 4 << 20;

/**
 * Opens the WebGPU backend, on an adapter in software too.
 * @throws {DeviceError} when there is no WebGPU or no adapter.
 */
export async function openWebGpuBackend(): Promise<Backend> {
  return new WebGpuBackend(await openGpu());
}

class WebGpuBackend implements Backend {
  readonly name = "webgpu";
  readonly threads = 1;
  readonly description: string;
  /** A guess until something is timed: an integrated GPU of these years, or lavapipe on two cores. */
  readonly nominalFlops: number;
  readonly memory: Memory;
  readonly #gpu: Gpu;
  readonly #compiler: Compiler;

  constructor(gpu: Gpu) {
    this.description = gpu.description;
    this.nominalFlops = gpu.software ? 4e9 : 1e12;
    this.memory = gpu.memory;
    this.#gpu = gpu;
    this.#compiler = new Compiler(gpu);
  }

  /** @throws {RangeError} when the tensor does not fit one binding. */
  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor {
    const bytes = tensorBytes(shape, dtype);
    this.#gpu.expectRoom(`tensor ${dtype} [${shape}]`, bytes);
    return new GpuTensor(shape, dtype, this.#gpu.storage(bytes, kind));
  }

  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    { stored }: { readonly stored: StoredOrder },
  ): Promise<Weight> {
    const [N, K] = shape;
    const bytes = Math.ceil(N / PANEL) * panelSize(K) * BYTES[dtype];
    const what = `weight ${dtype} [${shape}]`;
    this.#gpu.expectRoom(what, bytes);
    this.#gpu.device.pushErrorScope("out-of-memory");
    const buffer = this.#gpu.storage(bytes, "weights");
    try {
      if (await this.#gpu.device.popErrorScope()) {
        throw new DeviceError(
          `Cannot make "${what}" on webgpu: out of memory for ${bytes} bytes; choose a smaller dtype, or "cpu"`,
        );
      }
      const upload = (at: number, packed: HostArray) =>
        this.#gpu.device.queue.writeBuffer(buffer, at * BYTES[dtype], bytesOf(packed));
      await (stored === "NK" ? packNK : packKN)(shape, dtype, fill, upload);
    } catch (error) {
      this.#gpu.free(buffer);
      throw error;
    }
    return new GpuWeight(shape, dtype, buffer);
  }

  /**
   * @throws {TypeError} when `data` is of another dtype: bits are copied, not numbers.
   * @throws {RangeError} past the end, or where a 16-bit tensor would be cut within four bytes.
   */
  write(t: Tensor, data: HostArray, offset = 0): void {
    const { buffer, dtype, shape } = t as GpuTensor;
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
        `Cannot write to ${dtype} [${shape}]: expected an even start and end, got ${offset} … ${end}`,
      );
    }
    let bytes = bytesOf(data);
    if (bytes.length % 4 !== 0) {
      const padded = new Uint8Array(bytes.length + 2);
      padded.set(bytes);
      bytes = padded;
    }
    this.#gpu.device.queue.writeBuffer(buffer, at, bytes);
  }

  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    const { buffer, dtype } = t as GpuTensor;
    expectInside("read", t, start, count);
    this.#gpu.throwQueued();
    // Copies go by four bytes; a 16-bit tensor is read from the element before, if need be.
    const size = BYTES[dtype];
    const from = Math.min(Math.floor(start * size / 4) * 4, buffer.size - 4);
    const bytes = Math.max(4, Math.ceil((start + count) * size / 4) * 4 - from);
    const { COPY_DST, MAP_READ } = GPUBufferUsage;
    const staging = this.#gpu.buffer(bytes, COPY_DST | MAP_READ, "staging");
    try {
      const encoder = this.#gpu.device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, from, staging, 0, bytes);
      this.#gpu.device.queue.submit([encoder.finish()]);
      const cause = await staging.mapAsync(GPUMapMode.READ).then(() => undefined, (e: Error) => e);
      // The queue's own error says more than that the map failed because of it; news of a lost device comes a task later.
      if (cause) await new Promise((resolve) => setTimeout(resolve));
      this.#gpu.throwQueued();
      if (cause) {
        throw new DeviceError(`Cannot read ${dtype} [${t.shape}] on webgpu: ${cause.message}`, {
          cause,
        });
      }
      const into = hostArray(dtype, count);
      const skip = start * size - from;
      bytesOf(into).set(new Uint8Array(staging.getMappedRange(), skip, count * size));
      return into;
    } finally {
      this.#gpu.free(staging);
    }
  }

  /** @throws {DeviceError} naming the operation that has no shader here, or whose shader does not compile. */
  async record(build: (k: Recorder) => void): Promise<Plan> {
    const recorder = new WebGpuRecorder(this.#gpu);
    try {
      build(recorder);
    } catch (error) {
      for (const buffer of recorder.scratch) this.#gpu.free(buffer);
      throw error;
    }
    return await this.#compiler.plan(recorder);
  }

  // deno-lint-ignore require-await -- a promise by contract; destroying does not wait
  async [Symbol.asyncDispose](): Promise<void> {
    this.#gpu.close();
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

/** Elements of a panel: PANEL rows of K, which is filled up to groups of four. */
function panelSize(K: number): number {
  return PANEL * 4 * Math.ceil(K / 4);
}

type Pack = (
  shape: readonly [N: number, K: number],
  dtype: WeightDtype,
  fill: FillRows,
  upload: (at: number, packed: HostArray) => void,
) => Promise<void>;

/** Rows of outputs: some panels at a time. */
const packNK: Pack = async ([N, K], dtype, fill, upload) => {
  const size = panelSize(K);
  const most = Math.max(1, Math.floor(SCRATCH_BYTES / BYTES[dtype] / size)) * PANEL;
  const step = Math.min(most, Math.ceil(N / PANEL) * PANEL);
  const rows = hostArray(dtype, Math.min(step, N) * K) as Float32Array | Uint16Array;
  const packed = hostArray(dtype, step / PANEL * size);
  for (let n = 0; n < N; n += step) {
    const count = Math.min(step, N - n);
    await fill(n, count, rows.subarray(0, count * K));
    packed.fill(0);
    for (let i = 0; i < count; i++) {
      const to = Math.floor(i / PANEL) * size + (i % PANEL) * 4;
      for (let k = 0; k < K; k++) packed[to + (k >> 2) * PANEL * 4 + (k & 3)] = rows[i * K + k];
    }
    upload(n / PANEL * size, packed.subarray(0, Math.ceil(count / PANEL) * size));
  }
};

/** Rows of inputs: a stretch of K of every panel at a time. */
const packKN: Pack = async ([N, K], dtype, fill, upload) => {
  const size = panelSize(K);
  const most = Math.max(4, Math.floor(SCRATCH_BYTES / BYTES[dtype] / N / 4) * 4);
  const step = Math.min(most, Math.ceil(K / 4) * 4);
  const rows = hostArray(dtype, Math.min(step, K) * N) as Float32Array | Uint16Array;
  const packed = hostArray(dtype, panelSize(step));
  for (let k = 0; k < K; k += step) {
    const count = Math.min(step, K - k);
    await fill(k, count, rows.subarray(0, count * N));
    for (let n = 0; n < N; n += PANEL) {
      const lanes = Math.min(PANEL, N - n);
      packed.fill(0);
      for (let i = 0; i < count; i++) {
        const to = (i >> 2) * PANEL * 4 + (i & 3);
        for (let lane = 0; lane < lanes; lane++) packed[to + lane * 4] = rows[i * N + n + lane];
      }
      upload(n / PANEL * size + k * PANEL, packed.subarray(0, panelSize(count)));
    }
  }
};

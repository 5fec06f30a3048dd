/**
 * The adapter, its device and the buffers on it: limits, errors, counted bytes.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import { Memory } from "../memory.ts";
import { BYTES, type Dtype, type MemoryClass, sizeOf, type Tensor } from "../tensor.ts";

/** Limits that are not raised unless they are asked for. */
const LIMITS = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** A tensor in one buffer; a 16-bit one of odd size has two bytes to spare, for copies go by four. */
export class GpuTensor implements Tensor {
  constructor(
    readonly shape: readonly number[],
    readonly dtype: Dtype,
    readonly buffer: GPUBuffer,
  ) {}
}

/** Bytes that a tensor's buffer has. */
export function tensorBytes(shape: readonly number[], dtype: Dtype): number {
  return Math.max(4, Math.ceil(sizeOf(shape) * BYTES[dtype] / 4) * 4);
}

/** A device whose buffers are counted and whose errors wait for the next read. */
export class Gpu {
  readonly memory = new Memory();
  readonly #buffers = new Map<GPUBuffer, MemoryClass>();
  #error?: DeviceError;
  #lost = false;
  #closed = false;

  constructor(
    readonly device: GPUDevice,
    readonly description: string,
    /** Whether the processor plays the GPU: barriers are dear there, and a workgroup runs on one thread. */
    readonly software: boolean,
  ) {
    // Without a listener, what goes wrong in queued work is silent.
    device.addEventListener("uncapturederror", (event) => {
      this.#error ??= new DeviceError(
        `Cannot finish queued work on webgpu: ${(event as GPUUncapturedErrorEvent).error.message}`,
      );
    });
    device.lost.then(({ reason, message }) => {
      this.#lost = true;
      this.#error = new DeviceError(
        `Cannot reach the device of webgpu: lost (${reason}: ${message}); open the backend again, or choose "cpu"`,
      );
    });
  }

  /** Bytes that one buffer can have and still be bound whole. */
  get maxBytes(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    return Math.min(maxStorageBufferBindingSize, maxBufferSize);
  }

  /** @throws {RangeError} when `bytes` are more than one binding takes. */
  expectRoom(what: string, bytes: number): void {
    if (bytes > this.maxBytes) {
      throw new RangeError(
        `Cannot make "${what}" on webgpu: expected at most ${this.maxBytes} bytes in one binding, got ${bytes}`,
      );
    }
  }

  /** A zeroed buffer, counted until it is freed. `bytes` is a multiple of 4. */
  buffer(bytes: number, usage: GPUBufferUsageFlags, kind: MemoryClass): GPUBuffer {
    const buffer = this.device.createBuffer({ size: bytes, usage, label: kind });
    this.#buffers.set(buffer, kind);
    this.memory.add(kind, bytes);
    return buffer;
  }

  /** A buffer that shaders read and write, and that can be copied both ways. */
  storage(bytes: number, kind: MemoryClass): GPUBuffer {
    const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
    return this.buffer(bytes, STORAGE | COPY_DST | COPY_SRC, kind);
  }

  /** Frees a buffer; once only, whoever asks. The work that was queued before still finds it. */
  free(buffer: GPUBuffer): void {
    const kind = this.#buffers.get(buffer);
    if (kind === undefined) return;
    this.#buffers.delete(buffer);
    this.memory.add(kind, -buffer.size);
    buffer.destroy();
  }

  /** @throws {DeviceError} what went wrong in the queue since the last call; a lost device stays lost. */
  throwQueued(): void {
    if (this.#closed) {
      throw new DeviceError("Cannot use webgpu: expected an open backend, got one disposed");
    }
    const error = this.#error;
    if (!this.#lost) this.#error = undefined;
    if (error) throw error;
  }

  /** Frees every buffer and the device. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const buffer of [...this.#buffers.keys()]) this.free(buffer);
    this.device.destroy();
  }
}

/**
 * Opens the adapter that the platform prefers, with all that it can hold. A software adapter counts: it was asked for by name.
 * @throws {DeviceError} when there is none.
 */
export async function openGpu(): Promise<Gpu> {
  if (!globalThis.navigator?.gpu) {
    throw new DeviceError(
      'Cannot open "webgpu": expected navigator.gpu, got none; use Deno 2.9 or a browser that has WebGPU, or choose "cpu"',
    );
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DeviceError(
      'Cannot open "webgpu": expected an adapter, got none; install a Vulkan driver (mesa-vulkan-drivers has one in ' +
        'software), or choose "cpu"',
    );
  }
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  const { info } = adapter;
  const name = info.description || [info.vendor, info.architecture, info.device].join(" ").trim() ||
    "unnamed adapter";
  const software = info.isFallbackAdapter || /llvmpipe|swiftshader|basic render/i.test(name);
  try {
    const device = await adapter.requestDevice({ requiredLimits });
    return new Gpu(device, software ? `${name}, in software` : name, software);
  } catch (cause) {
    throw new DeviceError(`Cannot open "webgpu" on ${name}: ${messageOf(cause)}; choose "cpu"`, {
      cause,
    });
  }
}

/** What an error says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * The adapter, its device and the buffers on it: limits, errors, counted bytes.
 *
 * @module
 */
import { DeviceError, messageOf } from "../errors.ts";
import { type ComputeHost, WEB_HOST } from "../host.ts";
import { Memory } from "../memory.ts";
import { BYTES } from "../formats/mod.ts";
import { type Dtype, type MemoryClass, sizeOf, type Tensor } from "../tensor.ts";

/**
 * Features that something here has a use for; nothing depends on them. Deno grants
 * "subgroups" and does not list it.
 */
const FEATURES = ["subgroups", "timestamp-query"] as const;

/** A feature that a device may have. */
export type Feature = typeof FEATURES[number];

/**
 * Limits that are not raised unless they are asked for. Those of a kernel (operands, workgroup
 * memory, lanes) stay where every device has them: what runs here then runs anywhere.
 */
const LIMITS = ["maxStorageBufferBindingSize", "maxBufferSize"] as const;

/**
 * A tensor in one buffer; a 16-bit one of odd size has two bytes to spare, for copies go by four.
 */
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
  /** The granted features that were tried and do what they should: `tryFeatures` puts them here. */
  readonly features = new Set<Feature>();
  /** What every shader begins with, before all declarations. */
  directives = "";
  readonly #buffers = new Map<GPUBuffer, MemoryClass>();
  /** Sends what was queued; buffers may not go before. */
  #beforeFree: () => void = () => {};
  #error?: DeviceError;
  #lost = false;
  #closed = false;

  constructor(
    readonly device: GPUDevice,
    readonly description: string,
    /**
     * Whether the processor plays the GPU: barriers are dear there, and a
     * workgroup runs on one thread.
     */
    readonly software: boolean,
    /** Features that the device was opened with. */
    readonly granted: readonly Feature[],
    /** Features that the adapter says it has, whether or not it granted them. */
    readonly claimed: readonly Feature[],
  ) {
    // Without a listener, what goes wrong in queued work is silent.
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      const advice = error instanceof GPUOutOfMemoryError
        ? '; choose a smaller dtype or context, or "cpu"'
        : "";
      this.#error ??= new DeviceError(
        `Cannot finish queued work on webgpu: ${error.message.trim()}${advice}`,
      );
    });
    device.lost.then(({ reason, message }) => {
      this.#lost = true;
      this.#error = new DeviceError(
        `Cannot reach the device of webgpu: lost (${reason}: ${message}); ` +
          `open the backend again, or choose "cpu"`,
      );
    });
  }

  /** Bytes that one buffer can have and still be bound whole. */
  get maxBytes(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    return Math.min(maxStorageBufferBindingSize, maxBufferSize);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** `work` is done before any buffer is freed. */
  beforeFree(work: () => void): void {
    this.#beforeFree = work;
  }

  /** @throws {RangeError} when `bytes` are more than one binding takes. */
  expectRoom(what: string, bytes: number): void {
    if (bytes > this.maxBytes) {
      throw new RangeError(
        `Cannot make "${what}" on webgpu: expected at most ${this.maxBytes} bytes in one ` +
          `binding, got ${bytes}`,
      );
    }
  }

  /**
   * Tries whether the device has that many bytes left, by taking them and giving them back. WebGPU
   * tells of no limit for all buffers together, so there is no other way to know.
   * @throws {DeviceError} with the bytes that there are.
   */
  async expectFree(what: string, bytes: number): Promise<void> {
    const taken: GPUBuffer[] = [];
    let left = bytes;
    try {
      while (left > 0) {
        const size = Math.ceil(Math.min(left, this.maxBytes) / 4) * 4;
        this.device.pushErrorScope("out-of-memory");
        taken.push(this.buffer(size, GPUBufferUsage.STORAGE, "staging"));
        if (await this.device.popErrorScope()) {
          throw new DeviceError(
            `Cannot load "${what}" on webgpu: expected at most ${
              bytes - left
            } bytes (what the device has free), got ${bytes}; choose a smaller dtype or context, or "cpu"`,
          );
        }
        left -= size;
      }
    } finally {
      for (const buffer of taken) this.free(buffer);
    }
  }

  /** A zeroed buffer, counted until it is freed. `bytes` is a multiple of 4. */
  buffer(
    bytes: number,
    usage: GPUBufferUsageFlags,
    kind: MemoryClass,
    mappedAtCreation = false,
  ): GPUBuffer {
    const buffer = this.device.createBuffer({ size: bytes, usage, label: kind, mappedAtCreation });
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
    this.#beforeFree();
    this.#buffers.delete(buffer);
    this.memory.add(kind, -buffer.size);
    buffer.destroy();
  }

  /**
   * @throws {DeviceError} what went wrong in the queue since the last call;
   * a lost device stays lost.
   */
  throwQueued(): void {
    this.expectOpen();
    const error = this.#error;
    if (!this.#lost) this.#error = undefined;
    if (error) throw error;
  }

  /** @throws {DeviceError} after dispose. */
  expectOpen(): void {
    if (this.#closed) {
      throw new DeviceError("Cannot use webgpu: expected an open backend, got one disposed");
    }
  }

  /** Frees every buffer and the device. */
  close(): void {
    if (this.#closed) return;
    for (const buffer of [...this.#buffers.keys()]) this.free(buffer);
    this.#closed = true;
    this.device.destroy();
  }
}

/** What there is to run on, without opening it. */
export interface WebGpuAdapter {
  /** The adapter's name. */
  readonly description: string;
  /** Whether the processor plays the GPU; `auto` takes no such adapter. */
  readonly software: boolean;
}

/** The adapter that `openWebGpuBackend` would open; null when there is no WebGPU or no adapter. */
export async function probeWebGpu(host: ComputeHost = WEB_HOST): Promise<WebGpuAdapter | null> {
  const adapter = await requestAdapter(host);
  return adapter && describe(adapter);
}

/**
 * The adapter that the platform prefers. Whatever it throws instead of giving one
 * means that there is none.
 */
async function requestAdapter({ gpu }: ComputeHost): Promise<GPUAdapter | null> {
  try {
    return await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? null;
  } catch {
    return null;
  }
}

function describe({ info }: GPUAdapter): WebGpuAdapter {
  const name = info.description || [info.vendor, info.architecture, info.device].join(" ").trim() ||
    "unnamed adapter";
  const software = info.isFallbackAdapter ||
    /llvmpipe|lavapipe|softpipe|swiftshader|basic render|warp/i.test(name);
  return { description: software ? `${name}, in software` : name, software };
}

/**
 * Opens the adapter that the platform prefers, with all that it can hold. A software adapter
 * counts: it was asked for by name. Kernels are chosen for a GPU or for a processor as `software`
 * says, or as the adapter is.
 * @throws {DeviceError} when there is none.
 */
export async function openGpu(
  { software: asSoftware, host = WEB_HOST }: { software?: boolean; host?: ComputeHost } = {},
): Promise<Gpu> {
  if (!host.gpu) {
    throw new DeviceError(
      'Cannot open "webgpu": expected navigator.gpu, got none; ' +
        'use Deno 2.9 or a browser that has WebGPU, or choose "cpu"',
    );
  }
  let cause: unknown;
  // All features, then without each, then none. An adapter that refused is spent.
  const without = FEATURES.map((left) => FEATURES.filter((name) => name !== left));
  for (const features of [FEATURES, ...without, []]) {
    const adapter = await requestAdapter(host);
    if (!adapter) {
      throw new DeviceError(
        'Cannot open "webgpu": expected an adapter, got none; ' +
          "install a Vulkan driver (mesa-vulkan-drivers has one in " +
          'software), or choose "cpu"',
      );
    }
    const { description, software } = describe(adapter);
    const listed = FEATURES.filter((name) => adapter.features.has(name));
    const asked = features.filter((name) => name === "subgroups" || listed.includes(name));
    try {
      const device = await adapter.requestDevice({
        requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
        requiredFeatures: asked,
      });
      const claimed = FEATURES.filter((name) => listed.includes(name) || asked.includes(name));
      return new Gpu(device, description, asSoftware ?? software, asked, claimed);
    } catch (error) {
      cause = new DeviceError(
        `Cannot open "webgpu" on ${description}: ${messageOf(error)}; choose "cpu"`,
        { cause: error },
      );
    }
  }
  throw cause;
}

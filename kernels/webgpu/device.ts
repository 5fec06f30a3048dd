/**
 * WebGPU adapter, device and buffers: limits, errors, tracked bytes.
 *
 * @module
 */
import type { TensorSpec } from "../backend.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { type ComputeHost, WEB_HOST } from "../host.ts";
import { Memory } from "../memory.ts";
import { BYTES } from "../formats/mod.ts";
import { type Dtype, type MemoryClass, sizeOf, type Tensor } from "../tensor.ts";

/** Optional features that kernels or profiles use. Deno grants "subgroups" without listing it. */
const FEATURES = ["subgroups", "timestamp-query"] as const;

/** Lanes of a subgroup at least, by the specification of WebGPU. */
const SMALLEST_SUBGROUP = 4;

/** An optional feature of a device. */
export type Feature = typeof FEATURES[number];

/**
 * Limits requested at the adapter's maximum: WebGPU grants the default unless asked. Limits of a
 * kernel (bindings, workgroup memory, lanes) stay at the default, which every device has, so that a
 * kernel that runs here runs anywhere.
 */
const LIMITS = ["maxStorageBufferBindingSize", "maxBufferSize"] as const;

/** Bytes of the largest element of an array in a kernel, a vector of four. */
const ELEMENT_BYTES = 16;

/** Bytes between tensors of one buffer: every device accepts bindings at multiples of 256. */
const TENSOR_ALIGNMENT = 256;

/** A tensor in a buffer, padded to 16 bytes, so that a kernel may read vectors of four. */
export class GpuTensor implements Tensor {
  /** First number that the host wrote; see `GpuTarget.firstOf`. */
  first = 0;

  constructor(
    readonly shape: readonly number[],
    readonly dtype: Dtype,
    readonly buffer: GPUBuffer,
    /** Its first byte in the buffer, and its bytes with padding. */
    readonly start = 0,
    readonly bytes = buffer.size,
    /** Bytes that shaders expect of it: an element of their array; 0 if unknown. */
    readonly least = Math.min(ELEMENT_BYTES, bytes),
  ) {}
}

/** Bytes of a tensor's buffer. */
export function tensorBytes(shape: readonly number[], dtype: Dtype): number {
  const elements = Math.ceil(sizeOf(shape) * BYTES[dtype] / ELEMENT_BYTES);
  return ELEMENT_BYTES * Math.max(1, elements);
}

/** A device that counts its buffers and keeps asynchronous errors for the next read. */
export class Gpu {
  readonly memory = new Memory();
  /** Granted features that passed their trial; filled by `tryFeatures`. */
  readonly features = new Set<Feature>();
  /** WGSL directives in front of every shader. */
  directives = "";
  readonly #buffers = new Map<GPUBuffer, MemoryClass>();
  /** Submits queued work, which may use a buffer about to be freed. */
  #beforeFree: () => void = () => {};
  #error?: DeviceError;
  #lost = false;
  #closed = false;

  constructor(
    readonly device: GPUDevice,
    readonly description: string,
    /**
     * Whether the CPU emulates the GPU: barriers are expensive, and a workgroup runs on one thread.
     */
    readonly software: boolean,
    /** Features that the device was opened with. */
    readonly granted: readonly Feature[],
    /** Features that the adapter claims, granted or not. */
    readonly claimed: readonly Feature[],
    /** Lanes of the smallest subgroup that a driver may choose, if the device has subgroups. */
    readonly smallestSubgroup: number,
  ) {
    // Without a listener, errors of queued work are silent.
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      const advice = error instanceof GPUOutOfMemoryError
        ? '; choose a smaller dtype or context, or "cpu"'
        : "";
      this.#error ??= new DeviceError(
        `Cannot finish queued work on webgpu: ${error.message.trim()}${advice}`,
        { cause: error },
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

  /** Most bytes of a buffer that one binding can hold. */
  get maxBytes(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    return Math.min(maxStorageBufferBindingSize, maxBufferSize);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sets the work to do before any buffer is freed. */
  beforeFree(work: () => void): void {
    this.#beforeFree = work;
  }

  /** @throws {RangeError} If `bytes` exceed one binding. */
  expectRoom(what: string, bytes: number): void {
    if (bytes > this.maxBytes) {
      throw new RangeError(
        `Cannot make "${what}" on webgpu: expected at most ${this.maxBytes} bytes in one ` +
          `binding, got ${bytes}`,
      );
    }
  }

  /**
   * Checks for free memory by allocating it and freeing it again: WebGPU reports no limit for all
   * buffers together.
   * @throws {DeviceError} If the allocation fails, with the number of free bytes.
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
            } bytes (free on the device), got ${bytes}; ` +
              'choose a smaller dtype or context, or "cpu"',
          );
        }
        left -= size;
      }
    } finally {
      for (const buffer of taken) this.free(buffer);
    }
  }

  /** Allocates a zeroed buffer and counts it until it is freed. `bytes` is a multiple of 4. */
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

  /** Allocates a buffer that shaders read and write, and that can be copied both ways. */
  storage(bytes: number, kind: MemoryClass): GPUBuffer {
    const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
    return this.buffer(bytes, STORAGE | COPY_DST | COPY_SRC, kind);
  }

  /**
   * Allocates a tensor for each of `specs`, in one buffer if it can hold them.
   * @throws {RangeError} If one of them exceeds one binding.
   */
  tensors(specs: readonly TensorSpec[], kind: MemoryClass): GpuTensor[] {
    const sizes = specs.map(({ shape, dtype }) => tensorBytes(shape, dtype));
    const starts: number[] = [];
    let end = 0;
    for (const [i, { shape, dtype }] of specs.entries()) {
      this.expectRoom(`tensor ${dtype} [${shape}]`, sizes[i]);
      starts.push(Math.ceil(end / TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT);
      end = starts[i] + sizes[i];
    }
    const shared = end > 0 && end <= this.maxBytes ? this.storage(end, kind) : undefined;
    return specs.map(({ shape, dtype }, i) =>
      shared
        ? new GpuTensor(shape, dtype, shared, starts[i], sizes[i])
        : new GpuTensor(shape, dtype, this.storage(sizes[i], kind))
    );
  }

  /** Frees a buffer, after submitting queued work that may use it. A second call does nothing. */
  free(buffer: GPUBuffer): void {
    const kind = this.#buffers.get(buffer);
    if (kind === undefined) return;
    this.#beforeFree();
    this.#buffers.delete(buffer);
    this.memory.add(kind, -buffer.size);
    buffer.destroy();
  }

  /**
   * @throws {DeviceError} The first error of queued work since the last call; a lost device stays
   *   lost.
   */
  throwQueued(): void {
    this.expectOpen();
    const error = this.#error;
    if (!this.#lost) this.#error = undefined;
    if (error) throw error;
  }

  /** @throws {DeviceError} If the backend is disposed. */
  expectOpen(): void {
    if (this.#closed) {
      throw new DeviceError(
        "Cannot use webgpu: expected an open backend, got a disposed one; open it again",
      );
    }
  }

  /** Frees all buffers and the device. */
  close(): void {
    if (this.#closed) return;
    for (const buffer of [...this.#buffers.keys()]) this.free(buffer);
    this.#closed = true;
    this.device.destroy();
  }
}

/** A WebGPU adapter, described without opening it. */
export interface WebGpuAdapter {
  /** Name of the adapter. */
  readonly description: string;
  /** Whether the CPU emulates the GPU; `auto` never takes such an adapter. */
  readonly software: boolean;
}

/**
 * Describes the adapter that the `webgpu` backend would open, without opening it.
 *
 * @param host platform that provides WebGPU; default by web standards.
 * @returns null if there is no WebGPU or no adapter.
 * @example
 * ```ts
 * import { probeWebGpu } from "@wgslm/wgslm/kernels";
 *
 * const adapter = await probeWebGpu();
 * console.log(adapter ? adapter.description : "no WebGPU");
 * ```
 */
export async function probeWebGpu(host: ComputeHost = WEB_HOST): Promise<WebGpuAdapter | null> {
  const adapter = await requestAdapter(host);
  return adapter && describe(adapter);
}

/** The adapter that the platform prefers; null if requesting it throws. */
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
 * Opens the adapter that the platform prefers, at its maximum buffer size. It may be a software
 * adapter: the caller asked for WebGPU by name. `software` overrides whether kernels are chosen for
 * one.
 * @throws {DeviceError} If there is no adapter, or it refuses a device.
 */
export async function openGpu(
  { software: asSoftware, host = WEB_HOST }: { software?: boolean; host?: ComputeHost } = {},
): Promise<Gpu> {
  if (!host.gpu) {
    throw new DeviceError(
      'Cannot open "webgpu": expected navigator.gpu, got none; ' +
        'use Deno 2.9, a browser that has WebGPU, or Node with the package "webgpu", ' +
        'or choose "cpu"',
    );
  }
  let cause: unknown;
  // Tries all features, then each subset without one, then none. An adapter that refused a device
  // cannot be asked again.
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
      const least = adapter.info.subgroupMinSize ?? SMALLEST_SUBGROUP;
      return new Gpu(device, description, asSoftware ?? software, asked, claimed, least);
    } catch (error) {
      cause = new DeviceError(
        `Cannot open "webgpu" on ${description}: ${messageOf(error)}; choose "cpu"`,
        { cause: error },
      );
    }
  }
  throw cause;
}

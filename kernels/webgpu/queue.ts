/**
 * Steps on their way to the device, and bytes on their way back.
 *
 * Steps that are queued one after the other, without anything awaited between them, share one
 * submit. Nothing is made here while tokens flow, but the command encoder that WebGPU asks for.
 *
 * @module
 */
import type { Chunk } from "../formats/mod.ts";
import type { Segment } from "../step.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { nextTask } from "../next_task.ts";
import type { Gpu } from "./device.ts";

/** Steps that share a submit at most. */
const SLOTS = 64;

/**
 * Bytes from one step's numbers to the next one's: what a dynamic offset must be a
 * multiple of, on every device.
 */
const SLOT_BYTES = 256;

/** Staging buffers of at most so many bytes are kept for the next read. */
const KEPT_BYTES = 1 << 20;

/** A call that is ready to be replayed: with a step, or with a chunk of a weight. */
export interface Dispatch<Run = Segment> {
  readonly pipeline: GPUComputePipeline;
  readonly operands: GPUBindGroup;
  readonly groups: (run: Run) => number;
}

/** The device's queue, with the steps that were not sent yet. */
export class StepQueue {
  /** Of group 0: the step. */
  readonly layout: GPUBindGroupLayout;
  readonly #gpu: Gpu;
  readonly #widest: number;
  readonly #uniform: GPUBuffer;
  readonly #group: GPUBindGroup;
  readonly #steps = new Uint32Array(SLOTS * SLOT_BYTES / 4);
  readonly #offset = new Uint32Array(1);
  readonly #idle: GPUBuffer[] = [];
  /** Maps whose promise has yet to come; Deno takes its time with it. */
  readonly #maps = new Set<Promise<unknown>>();
  #count = 0;
  #encoder?: GPUCommandEncoder;
  #pass?: GPUComputePassEncoder;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#widest = gpu.device.limits.maxComputeWorkgroupsPerDimension;
    const { COPY_DST, UNIFORM } = GPUBufferUsage;
    this.#uniform = gpu.buffer(SLOTS * SLOT_BYTES, COPY_DST | UNIFORM, "staging");
    this.layout = gpu.device.createBindGroupLayout({
      entries: [{
        binding: 0,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: 16 },
      }],
    });
    this.#group = gpu.device.createBindGroup({
      layout: this.layout,
      entries: [{ binding: 0, resource: { buffer: this.#uniform, size: 16 } }],
    });
    gpu.beforeFree(this.flush);
  }

  /** Queues a step; it is sent with those beside it as soon as the caller awaits anything. */
  run(step: Segment, dispatches: readonly Dispatch[]): void {
    const pass = this.#open();
    this.#placeStep(step);
    pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
    for (const dispatch of dispatches) this.#encode(pass, dispatch, dispatch.groups(step));
  }

  /** Queues the packing of a chunk, as `run` queues a step. */
  pack(chunk: Chunk, dispatch: Dispatch<Chunk>): void {
    const pass = this.#open();
    this.#place(chunk.row, chunk.rows, 0, 0);
    pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
    this.#encode(pass, dispatch, dispatch.groups(chunk));
  }

  /**
   * Runs a step whose every dispatch has a pass of its own, and writes the device's clock at the
   * beginning and the end of each to `clocks`, two U64 a dispatch.
   */
  runTimed(
    step: Segment,
    dispatches: readonly Dispatch[],
    queries: GPUQuerySet,
    clocks: GPUBuffer,
  ): void {
    this.flush();
    const encoder = this.#encoder = this.#gpu.device.createCommandEncoder();
    this.#placeStep(step);
    for (const [i, dispatch] of dispatches.entries()) {
      const pass = encoder.beginComputePass({
        timestampWrites: {
          querySet: queries,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        },
      });
      pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
      this.#encode(pass, dispatch, dispatch.groups(step));
      pass.end();
    }
    encoder.resolveQuerySet(queries, 0, 2 * dispatches.length, clocks, 0);
    this.flush();
  }

  /** Sends what is queued. */
  readonly flush = (): void => {
    if (this.#encoder) this.#send(this.#encoder);
  };

  /**
   * Copies `bytes` of a buffer back, when all that was queued is done; both
   * numbers are multiples of 4.
   */
  async read(buffer: GPUBuffer, from: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#gpu.throwQueued();
    // at once, so that the copy goes with the steps before it
    const staging = this.#takeStaging(bytes);
    if (staging instanceof Error) {
      await nextTask();
      this.#gpu.throwQueued();
      throw cannotRead(staging);
    }
    const encoder = this.#encoder ?? this.#gpu.device.createCommandEncoder();
    this.#pass?.end();
    this.#pass = undefined;
    encoder.copyBufferToBuffer(buffer, from, staging, 0, bytes);
    this.#send(encoder);
    const mapping = staging.mapAsync(GPUMapMode.READ);
    let cause: unknown;
    const settled = mapping.catch((error) => void (cause = error));
    this.#maps.add(settled);
    settled.then(() => this.#maps.delete(settled));
    let data = mappedNow(staging, bytes);
    if (!data) {
      await settled;
      data = mappedNow(staging, bytes);
    }
    this.#giveBack(staging, data !== undefined);
    // The queue's own error says more than that the map failed because of
    // it, and comes a task later.
    await nextTask();
    this.#gpu.throwQueued();
    if (!data) throw cannotRead(cause);
    return data;
  }

  /** Waits until every map's promise has come. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#maps]);
  }

  #placeStep({ rows, position, slot, length }: Segment): void {
    this.#place(rows, position, slot, length);
  }

  /**
   * Puts four numbers where the next dispatches read them, in their shaders' own terms;
   * `#offset` tells them where.
   */
  #place(a: number, b: number, c: number, d: number): void {
    const at = this.#count++ * SLOT_BYTES;
    const numbers = this.#steps;
    numbers[at / 4] = a;
    numbers[at / 4 + 1] = b;
    numbers[at / 4 + 2] = c;
    numbers[at / 4 + 3] = d;
    this.#offset[0] = at;
  }

  #encode(
    pass: GPUComputePassEncoder,
    { pipeline, operands }: Pick<Dispatch, "pipeline" | "operands">,
    count: number,
  ): void {
    if (count === 0) return;
    const height = Math.ceil(count / this.#widest);
    pass.setPipeline(pipeline);
    pass.setBindGroup(1, operands);
    pass.dispatchWorkgroups(Math.ceil(count / height), height);
  }

  /** The pass that is queued, with room for four more numbers. */
  #open(): GPUComputePassEncoder {
    if (this.#count === SLOTS) this.flush();
    return this.#pass ??= this.#begin();
  }

  #begin(): GPUComputePassEncoder {
    queueMicrotask(this.flush);
    this.#encoder = this.#gpu.device.createCommandEncoder();
    return this.#encoder.beginComputePass();
  }

  #send(encoder: GPUCommandEncoder): void {
    this.#pass?.end();
    const count = this.#count;
    this.#pass = this.#encoder = undefined;
    this.#count = 0;
    if (this.#gpu.closed) return;
    const { queue } = this.#gpu.device;
    if (count) queue.writeBuffer(this.#uniform, 0, this.#steps, 0, count * SLOT_BYTES / 4);
    queue.submit([encoder.finish()]);
  }

  /**
   * A buffer to copy to; or why there is none: the device is lost, or has no memory left, and its
   * own error comes a task later.
   */
  #takeStaging(bytes: number): GPUBuffer | Error {
    const i = this.#idle.findIndex((buffer) => buffer.size >= bytes);
    if (i >= 0) return this.#idle.splice(i, 1)[0];
    const { COPY_DST, MAP_READ } = GPUBufferUsage;
    const size = bytes > KEPT_BYTES ? bytes : Math.max(4096, 2 ** Math.ceil(Math.log2(bytes)));
    // Mapped once before its first use: Deno ends the process when a range is asked of
    // a buffer that never was.
    const staging = this.#gpu.buffer(size, COPY_DST | MAP_READ, "staging", true);
    try {
      staging.unmap();
    } catch (cause) {
      this.#gpu.free(staging);
      return cause as Error;
    }
    return staging;
  }

  #giveBack(staging: GPUBuffer, healthy: boolean): void {
    if (!healthy || staging.size > KEPT_BYTES) return this.#gpu.free(staging);
    staging.unmap();
    this.#idle.push(staging);
  }
}

function cannotRead(cause: unknown): DeviceError {
  return new DeviceError(`Cannot read from webgpu: ${messageOf(cause)}`, { cause });
}

/**
 * A copy of a buffer that was asked to be mapped, if it is there already. Deno's `mapAsync` waits
 * for the device before it returns, and brings the promise ten milliseconds later; everywhere else
 * a range that is asked for too early is an exception.
 */
function mappedNow(staging: GPUBuffer, bytes: number): Uint8Array<ArrayBuffer> | undefined {
  try {
    return new Uint8Array(staging.getMappedRange(0, bytes)).slice();
  } catch {
    return undefined;
  }
}

/**
 * Step queue of a WebGPU device: batches dispatches into submits, reads results back.
 *
 *     uniform buffer, a ring of 64 slots of 256 bytes; a dynamic offset selects the slot of a step
 *
 *     ┌ 0 ──────────────────────────────────┬ 256 ────┬ 512 ────┬ … ┬ 16128 ──┐
 *     │ rows │ position │ slot │ length │ – │ step 1  │ step 2  │   │ step 63 │
 *     └─────────────────────────────────────┴─────────┴─────────┴───┴─────────┘
 *
 * A step that does not find its numbers in the next slot writes them, and to the slots after it
 * those of the steps that would follow, each later by its rows. A decode writes the ring once per
 * 64 steps, in place of once per submit.
 *
 * Steps queued without an await between them are a batch. On a GPU, the first step is sent as the
 * second one is queued, so that the device computes while the host encodes the others; then four
 * at a time, since a submit costs the host as much as 30 dispatches:
 *
 *     host     │ 1 │ 2 3 4 5 │ 6 7 8 9 │ …  read
 *     device        │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 …
 *
 * On a software adapter a batch is one submit: lavapipe's waits for the one before it.
 *
 * A submit allocates a command encoder and a pass, which WebGPU requires; a step allocates nothing.
 *
 * @module
 */
import type { Chunk } from "../formats/mod.ts";
import type { Segment } from "../step.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { nextTask } from "../next_task.ts";
import type { Gpu } from "./device.ts";
import type { BoundShader, Dispatch } from "./dispatch.ts";

/** Most steps of one submit. */
const SLOTS = 64;

/** Steps of a submit to a GPU, after the first step of a batch. */
const STEPS_AHEAD = 4;

/** Bytes of a slot: every device accepts dynamic offsets in multiples of 256. */
const SLOT_BYTES = 256;

/** Staging buffers up to this many bytes are reused by later reads. */
const KEPT_BYTES = 1 << 20;

/** The device's queue, and the steps not yet submitted. */
export class StepQueue {
  /** Layout of bind group 0: the step. */
  readonly layout: GPUBindGroupLayout;
  readonly #gpu: Gpu;
  /** Most workgroups in one dimension of a dispatch. */
  readonly #maxWidth: number;
  readonly #uniform: GPUBuffer;
  readonly #group: GPUBindGroup;
  /** The slots on the host, as drawn above. */
  readonly #steps = new Uint32Array(SLOTS * SLOT_BYTES / 4);
  /** Byte of the last written slot, as `setBindGroup` takes it without allocating. */
  readonly #offset = new Uint32Array(1);
  /** Staging buffers for the next reads. */
  readonly #idle: GPUBuffer[] = [];
  /** Pending promises of `mapAsync`; Deno resolves them late. */
  readonly #maps = new Set<Promise<unknown>>();
  /** Slot of the next step. */
  #next = 0;
  /** First slot that the device does not have; SLOTS if none. */
  #changed = SLOTS;
  /** Slots used by the open submit. */
  #count = 0;
  /** Most steps of a batch's first submit, and of its others. */
  readonly #first: number;
  readonly #others: number;
  /** Most steps of the open submit. */
  #most: number;
  #encoder?: GPUCommandEncoder;
  #pass?: GPUComputePassEncoder;
  /** Pipeline and bind group that the pass has. */
  #pipeline?: GPUComputePipeline;
  #operands?: GPUBindGroup;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#maxWidth = gpu.device.limits.maxComputeWorkgroupsPerDimension;
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
    [this.#first, this.#others] = gpu.software ? [SLOTS, SLOTS] : [1, STEPS_AHEAD];
    this.#most = this.#first;
    gpu.beforeFree(this.flush);
  }

  /** Queues a step. It is submitted, with its neighbours, once the caller awaits anything. */
  run(step: Segment, dispatches: readonly Dispatch[]): void {
    if (this.#count >= this.#most) {
      this.#submit();
      this.#most = this.#others;
    }
    const pass = this.#open();
    this.#putStep(step);
    pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
    // By index, and the count in a field: with for … of and a result, a step took 3 % longer.
    for (let i = 0; i < dispatches.length; i++) {
      const dispatch = dispatches[i];
      dispatch.fit(step);
      this.#encode(pass, dispatch, dispatch.count);
    }
  }

  /** Queues the packing of a chunk of a weight by `count` workgroups. */
  pack(chunk: Chunk, shader: BoundShader, count: number): void {
    const pass = this.#open();
    this.#put(chunk.row, chunk.rows, 0, 0);
    pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
    this.#encode(pass, shader, count);
  }

  /**
   * Runs a step with one compute pass per dispatch, and writes the device's clock at the begin and
   * end of each to `clocks`: [dispatches, 2] U64.
   */
  runTimed(
    step: Segment,
    dispatches: readonly Dispatch[],
    queries: GPUQuerySet,
    clocks: GPUBuffer,
  ): void {
    this.flush();
    const encoder = this.#encoder = this.#gpu.device.createCommandEncoder();
    this.#putStep(step);
    for (const [i, dispatch] of dispatches.entries()) {
      const pass = this.#beginPass(encoder, {
        timestampWrites: {
          querySet: queries,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        },
      });
      pass.setBindGroup(0, this.#group, this.#offset, 0, 1);
      dispatch.fit(step);
      this.#encode(pass, dispatch, dispatch.count);
      pass.end();
    }
    encoder.resolveQuerySet(queries, 0, 2 * dispatches.length, clocks, 0);
    this.flush();
  }

  /** Submits the queued steps, and ends their batch. */
  readonly flush = (): void => {
    this.#submit();
    this.#most = this.#first;
  };

  /** Reads `bytes` bytes of a buffer after all queued steps; `from` and `bytes` divide by 4. */
  async read(buffer: GPUBuffer, from: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#gpu.throwQueued();
    // no await before: the copy joins the submit of the steps before it
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
    this.#most = this.#first;
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
    this.#recycle(staging, data !== undefined);
    // The queue's error explains a failed map better than the map's, and arrives one task later.
    await nextTask();
    this.#gpu.throwQueued();
    if (!data) throw cannotRead(cause);
    return data;
  }

  /** Waits for all pending promises of `mapAsync`. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#maps]);
  }

  #putStep({ rows, position, slot, length }: Segment): void {
    this.#put(rows, position, slot, length);
  }

  /** Sets `#offset` to the next slot, with these numbers in it. */
  #put(rows: number, b: number, c: number, d: number): void {
    const [slot, steps] = [this.#next, this.#steps];
    const at = slot * SLOT_BYTES / 4;
    const free = SLOTS - this.#count++;
    this.#offset[0] = slot * SLOT_BYTES;
    this.#next = (slot + 1) % SLOTS;
    const predicted = steps[at] === rows && steps[at + 1] === b && steps[at + 2] === c &&
      steps[at + 3] === d;
    if (predicted) return;
    // The open submit may use slots after this one: it began before the end of the ring.
    for (let i = 0; i < free && slot + i < SLOTS; i++) {
      const to = (slot + i) * SLOT_BYTES / 4;
      const later = i * rows;
      steps[to] = rows;
      steps[to + 1] = b + later;
      steps[to + 2] = c + later;
      steps[to + 3] = d + later;
    }
    this.#changed = Math.min(this.#changed, slot);
  }

  /** Sends the slots that the device does not have. */
  #sendSlots(): void {
    if (this.#changed === SLOTS) return;
    const from = this.#changed * SLOT_BYTES;
    this.#gpu.device.queue.writeBuffer(this.#uniform, from, this.#steps, from / 4);
    this.#changed = SLOTS;
  }

  #encode(pass: GPUComputePassEncoder, shader: BoundShader, count: number): void {
    if (count === 0) return;
    const { pipeline, operands } = shader;
    if (pipeline !== this.#pipeline) pass.setPipeline(this.#pipeline = pipeline);
    if (operands !== this.#operands) pass.setBindGroup(1, this.#operands = operands);
    if (count <= this.#maxWidth) return pass.dispatchWorkgroups(count);
    const height = Math.ceil(count / this.#maxWidth);
    pass.dispatchWorkgroups(Math.ceil(count / height), height);
  }

  /** The open compute pass, with a free slot. */
  #open(): GPUComputePassEncoder {
    if (this.#count === SLOTS) this.#submit();
    return this.#pass ??= this.#begin();
  }

  #begin(): GPUComputePassEncoder {
    queueMicrotask(this.flush);
    this.#encoder = this.#gpu.device.createCommandEncoder();
    return this.#beginPass(this.#encoder);
  }

  /** Begins a pass, which has no pipeline and no operands yet. */
  #beginPass(
    encoder: GPUCommandEncoder,
    descriptor?: GPUComputePassDescriptor,
  ): GPUComputePassEncoder {
    this.#pipeline = this.#operands = undefined;
    return encoder.beginComputePass(descriptor);
  }

  #submit(): void {
    if (this.#encoder) this.#send(this.#encoder);
  }

  #send(encoder: GPUCommandEncoder): void {
    this.#pass?.end();
    this.#pass = this.#encoder = undefined;
    this.#count = 0;
    if (this.#gpu.closed) return;
    this.#sendSlots();
    this.#gpu.device.queue.submit([encoder.finish()]);
  }

  /**
   * A staging buffer; or an error, if the device is lost or out of memory. The device's error event
   * follows one task later.
   */
  #takeStaging(bytes: number): GPUBuffer | Error {
    const i = this.#idle.findIndex((buffer) => buffer.size >= bytes);
    if (i >= 0) return this.#idle.splice(i, 1)[0];
    const { COPY_DST, MAP_READ } = GPUBufferUsage;
    const size = bytes > KEPT_BYTES ? bytes : Math.max(4096, 2 ** Math.ceil(Math.log2(bytes)));
    // Trick: created mapped, then unmapped. Deno exits when `getMappedRange` is called on a buffer
    // that was never mapped.
    const staging = this.#gpu.buffer(size, COPY_DST | MAP_READ, "staging", true);
    try {
      staging.unmap();
    } catch (cause) {
      this.#gpu.free(staging);
      return cause as Error;
    }
    return staging;
  }

  #recycle(staging: GPUBuffer, healthy: boolean): void {
    if (!healthy || staging.size > KEPT_BYTES) return this.#gpu.free(staging);
    staging.unmap();
    this.#idle.push(staging);
  }
}

function cannotRead(cause: unknown): DeviceError {
  return new DeviceError(`Cannot read from webgpu: ${messageOf(cause)}`, { cause });
}

/**
 * Copies a buffer whose map is requested, if it is mapped already.
 *
 * Trick: Deno's `mapAsync` waits for the device before it returns, but resolves its promise ten
 * milliseconds later; reading at once saves them. On other platforms the early read throws, and the
 * caller awaits the promise.
 */
function mappedNow(staging: GPUBuffer, bytes: number): Uint8Array<ArrayBuffer> | undefined {
  try {
    return new Uint8Array(staging.getMappedRange(0, bytes)).slice();
  } catch {
    return undefined;
  }
}

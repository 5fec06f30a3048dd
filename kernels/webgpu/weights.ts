/**
 * Upload of weights: stored rows are copied in chunks, and a shader packs them into panels.
 *
 *     fill() ──▶ rows ── writeBuffer ──▶ source ── pack shader ──▶ panels, one buffer per part
 *                4 MiB, host             4 MiB, device
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import { storedBytes, type Weight, type WeightDtype, wgslOf } from "../formats/mod.ts";
import { PANEL, panelBytes } from "../formats/wgsl.ts";
import type { FillRows, StoredOrder } from "../tensor.ts";
import type { Gpu } from "./device.ts";
import type { Compiler } from "./pipeline.ts";
import type { StepQueue } from "./queue.ts";

/** Bytes of stored rows per chunk; 4 MiB was the fastest. */
const CHUNK_BYTES = 4 << 20;

/** Chunks in flight: the device keeps a copy of each until it is packed. */
const CHUNKS_IN_FLIGHT = 16;

/** Outputs first … first + count of a weight, in one buffer. */
export interface WeightPart {
  readonly first: number;
  readonly count: number;
  readonly buffer: GPUBuffer;
}

/** A weight in panels, drawn in `formats/wgsl.ts`; in several buffers if it exceeds one binding. */
export class GpuWeight implements Weight {
  constructor(
    readonly shape: readonly [N: number, K: number],
    readonly dtype: WeightDtype,
    readonly parts: readonly WeightPart[],
  ) {}
}

/** Uploads weights. */
export class Uploader {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #compiler: Compiler;

  constructor(gpu: Gpu, queue: StepQueue, compiler: Compiler) {
    this.#gpu = gpu;
    this.#queue = queue;
    this.#compiler = compiler;
  }

  /** See `Backend.weight`. */
  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    stored: StoredOrder,
  ): Promise<GpuWeight> {
    const parts = await this.#allocate(shape, dtype);
    try {
      await this.#upload(shape, dtype, parts, fill, stored);
    } catch (error) {
      for (const { buffer } of parts) this.#gpu.free(buffer);
      throw error;
    }
    return new GpuWeight(shape, dtype, parts);
  }

  /** Allocates zeroed buffers of whole panels. */
  async #allocate([N, K]: readonly [number, number], dtype: WeightDtype): Promise<WeightPart[]> {
    const what = `weight ${dtype} [${N},${K}]`;
    const bytes = panelBytes(wgslOf(dtype), K);
    const panels = Math.ceil(N / PANEL);
    const fit = Math.floor(this.#gpu.maxBytes / bytes);
    if (fit < 1) {
      throw new RangeError(
        `Cannot make "${what}" on webgpu: expected ${PANEL} rows within ${this.#gpu.maxBytes} ` +
          `bytes (one binding), got ${bytes}`,
      );
    }
    const parts: WeightPart[] = [];
    const { device } = this.#gpu;
    device.pushErrorScope("out-of-memory");
    for (let panel = 0; panel < panels; panel += fit) {
      const first = panel * PANEL;
      const count = Math.min(N - first, fit * PANEL);
      const size = Math.ceil(count / PANEL) * bytes;
      parts.push({ first, count, buffer: this.#gpu.storage(size, "weights") });
    }
    if (await device.popErrorScope()) {
      for (const { buffer } of parts) this.#gpu.free(buffer);
      throw new DeviceError(
        `Cannot make "${what}" on webgpu: expected ${panels * bytes} bytes of free memory, ` +
          'got less; choose a smaller dtype, or "cpu"',
      );
    }
    return parts;
  }

  async #upload(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    parts: readonly WeightPart[],
    fill: FillRows,
    stored: StoredOrder,
  ): Promise<void> {
    const [N, K] = shape;
    const rowBytes = storedBytes(dtype, stored === "NK" ? K : N);
    const atOnce = rowsAtOnce(shape, rowBytes, stored, wgslOf(dtype).inputs);
    const rows = new Uint8Array(atOnce * rowBytes);
    const { COPY_DST, STORAGE } = GPUBufferUsage;
    const source = this.#gpu.buffer(
      Math.ceil(rows.byteLength / 4) * 4,
      COPY_DST | STORAGE,
      "staging",
    );
    try {
      const packers = await Promise.all(parts.map(async ({ first, count, buffer }) => {
        const { groups, ...pack } = wgslOf(dtype).pack({ shape, stored, first, count });
        const operands = [{ buffer, written: true }, { buffer: source, written: false }];
        const shader = await this.#compiler.bind({ op: "weight", ...pack, operands });
        return { first, shader, groups };
      }));
      const { queue } = this.#gpu.device;
      const end = stored === "NK" ? N : K;
      let inFlight = 0;
      for (let row = 0; row < end;) {
        const part = parts.find(({ first, count }) => row < first + count) ?? parts[0];
        const limit = stored === "NK" ? part.first + part.count : end;
        const count = Math.min(atOnce, limit - row);
        const piece = rows.subarray(0, count * rowBytes);
        await fill(row, count, piece);
        this.#gpu.expectOpen();
        this.#queue.flush();
        queue.writeBuffer(source, 0, wholeWords(piece));
        for (const { first, shader, groups } of packers) {
          if (stored === "NK" && first !== part.first) continue;
          const chunk = { row: stored === "NK" ? row - first : row, rows: count };
          this.#queue.pack(chunk, shader, groups(chunk));
        }
        this.#queue.flush();
        row += count;
        if (++inFlight % CHUNKS_IN_FLIGHT === 0) await queue.onSubmittedWorkDone();
      }
    } finally {
      this.#gpu.free(source);
    }
  }
}

/** Rows of a chunk; of KN rows, whole words of `inputs` inputs. */
function rowsAtOnce(
  [N, K]: readonly [number, number],
  rowBytes: number,
  stored: StoredOrder,
  inputs: number,
): number {
  const most = Math.max(inputs, Math.floor(CHUNK_BYTES / rowBytes / inputs) * inputs);
  return Math.min(most, stored === "NK" ? N : K);
}

/** The bytes of a chunk, padded to a multiple of four. */
function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}

/**
 * Timing of matmul tiles as a model runs them: with norm, bias and residual, and with another
 * layer's weight each time, so that weights come from memory and not from a cache.
 *
 *     calls of one shape     layer 0   layer 1   layer 2   …   (at most 16)
 *     timing of a tile       ├───────────────┤                 as many as take 2 ms
 *     next timing                              ├──────── …     from where the last one ended
 *
 * @module
 */
import type { MatmulCall } from "../ops/matmul/mod.ts";
import type { Tile } from "../ops/matmul/tiles.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { type Gpu, GpuTensor } from "./device.ts";
import type { Dispatch } from "./dispatch.ts";
import type { Compiler, ShaderCall } from "./pipeline.ts";
import type { StepQueue } from "./queue.ts";

/** Weights of one shape in rotation: 16 of a billion-parameter model exceed any cache. */
const MOST_WEIGHTS = 16;

/** Milliseconds of work in one timing: long compared with a read. */
const TIMING_MS = 2;

/** Products in one timing at most. */
const MOST_RUNS = 64;

/** Timings of a tile that may be the fastest. */
const TIMINGS = 3;

/** Tiles whose first timing takes longer than the best one's, times this, are dropped. */
const DROPPED = 1.5;

/** Lowers a product with a given tile; owns the scratch of what it has lowered. */
export interface TileTarget {
  product(call: MatmulCall, tile: Tile): ShaderCall[];
  readonly buffers: readonly GPUBuffer[];
}

/** Dispatches of one tile, for each weight in rotation. */
interface Candidate {
  /** Index of the tile. */
  readonly tile: number;
  readonly products: readonly (readonly Dispatch[])[];
}

/** Times tiles on a device. */
export class TileTimer {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #compiler: Compiler;
  /** Product of the rotation that the next run takes. */
  #next = 0;
  #spentMs = 0;

  constructor(gpu: Gpu, queue: StepQueue, compiler: Compiler) {
    this.#gpu = gpu;
    this.#queue = queue;
    this.#compiler = compiler;
  }

  /** Milliseconds spent on timing so far, without compiling. */
  get spentMs(): number {
    return this.#spentMs;
  }

  /**
   * The index of the fastest tile for products of one shape; null if `untilMs` of timing in all is
   * reached before each tile has been timed once. Overwrites no operand of the calls.
   */
  async fastest(
    calls: readonly MatmulCall[],
    tiles: readonly (readonly [index: number, tile: Tile])[],
    target: TileTarget,
    untilMs: number,
  ): Promise<number | null> {
    const scratch: GPUBuffer[] = [];
    const tensor = ({ shape }: Tensor) => {
      const buffer = this.#gpu.storage(4 * sizeOf(shape), "activations");
      scratch.push(buffer);
      return new GpuTensor(shape, "F32", buffer);
    };
    const [x, y, gate] = [calls[0].x, calls[0].y, calls[0].y].map(tensor);
    const copies = calls.slice(0, MOST_WEIGHTS).map((call) => onScratch(call, { x, y, gate }));
    try {
      const candidates = await Promise.all(tiles.map(async ([tile, shape]) => ({
        tile,
        products: await Promise.all(copies.map((call) =>
          Promise.all(
            target.product(call, shape).map((product) => this.#compiler.prepare(product)),
          )
        )),
      })));
      return await this.#race(candidates, x.shape[0], y.buffer, untilMs);
    } finally {
      for (const buffer of [...scratch, ...target.buffers]) this.#gpu.free(buffer);
    }
  }

  /** Times all candidates once, and those near the best one several times. */
  async #race(
    candidates: readonly Candidate[],
    rows: number,
    y: GPUBuffer,
    untilMs: number,
  ): Promise<number | null> {
    const time = (candidate: Candidate, runs: number) => this.#time(candidate, rows, y, runs);
    const spent = this.#spentMs;
    for (const candidate of candidates) await time(candidate, 1); // a first run may compile
    this.#spentMs = spent;
    const first: number[] = [];
    for (const candidate of candidates) {
      if (this.#spentMs > untilMs) return null;
      first.push(await time(candidate, 1));
    }
    const best = Math.min(...first);
    const near = candidates.filter((_, i) => first[i] <= DROPPED * best);
    const runs = Math.min(MOST_RUNS, Math.max(1, Math.round(TIMING_MS / best)));
    const times = near.map(() => Infinity);
    for (let timing = 0; timing < TIMINGS; timing++) {
      for (const [i, candidate] of near.entries()) {
        if (this.#spentMs > untilMs) break;
        times[i] = Math.min(times[i], await time(candidate, runs));
      }
    }
    // Too little time to compare them: the single runs decide.
    if (times.includes(Infinity)) return candidates[first.indexOf(best)].tile;
    return near[times.indexOf(Math.min(...times))].tile;
  }

  /** Milliseconds per product, over `runs` products of the rotation. */
  async #time(
    { products }: Candidate,
    rows: number,
    y: GPUBuffer,
    runs: number,
  ): Promise<number> {
    const start = performance.now();
    const step = { rows, position: 0, slot: 0, length: rows };
    for (let i = 0; i < runs; i++) {
      this.#queue.run(step, products[this.#next++ % products.length]);
    }
    await this.#queue.read(y, 0, 4);
    const ms = performance.now() - start;
    this.#spentMs += ms;
    return ms / runs;
  }
}

/** The call with scratch for all that it reads and writes of a step; heads are left out. */
function onScratch(
  { op, weight, options, norm, up }: MatmulCall,
  { x, y, gate }: Readonly<Record<"x" | "y" | "gate", Tensor>>,
): MatmulCall {
  return { op, x, y, weight, options: { ...options, gate: options.gate && gate }, norm, up };
}

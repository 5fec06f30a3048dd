/**
 * Autotuner of matmul tiles: times each candidate on the model's weights when a shape is first
 * recorded.
 *
 * @module
 */
import {
  decodeTile,
  matmulGroups,
  prefillTile,
  SOFTWARE_TILES,
  type Tile,
  TILES,
} from "../ops/matmul/tiles.ts";
import { matmulWgsl } from "../ops/matmul/wgsl.ts";
import { type Weight, wgslOf } from "../formats/mod.ts";
import { panelWords } from "../formats/wgsl.ts";
import type { Call } from "../calls.ts";
import type { Segment } from "../step.ts";
import type { Gpu } from "./device.ts";
import type { Compiler } from "./pipeline.ts";
import type { Dispatch, StepQueue } from "./queue.ts";
import { GpuWeight } from "./weights.ts";

/** Version of `TILES` and the shaders; a change invalidates stored choices. */
const VERSION = 2;

/** Milliseconds of timing per process, without compiling; later shapes take the untuned choice. */
const BUDGET_MS = 2000;

/** Milliseconds of work in one timing: long compared with a read. */
const TIMING_MS = 2;

/**
 * Storage for tuned choices, as text by key (adapter and version). A damaged or foreign text is
 * ignored.
 */
export interface TileStore {
  /** Loads the last text saved under this key; null if there is none. */
  readonly load: (key: string) => Promise<string | null>;
  /** Saves a text. Its errors are ignored: the choices are used all the same. */
  readonly save: (key: string, text: string) => Promise<void>;
}

/** The tile of each product. */
export class Tiles {
  readonly #gpu: Gpu;
  readonly #queue: StepQueue;
  readonly #compiler: Compiler;
  readonly #store?: TileStore;
  /** Whether tiles are chosen by timing them. */
  readonly measured: boolean;
  /** Index into `TILES`, by shape and number of rows. */
  #choices?: Map<string, number>;
  #spentMs = 0;

  constructor(
    gpu: Gpu,
    queue: StepQueue,
    compiler: Compiler,
    { tune = true, store }: { tune?: boolean; store?: TileStore },
  ) {
    this.#gpu = gpu;
    this.#queue = queue;
    this.#compiler = compiler;
    this.#store = store;
    this.measured = tune && !gpu.software;
  }

  /** The tile of a product of up to `T` rows, or of one row that it norms itself. */
  of(weight: Weight, T: number, normed: boolean): Tile {
    const phase = T === 1 ? "decode" : "prefill";
    if (this.#gpu.software) return SOFTWARE_TILES[normed ? "normed" : phase];
    const choice = this.#choices?.get(keyOf(weight, T));
    return TILES[phase][choice ?? untuned(weight, T)];
  }

  get #key(): string {
    return `${this.#gpu.description}, version ${VERSION}`;
  }

  /** Times the shapes of these calls that have no choice yet. */
  async tune(calls: readonly Call[]): Promise<void> {
    if (!this.measured) return;
    const choices = this.#choices ??= await this.#load();
    let changed = false;
    for (const call of calls) {
      if (call.op !== "matmul" || this.#spentMs > BUDGET_MS) continue;
      const [weight, T] = [call.weight, call.x.shape[0]];
      if (!(weight instanceof GpuWeight) || choices.has(keyOf(weight, T))) continue;
      choices.set(keyOf(weight, T), await this.#fastest(weight, T));
      changed = true;
    }
    if (changed) await this.#save(choices);
  }

  async #fastest(weight: GpuWeight, T: number): Promise<number> {
    const [N, K] = weight.shape;
    const { buffer, count, first } = weight.parts[0];
    const x = this.#gpu.storage(4 * T * K, "activations"); // [T, K]
    const y = this.#gpu.storage(4 * T * N, "activations"); // [T, N]
    const operands = [
      { buffer: y, written: true },
      { buffer: x, written: false },
      { buffer, written: false },
    ];
    try {
      const tiles = TILES[T === 1 ? "decode" : "prefill"];
      const dispatches = await Promise.all(tiles.map((tile) =>
        this.#compiler.prepare({
          op: "matmul",
          ...matmulWgsl({
            N,
            K,
            dtype: weight.dtype,
            tile,
            options: {},
            part: { first, count },
          }),
          operands,
          groups: ({ rows }: Segment) => matmulGroups(tile, count, rows),
        })
      ));
      await this.#time(dispatches[0], T, y, 1); // wakes the device
      const times: number[] = [];
      for (const dispatch of dispatches) {
        // The first run may include compiling.
        const once = Math.min(
          await this.#time(dispatch, T, y, 1),
          await this.#time(dispatch, T, y, 1),
        );
        const runs = Math.min(64, Math.max(1, Math.round(TIMING_MS / once)));
        const start = performance.now();
        times.push(
          Math.min(
            await this.#time(dispatch, T, y, runs),
            await this.#time(dispatch, T, y, runs),
            await this.#time(dispatch, T, y, runs),
          ),
        );
        this.#spentMs += performance.now() - start;
      }
      return times.indexOf(Math.min(...times));
    } finally {
      for (const buffer of [x, y]) this.#gpu.free(buffer);
    }
  }

  /** Milliseconds per run, over `runs` runs. */
  async #time(dispatch: Dispatch, rows: number, y: GPUBuffer, runs: number): Promise<number> {
    const start = performance.now();
    const step = { rows, position: 0, slot: 0, length: rows };
    for (let i = 0; i < runs; i++) this.#queue.run(step, [dispatch]);
    await this.#queue.read(y, 0, 4);
    return (performance.now() - start) / runs;
  }

  /** Stored choices of this adapter; empty if damaged, outdated or another adapter's. */
  async #load(): Promise<Map<string, number>> {
    try {
      const { version, adapter, choices } = JSON.parse(
        await this.#store?.load(this.#key) ?? "{}",
      );
      if (version !== VERSION || adapter !== this.#gpu.description) return new Map();
      const valid = Object.entries(choices as Record<string, unknown>).filter(
        (entry): entry is [string, number] =>
          Number.isInteger(entry[1]) && (entry[1] as number) >= 0 &&
          (entry[1] as number) < (entry[0].endsWith(" one") ? TILES.decode : TILES.prefill).length,
      );
      return new Map(valid);
    } catch {
      return new Map();
    }
  }

  async #save(choices: ReadonlyMap<string, number>): Promise<void> {
    // Merges choices that another process has stored in the meantime.
    const all = new Map([...await this.#load(), ...choices]);
    const kept = {
      version: VERSION,
      adapter: this.#gpu.description,
      choices: Object.fromEntries(all),
    };
    try {
      await this.#store?.save(this.#key, JSON.stringify(kept, null, 2) + "\n");
    } catch {
      // A store that cannot be written costs the next process its timing, nothing else.
    }
  }
}

function keyOf({ shape: [N, K], dtype }: Weight, T: number): string {
  return T === 1 ? `${N}x${K} ${dtype} one` : `${N}x${K} ${dtype} ${T} many`;
}

/** The choice without timing: the same in every process. */
function untuned({ shape: [N, K], dtype }: Weight, T: number): number {
  const shape = { N, words: panelWords(wgslOf(dtype), K) };
  return T === 1 ? decodeTile(shape) : prefillTile(shape, T);
}

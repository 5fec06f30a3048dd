/**
 * Autotuner of matmul tiles: times each candidate on the model's weights when a shape is first
 * recorded.
 *
 * @module
 */
import {
  decodeTile,
  isSuitable,
  prefillTile,
  SOFTWARE_TILES,
  type Tile,
  TILES,
} from "../ops/matmul/tiles.ts";
import type { MatmulCall } from "../ops/matmul/mod.ts";
import { type Weight, wgslOf } from "../formats/mod.ts";
import { panelWords, WORD_BYTES } from "../formats/wgsl.ts";
import type { Call } from "../calls.ts";
import type { Gpu } from "./device.ts";
import type { Compiler } from "./pipeline.ts";
import type { StepQueue } from "./queue.ts";
import { type TileTarget, TileTimer } from "./tile_timer.ts";

/** Version of `TILES` and the shaders; a change invalidates stored choices. */
const VERSION = 5;

/**
 * Milliseconds of timing per process until a shape is given up, without compiling; later shapes
 * take the untuned choice. Prefill is recorded first and leaves half of it to decode.
 */
const UNTIL_MS = { prefill: 1000, decode: 2000 } as const;

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
  readonly #timer: TileTimer;
  readonly #store?: TileStore;
  /** Whether tiles are chosen by timing them. */
  readonly measured: boolean;
  /** Index into `TILES`, by shape and number of rows. */
  #choices?: Map<string, number>;

  constructor(
    gpu: Gpu,
    queue: StepQueue,
    compiler: Compiler,
    { tune = true, store }: { tune?: boolean; store?: TileStore },
  ) {
    this.#gpu = gpu;
    this.#timer = new TileTimer(gpu, queue, compiler);
    this.#store = store;
    this.measured = tune && !gpu.software;
  }

  /** The tile of a product of up to `T` rows, or of one row that it norms itself. */
  of(weight: Weight, T: number, normed: boolean): Tile {
    const phase = phaseOf(T);
    if (this.#gpu.software) return SOFTWARE_TILES[normed ? "normed" : phase];
    const choice = this.#choices?.get(keyOf(weight, T));
    return TILES[phase][choice ?? untuned(weight, T)];
  }

  get #key(): string {
    return `${this.#gpu.description}, version ${VERSION}`;
  }

  /**
   * Times the shapes of these calls that have no choice yet.
   * @param makeTarget lowers products on the device; one per shape.
   */
  async tune(calls: readonly Call[], makeTarget: () => TileTarget): Promise<void> {
    if (!this.measured) return;
    const choices = this.#choices ??= await this.#load();
    const products = calls.filter((call) => call.op === "matmul");
    let changed = false;
    for (
      const [key, group] of Map.groupBy(products, ({ weight, x }) => keyOf(weight, x.shape[0]))
    ) {
      if (choices.has(key)) continue;
      const choice = await this.#fastest(group, makeTarget);
      if (choice === null) continue;
      choices.set(key, choice);
      changed = true;
    }
    if (changed) await this.#save(choices);
  }

  async #fastest(
    calls: readonly MatmulCall[],
    makeTarget: () => TileTarget,
  ): Promise<number | null> {
    const [{ weight, x: { shape: [T] } }] = calls;
    const phase = phaseOf(T);
    if (this.#timer.spentMs > UNTIL_MS[phase]) return null;
    const shape = wordsOf(weight);
    const tiles = [...TILES[phase].entries()].filter(([, tile]) => isSuitable(tile, shape, T));
    return await this.#timer.fastest(calls, tiles, makeTarget(), UNTIL_MS[phase]);
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

function phaseOf(T: number): keyof typeof TILES {
  return T === 1 ? "decode" : "prefill";
}

function wordsOf({ shape: [N, K], dtype }: Weight) {
  const format = wgslOf(dtype);
  const words = panelWords(format, K);
  const blockBytes = format.ahead && WORD_BYTES * format.words(K) / words;
  return { N, words, paired: !!format.pairs, blockBytes };
}

/** The choice without timing: the same in every process. */
function untuned(weight: Weight, T: number): number {
  return T === 1 ? decodeTile(wordsOf(weight)) : prefillTile(wordsOf(weight), T);
}

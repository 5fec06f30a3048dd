/**
 * Sequence: the ids in a text's cache slots, and the step of its next rows.
 *
 * The step of the next row after n tokens, for a cache of S = 4 slots. Past the window, which only
 * a sliding architecture (LabCore) passes, the cache is a ring and every row sees all S keys. The
 * position stays at the last learned one, or one past it for rotary positions, as in LabCore's
 * script.
 *
 *     n                    0   1   2   3 │ 4   5   6   7   8
 *     slot      n mod S    0   1   2   3 │ 0   1   2   3   0
 *     position  learned    0   1   2   3 │ 3   3   3   3   3      min(n, S - 1)
 *               rotary     0   1   2   3 │ 4   4   4   4   4      min(n, S)
 *     length               1   2   3   4 │ 4   4   4   4   4      min(n + 1, S)
 *                                full ───┘
 *
 *     slots after token 5  ┌───┬───┬───┬───┐
 *                          │ 4 │ 5 │ 2 │ 3 │   token 6 overwrites slot 2, the oldest
 *                          └───┴───┴───┴───┘
 *
 * A later prompt with the same beginning keeps entries that were never overwritten. With chunks of
 * 4 and 11 tokens fed:
 *
 *     slots     0 1 2 3   4 5 6 7   8   9 10
 *               └── prefilled ──────────┘
 *               └── cached (prefilled, then drawn) ┘
 *     reuse     true: whole prefilled chunks, slots 0 … 7, so that every sum keeps its order
 *               "all": every cached slot; differs from a new prefill by rounding (a chat uses it)
 *
 * @module
 */
import type { Segment } from "../kernels/step.ts";
import type { Architecture } from "./architecture/mod.ts";

/** One text in a model's cache; a second text needs an object and slots of its own. */
export class Sequence {
  /** Number of tokens fed, including those that have left the window. */
  #fed = 0;
  /** Ids in slots 0, 1, …, up to the first one that was overwritten or is unknown. */
  readonly #cached: number[] = [];
  /** Number of slots from 0 on that prefill wrote at the chunk boundaries of a new text. */
  #prefilled = 0;
  /** Id that the next step of one row reads. */
  #pending = 0;
  readonly #lastPosition: number;
  readonly #slides: boolean;

  /** Creates an empty text. */
  constructor(
    { rope, slides }: Pick<Architecture, "rope" | "slides">,
    /** S: tokens that the cache holds. */
    readonly slots: number,
    /** T: rows of a prefill chunk. */
    readonly chunk: number,
  ) {
    this.#lastPosition = rope ? slots : slots - 1;
    this.#slides = slides;
  }

  /** Number of tokens fed, including those that have left the window. */
  get fed(): number {
    return this.#fed;
  }

  /** Whether the next token overwrites the oldest one. */
  get full(): boolean {
    return this.#fed >= this.slots;
  }

  /** Number of tokens that can still be fed. */
  get room(): number {
    return this.#slides ? Infinity : this.slots - this.#fed;
  }

  /** The step of the next `rows` tokens. */
  step(rows: number): Segment {
    const S = this.slots;
    return {
      rows,
      position: Math.min(this.#fed, this.#lastPosition),
      slot: this.#fed % S,
      length: Math.min(this.#fed + rows, S),
    };
  }

  /** Empties the cache. */
  clear(): void {
    this.#fed = 0;
    this.#keep(0);
  }

  /**
   * Starts a text: keeps its common beginning with the last text, and no other slots.
   * @param prompt at most S ids; all but the last are to be prefilled, from `fed` on.
   */
  start(prompt: readonly number[], reuse: boolean | "all"): void {
    const last = prompt.length - 1;
    this.#fed = reuse ? this.#common(prompt, last, reuse) : 0;
    this.#keep(this.#fed);
    this.#pending = prompt[last];
  }

  /** Records the ids of a prefill chunk whose step has run, before `advance` counts them. */
  cache(ids: readonly number[]): void {
    const whole = this.#prefilled === this.#fed && this.#fed % this.chunk === 0;
    this.#cached.push(...ids);
    if (whole) this.#prefilled += ids.length;
  }

  /** Counts the rows of a step that has run. */
  advance(rows: number): void {
    if (this.full) this.#keep(0); // the first slots were overwritten
    this.#fed += rows;
  }

  /** Records the ids of the last steps: each read the pending id and drew the next one. */
  drew(ids: readonly number[]): void {
    if (this.#cached.length + ids.length === this.#fed) {
      this.#cached.push(this.#pending, ...ids.slice(0, -1));
    }
    this.#pending = ids[ids.length - 1];
  }

  /** Lets no later prompt reuse a slot. */
  forget(): void {
    this.#keep(0);
  }

  /** Number of slots to keep for a prompt of which `count` ids are prefilled. */
  #common(prompt: readonly number[], count: number, reuse: true | "all"): number {
    const most = Math.min(count, reuse === "all" ? this.#cached.length : this.#prefilled);
    let same = 0;
    while (same < most && prompt[same] === this.#cached[same]) same++;
    return reuse === "all" ? same : same - same % this.chunk;
  }

  /** Forgets the ids of all slots but the first `count`. */
  #keep(count: number): void {
    this.#cached.length = Math.min(this.#cached.length, count);
    this.#prefilled = Math.min(this.#prefilled, count);
  }
}

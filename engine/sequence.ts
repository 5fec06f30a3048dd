/**
 * One text in flight: the ids that its cache slots hold, and the step of its next rows. The one
 * place where a step is computed.
 *
 * The step of the next row when n tokens were fed, for a cache of S = 4 slots. Rows beyond the
 * window occur where the architecture slides (LabCore): keys and values go round the cache, every
 * row sees all S keys, and the position stays at the last learned one, or one past it for rotary
 * positions (the convention of LabCore's script).
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
 * A later prompt that begins alike keeps entries that were never overwritten. Here with chunks of 4
 * and 11 tokens fed:
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

/**
 * One text in a model's cache. A second text would be a second object, with cache slots of its own.
 */
export class Sequence {
  /** Tokens fed, including those that have left the window. */
  #fed = 0;
  /** Ids in slots 0, 1, … of which none was overwritten. */
  readonly #cached: number[] = [];
  /** How many of them, from slot 0 on, prefill wrote at the chunk boundaries of a new text. */
  #prefilled = 0;
  /** The id that the next step of one row reads. */
  #pending = 0;
  readonly #lastPosition: number;
  readonly #slides: boolean;

  /** An empty text. */
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

  /** Tokens fed, including those that have left the window. */
  get fed(): number {
    return this.#fed;
  }

  /** Whether the next token overwrites the oldest one. */
  get full(): boolean {
    return this.#fed >= this.slots;
  }

  /** Tokens that can still be fed. */
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
   * Starts a text whose cache is empty but for what it has in common with the last text.
   * @param prompt at most S ids, of which all but the last are to be prefilled, from `fed` on.
   */
  start(prompt: readonly number[], reuse: boolean | "all"): void {
    const last = prompt.length - 1;
    this.#fed = reuse ? this.#common(prompt, last, reuse) : 0;
    this.#keep(this.#fed);
    this.#pending = prompt[last];
  }

  /** Notes the ids of a prefill chunk whose step has run, before they are counted as fed. */
  cache(ids: readonly number[]): void {
    const whole = this.#prefilled === this.#fed && this.#fed % this.chunk === 0;
    this.#cached.push(...ids);
    if (whole) this.#prefilled += ids.length;
  }

  /** Counts the rows of a step that has run as fed. */
  advance(rows: number): void {
    if (this.full) this.#keep(0); // the first slots were overwritten
    this.#fed += rows;
  }

  /**
   * Takes the ids that the last steps drew, one each: a step read the pending id and drew the next
   * one.
   */
  drew(ids: readonly number[]): void {
    if (this.#cached.length + ids.length === this.#fed) {
      this.#cached.push(this.#pending, ...ids.slice(0, -1));
    }
    this.#pending = ids[ids.length - 1];
  }

  /** Leaves nothing for a later prompt to reuse. */
  forget(): void {
    this.#keep(0);
  }

  /** Slots to keep for a prompt of which `count` ids are prefilled. */
  #common(prompt: readonly number[], count: number, reuse: true | "all"): number {
    const most = Math.min(count, reuse === "all" ? this.#cached.length : this.#prefilled);
    let same = 0;
    while (same < most && prompt[same] === this.#cached[same]) same++;
    return reuse === "all" ? same : same - same % this.chunk;
  }

  /** Trusts the first `count` slots alone. */
  #keep(count: number): void {
    this.#cached.length = Math.min(this.#cached.length, count);
    this.#prefilled = Math.min(this.#prefilled, count);
  }
}

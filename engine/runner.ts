/**
 * A model's recorded passes and their queue: ids in, drawn ids or logits out.
 *
 *     prefill   T rows                    fills the cache
 *     decode    1 row, head               logits [V]
 *     draw      1 row, head, sampling     the next id, for the next step's embed and into a ring
 *     logits    T rows, head              logits [T, V]; recorded when first used
 *
 * Draws are queued without a read between them, as many as take 100 ms, and their ids are read
 * together:
 *
 *     host    run run run run read ─────────────────▶ 4 ids   run run …
 *     device      draw draw draw draw
 *
 * @module
 */
import type { Backend, Plan, Recorder } from "../kernels/backend.ts";
import type { Sampling } from "../kernels/ops/sample/mod.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { forward, makeCache, makeLogits, makeState, type State } from "./decoder.ts";
import type { SamplingOptions } from "./sampler.ts";
import { Sequence } from "./sequence.ts";
import type { Weights } from "./weights/mod.ts";
import { Yielder } from "./yielder.ts";

/** Milliseconds that draws which are read together take at most, or one draw if that is longer. */
export const READ_MS = 100;

/** How a prompt is prefilled. */
export interface PrefillOptions {
  /**
   * Keep the cache entries that the last prefill wrote of a common beginning; "all": those of drawn
   * ids as well. Default false.
   */
  readonly reuse?: boolean | "all";
  readonly signal?: AbortSignal;
}

/** The passes of a model that are always recorded. */
export interface Plans {
  readonly prefill: Plan;
  readonly decode: Plan;
  readonly draw: Plan;
}

/** What the passes work on. */
export interface Buffers {
  /** T rows. */
  readonly prefill: State;
  /** One row; logits [1, V]. */
  readonly decode: State & { readonly logits: Tensor };
  /** Settings, counters, the set of ids seen [V], and the ring of drawn ids. */
  readonly sampling: Sampling;
}

/**
 * Drives one model on one backend. Not reentrant: the model has its callers wait for each other.
 */
export class Runner {
  /** The text in flight: the cache has room for one. */
  readonly sequence: Sequence;
  /** Recorded with kernels that were chosen by measuring, where the backend does so. */
  readonly #tuned: Plans;
  /** Recorded without them. */
  #fixed?: Plans;
  #logits?: { readonly logits: Tensor; readonly plan: Plan };
  /** Ids drawn since `startSampling`: where in the ring the next one is. */
  #drawn = 0;
  /** Draws to queue before their ids are read. */
  #queueDepth = 1;
  readonly #yielder = new Yielder();

  private constructor(
    readonly backend: Backend,
    readonly architecture: Architecture,
    readonly weights: Weights,
    /** The model's name in messages. */
    readonly id: string,
    /** S */
    readonly slots: number,
    /** T */
    readonly chunk: number,
    readonly buffers: Buffers,
    /** Those in use. */
    public plans: Plans,
  ) {
    this.sequence = new Sequence(architecture, slots, chunk);
    this.#tuned = plans;
  }

  /** Makes the buffers and records the passes. `id` names the model in messages. */
  static async create(
    backend: Backend,
    a: Architecture,
    weights: Weights,
    { id, slots, chunk }: { id: string; slots: number; chunk: number },
  ): Promise<Runner> {
    const buffers = makeBuffers(backend, a, slots, chunk);
    const plans = await recordPlans(backend.record.bind(backend), weights, buffers);
    return new Runner(backend, a, weights, id, slots, chunk, buffers, plans);
  }

  /**
   * Switches to kernels that are the same in every run of the program, or back to those that were
   * the fastest.
   */
  async useFixed(fixed: boolean): Promise<void> {
    const { recordFixed } = this.backend;
    if (!recordFixed) return; // no others
    if (fixed) this.#fixed ??= await recordPlans(recordFixed, this.weights, this.buffers);
    const plans = fixed ? this.#fixed! : this.#tuned;
    if (plans !== this.plans) this.sequence.forget(); // the others round differently
    this.plans = plans;
  }

  /** Sets what `draw` draws by and forgets what was drawn. */
  startSampling(options: Required<SamplingOptions>, seed: number): void {
    const { temperature, topK, topP, repetitionPenalty } = options;
    const { settings, counter, seen } = this.buffers.sampling;
    this.backend.write(settings, new Float32Array([temperature, topK, topP, repetitionPenalty]));
    this.backend.write(counter, new Uint32Array([seed >>> 0, Math.floor(seed / 2 ** 32), 0]));
    this.backend.write(seen, new Uint32Array(this.architecture.vocabSize));
    this.#drawn = 0;
    this.#queueDepth = 1; // the first id comes as soon as it can
  }

  /**
   * Puts all but the last of `ids` (at most S) into the cache, and the last where the next pass
   * reads it.
   */
  async prefill(
    ids: readonly number[],
    { reuse = false, signal }: PrefillOptions = {},
  ): Promise<void> {
    const { sequence } = this;
    this.#rotateFor(ids.length);
    sequence.start(ids, reuse);
    for await (const chunk of this.feed(ids.slice(0, -1), this.plans.prefill, signal)) {
      sequence.cache(chunk);
    }
    this.backend.write(this.buffers.decode.ids, Int32Array.of(ids[ids.length - 1]));
  }

  /**
   * Feeds the pending id and draws the next one, which is then pending, and so on: at most `most`
   * ids. How many are read together follows from the time of a step. Those that the caller does not
   * want are in the cache all the same, where only a prompt that begins so reuses them. Where the
   * text outgrows the rotations of the cached keys, the caller must prefill it again.
   */
  async draw(most: number, signal?: AbortSignal): Promise<number[]> {
    const { sequence } = this;
    const room = Math.min(sequence.room, this.#mostTokens - sequence.fed);
    const count = Math.max(1, Math.min(most, this.#queueDepth, room));
    const start = performance.now();
    for (let i = 0; i < count; i++) this.#advance(this.plans.draw);
    const ring = await this.backend.read(this.buffers.sampling.drawn);
    const stepMs = (performance.now() - start) / count;
    const ids = Array.from({ length: count }, () => ring[this.#drawn++ % ring.length]);
    sequence.drew(ids);
    const steps = Math.floor(READ_MS / stepMs);
    this.#queueDepth = Math.max(1, Math.min(2 * this.#queueDepth, steps, ring.length));
    await this.#yielder.yieldIfDue(signal);
    return ids;
  }

  /** Feeds the pending id; its logits [V]. */
  async decode(): Promise<Float32Array> {
    this.#advance(this.plans.decode);
    return await this.backend.read(this.buffers.decode.logits) as Float32Array;
  }

  /** Logits [V] of the last of `ids` (at most S), from an empty cache. */
  async lastLogits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    await this.prefill(ids, { signal });
    return await this.decode();
  }

  /**
   * Logits [ids.length, V] of every row, from an empty cache; whether they are finite is for the
   * caller to check.
   */
  async logits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    const V = this.architecture.vocabSize;
    const { logits, plan } = this.#logits ??= await this.#recordLogits();
    const all = new Float32Array(ids.length * V);
    this.clear(ids.length);
    for await (const { length: rows } of this.feed(ids, plan, signal)) {
      const chunk = await this.backend.read(logits, 0, rows * V) as Float32Array;
      all.set(chunk, this.sequence.fed * V);
    }
    return all;
  }

  /** Empties the cache for a text of `tokens` ids. */
  clear(tokens: number): void {
    this.#rotateFor(tokens);
    this.sequence.clear();
  }

  /** Whether a text of `tokens` ids needs other rotations than those of the cached keys. */
  outgrows(tokens: number): boolean {
    return tokens > this.#mostTokens;
  }

  /** Tokens that the rotary tables are right for; see `LongRope`. */
  get #mostTokens(): number {
    return Math.min(...this.weights.longRopes.map((rope) => rope.mostTokens), Infinity);
  }

  /** Writes the rotary tables for `tokens` tokens; keys cached under others are not reused. */
  #rotateFor(tokens: number): void {
    const changed = this.weights.longRopes.filter((rope) => rope.rotateFor(tokens));
    if (changed.length) this.sequence.forget();
  }

  /**
   * Runs a plan of T rows over the ids that are not fed yet; yields each chunk before it is counted
   * as fed.
   */
  async *feed(ids: readonly number[], plan: Plan, signal?: AbortSignal): AsyncGenerator<number[]> {
    const { sequence, buffers } = this;
    while (sequence.fed < ids.length) {
      const chunk = ids.slice(sequence.fed, sequence.fed + this.chunk);
      this.backend.write(buffers.prefill.ids, Int32Array.from(chunk));
      plan.run(sequence.step(chunk.length));
      yield chunk;
      sequence.advance(chunk.length);
      await this.#yielder.yieldIfDue(signal);
    }
  }

  /** Queues a pass over the pending id. */
  #advance(plan: Plan): void {
    plan.run(this.sequence.step(1));
    this.sequence.advance(1);
  }

  async #recordLogits(): Promise<{ logits: Tensor; plan: Plan }> {
    const { backend, architecture, weights, buffers, chunk } = this;
    const logits = makeLogits(backend, architecture, chunk);
    const state = { ...buffers.prefill, logits };
    return { logits, plan: await backend.record((k) => forward(k, weights, state)) };
  }
}

function makeBuffers(backend: Backend, a: Architecture, slots: number, chunk: number): Buffers {
  const cache = makeCache(backend, a, slots);
  return {
    prefill: makeState(backend, a, chunk, cache),
    decode: { ...makeState(backend, a, 1, cache), logits: makeLogits(backend, a, 1) },
    sampling: {
      settings: backend.tensor([4], "F32", "activations"),
      counter: backend.tensor([3], "U32", "activations"),
      seen: backend.tensor([a.vocabSize], "U32", "activations"),
      drawn: backend.tensor([backend.readAhead ?? 1], "I32", "activations"),
    },
  };
}

async function recordPlans(
  record: Backend["record"],
  weights: Weights,
  buffers: Buffers,
): Promise<Plans> {
  const { prefill, decode } = buffers;
  return {
    prefill: await record((k) => forward(k, weights, prefill)),
    decode: await record((k) => forward(k, weights, decode)),
    draw: await record((k) => forwardAndSample(k, weights, buffers)),
  };
}

/** Records the pass that draws the next id. */
export function forwardAndSample(k: Recorder, w: Weights, { decode, sampling }: Buffers): void {
  forward(k, w, decode);
  k.sample(decode.ids, decode.logits, sampling);
}

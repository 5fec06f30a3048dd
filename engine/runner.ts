/**
 * Runner: a model's recorded passes and their queue. Token ids in, drawn ids or logits out.
 *
 *     prefill   T rows                    fills the cache
 *     decode    1 row, head               logits [V]
 *     draw      1 row, head, sampling     the next id, to the next step's embed and to a ring
 *     logits    at most 128 rows, head    logits [rows, V]; recorded on first use
 *
 * Draws of up to 100 ms are queued without a read between them; one read returns their ids:
 *
 *     host    run run run run read ─────────────────▶ 4 ids   run run …
 *     device      draw draw draw draw
 *
 * @module
 */
import type { Backend, Plan, Recorder } from "../kernels/backend.ts";
import type { KvDtype } from "../kernels/formats/kv.ts";
import type { KvCache } from "../kernels/ops/kv_cache/mod.ts";
import type { Sampling } from "../kernels/ops/sample/mod.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { forward, makeCache, makeLogits, makeState, type State } from "./decoder.ts";
import { DEFAULTS } from "./defaults.ts";
import type { SamplingOptions } from "./sampler.ts";
import { Sequence } from "./sequence.ts";
import type { Weights } from "./weights/mod.ts";
import { Yielder } from "./yielder.ts";

/** Most rows of a `logits` pass: at a vocabulary of 128k, their logits take 64 MiB. */
const LOGIT_ROWS = 128;

/** Milliseconds of draws per read at most; a single slower draw takes longer. */
export const READ_MS = 100;

/** Options of a prefill. */
export interface PrefillOptions {
  /**
   * Whether to keep cache entries of a common beginning with the last text: true, those of its
   * prefill; "all", those of drawn ids as well. Default false.
   */
  readonly reuse?: boolean | "all";
  readonly signal?: AbortSignal;
}

/** Passes that are recorded when a model is loaded. */
export interface Plans {
  readonly prefill: Plan;
  readonly decode: Plan;
  readonly draw: Plan;
}

/** A pass over many rows, and where it reads their ids. */
export interface RowsPass {
  readonly plan: Plan;
  /** Ids [T]. */
  readonly ids: Tensor;
}

/** Buffers of the passes. */
export interface Buffers {
  /** State of T rows, without logits. */
  readonly prefill: State;
  /** State of one row, logits [1, V]. */
  readonly decode: State & { readonly logits: Tensor };
  /** Settings [4], counter [3], seen ids [V], ring of drawn ids [R]. */
  readonly sampling: Sampling;
}

/** Runs one model on one backend. Not reentrant: `Model` lets one caller in at a time. */
export class Runner {
  /** The text in the cache, which has room for one. */
  readonly sequence: Sequence;
  /** Plans with kernels chosen by timing, on backends that do so. */
  readonly #tuned: Plans;
  /** Plans with the same kernels in every run; recorded on first use. */
  #fixed?: Plans;
  #logits?: RowsPass & { readonly logits: Tensor };
  /** Number of ids read since `startSampling`; the next one is at this index modulo R. */
  #drawn = 0;
  /** Number of draws to queue before a read. */
  #queueDepth = 1;
  readonly #yielder = new Yielder();

  private constructor(
    readonly backend: Backend,
    readonly architecture: Architecture,
    readonly weights: Weights,
    /** Name of the model in messages. */
    readonly id: string,
    /** S: tokens that the cache holds. */
    readonly slots: number,
    /** T: rows of a prefill chunk. */
    readonly chunk: number,
    readonly buffers: Buffers,
    /** The plans in use: tuned or fixed ones. */
    public plans: Plans,
  ) {
    this.sequence = new Sequence(architecture, slots, chunk);
    this.#tuned = plans;
  }

  /** Allocates the buffers and records the passes. */
  static async create(
    backend: Backend,
    a: Architecture,
    weights: Weights,
    { id, slots, chunk, kvDtype }: {
      id: string;
      slots: number;
      chunk: number;
      kvDtype?: KvDtype;
    },
  ): Promise<Runner> {
    const cache = makeCache(backend, a, slots, kvDtype ?? DEFAULTS.kvDtype);
    const buffers = makeBuffers(backend, a, cache, chunk);
    const plans = await recordPlans(backend.record.bind(backend), weights, buffers);
    return new Runner(backend, a, weights, id, slots, chunk, buffers, plans);
  }

  /** Switches to kernels that are the same in every run, or back to those timed as fastest. */
  async useFixed(fixed: boolean): Promise<void> {
    const { recordFixed } = this.backend;
    if (!recordFixed) return; // the backend has no others
    if (fixed) this.#fixed ??= await recordPlans(recordFixed, this.weights, this.buffers);
    const plans = fixed ? this.#fixed! : this.#tuned;
    if (plans !== this.plans) this.sequence.forget(); // other kernels round differently
    this.plans = plans;
  }

  /** Sets the options and the seed of `draw`, and clears the set of seen ids. */
  startSampling(options: Required<SamplingOptions>, seed: number): void {
    const { temperature, topK, topP, repetitionPenalty } = options;
    const { settings, counter, seen } = this.buffers.sampling;
    this.backend.write(settings, new Float32Array([temperature, topK, topP, repetitionPenalty]));
    this.backend.write(counter, new Uint32Array([seed >>> 0, Math.floor(seed / 2 ** 32), 0]));
    this.backend.write(seen, new Uint32Array(this.architecture.vocabSize));
    this.#drawn = 0;
    this.#queueDepth = 1; // no wait for the first id
  }

  /** Feeds all but the last of `ids` (at most S); the last one is pending for the next pass. */
  async prefill(
    ids: readonly number[],
    { reuse = false, signal }: PrefillOptions = {},
  ): Promise<void> {
    const { sequence } = this;
    this.#rotateFor(ids.length);
    sequence.start(ids, reuse);
    for await (const chunk of this.feed(ids.slice(0, -1), this.prefillPass, signal)) {
      sequence.cache(chunk);
    }
    this.backend.write(this.buffers.decode.ids, Int32Array.of(ids[ids.length - 1]));
  }

  /**
   * Repeats: feeds the pending id and draws the next one, which becomes pending. The number of
   * steps follows from the time of the last ones. All returned ids are in the cache; those that the
   * caller drops are reused only by a prompt that begins with them. The caller must prefill a text
   * again that outgrows the rotations of its cached keys.
   * @param most the number of ids to return at most.
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

  /** Feeds the pending id; returns its logits [V]. */
  async decode(): Promise<Float32Array> {
    this.#advance(this.plans.decode);
    return await this.backend.read(this.buffers.decode.logits) as Float32Array;
  }

  /** Returns the logits [V] of the last of `ids` (at most S), from an empty cache. */
  async lastLogits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    await this.prefill(ids, { signal });
    return await this.decode();
  }

  /** Returns the logits [ids.length, V] of every row, unchecked, from an empty cache. */
  async logits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    const all = new Float32Array(ids.length * this.architecture.vocabSize);
    let at = 0;
    for await (const chunk of this.logitChunks(ids, 0, signal)) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }

  /** Yields the logits [rows, V] of row `first` on, a chunk at a time, from an empty cache. */
  async *logitChunks(
    ids: readonly number[],
    first: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Float32Array> {
    const V = this.architecture.vocabSize;
    const pass = this.#logits ??= await this.#recordLogits();
    this.clear(ids.length);
    for await (const _ of this.feed(ids.slice(0, first), this.prefillPass, signal));
    for await (const { length: rows } of this.feed(ids, pass, signal)) {
      yield await this.backend.read(pass.logits, 0, rows * V) as Float32Array;
    }
  }

  /** Empties the cache for a text of `tokens` ids. */
  clear(tokens: number): void {
    this.#rotateFor(tokens);
    this.sequence.clear();
  }

  /** Whether a text of `tokens` ids needs other rotations than the cached keys have. */
  outgrows(tokens: number): boolean {
    return tokens > this.#mostTokens;
  }

  /** The longest text that the rotary tables are right for; see `LongRope`. */
  get #mostTokens(): number {
    return Math.min(...this.weights.longRopes.map((rope) => rope.mostTokens), Infinity);
  }

  /** Writes the rotary tables for `tokens` tokens; keys cached under others are not reused. */
  #rotateFor(tokens: number): void {
    const changed = this.weights.longRopes.filter((rope) => rope.rotateFor(tokens));
    if (changed.length) this.sequence.forget();
  }

  /** The pass that fills the cache. */
  get prefillPass(): RowsPass {
    return { plan: this.plans.prefill, ids: this.buffers.prefill.ids };
  }

  /** Runs a pass of T rows over the ids not yet fed; yields each chunk before counting it. */
  async *feed(
    ids: readonly number[],
    pass: RowsPass,
    signal?: AbortSignal,
  ): AsyncGenerator<number[]> {
    const { sequence } = this;
    const rows = pass.ids.shape[0];
    while (sequence.fed < ids.length) {
      const chunk = ids.slice(sequence.fed, sequence.fed + rows);
      this.backend.write(pass.ids, Int32Array.from(chunk));
      pass.plan.run(sequence.step(chunk.length));
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

  async #recordLogits(): Promise<RowsPass & { logits: Tensor }> {
    const { backend, architecture, weights, buffers: { prefill }, chunk } = this;
    const rows = Math.min(chunk, LOGIT_ROWS);
    const logits = makeLogits(backend, architecture, rows);
    const rest = rows < chunk ? makeState(backend, architecture, rows, prefill.cache) : prefill;
    const state = { ...rest, logits };
    const plan = await backend.record((k) => forward(k, weights, state));
    return { plan, ids: state.ids, logits };
  }
}

function makeBuffers(
  backend: Backend,
  a: Architecture,
  cache: readonly KvCache[],
  chunk: number,
): Buffers {
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

/**
 * A model's recorded passes and its cache: ids in, drawn ids or logits out. The one place where `Step` is computed.
 *
 * Past the window LabCore's position, slot and length are three numbers: keys and values go round the cache, all S of them are
 * seen, and the position stays at the last learned one, or one beyond where positions are rotary.
 *
 * @module
 */
import type { Backend, KernelTime, Plan, Recorder, Segment } from "../kernels/backend.ts";
import type { Sampling } from "../kernels/ops/sample/mod.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { forward, makeCache, makeLogits, makeState, type State } from "./decoder.ts";
import { CheckpointError } from "./errors.ts";
import type { SamplingOptions } from "./sampler.ts";
import type { Weights } from "./weights/mod.ts";
import { Yielder } from "./yielder.ts";

/** Milliseconds that ids which come back together may span, or one step if that is longer. */
const TOGETHER_MS = 100;

/** What a prefill may do. */
export interface PrefillOptions {
  /** Keep what the last prefill wrote of a common beginning; "all": what was written while drawing as well. */
  readonly reuse?: boolean | "all";
  readonly signal?: AbortSignal;
}

/** A pass, as a whole and by its kernels. */
export interface PassTimes {
  /** What it was run for. */
  readonly step: Segment;
  /** Milliseconds of the plan as it is: the median of several turns. */
  readonly ms: number;
  /** Of the same pass, each timed within it. */
  readonly kernels: readonly KernelTime[];
}

/** The passes of a model; each writes the state of its runner. */
interface Plans {
  readonly prefill: Plan;
  readonly decode: Plan;
  readonly draw: Plan;
}

/** Turns that a whole pass has at least, and milliseconds for all of them. */
const [PASS_TURNS, PASS_MS] = [5, 300];

/** Drives one model on one backend. Not reentrant: the model takes turns. */
export class Runner {
  /** Tokens that the cache has taken, those that went out of the window among them. */
  #length = 0;
  /** Ids whose cache entries are known and were not overwritten, from slot 0. */
  #written: number[] = [];
  /** How many of them, from the first on, a prefill wrote in whole chunks from slot 0 on. */
  #prefilled = 0;
  /** The id that stands ready. */
  #ready = 0;
  #logits?: { logits: Tensor; plan: Plan };
  /** Ids drawn since `startSampling`: where in the ring the next one comes. */
  #drawn = 0;
  /** Steps to queue before their ids are read. */
  #ahead = 1;
  readonly #recorded: Plans;
  /** Without kernels that were chosen by measuring. */
  #fixed?: Plans;
  readonly #yielder = new Yielder();

  private constructor(
    readonly backend: Backend,
    readonly architecture: Architecture,
    readonly weights: Weights,
    readonly id: string,
    /** S */
    readonly slots: number,
    /** T */
    readonly chunk: number,
    readonly many: State,
    readonly one: State & { logits: Tensor },
    readonly sampling: Sampling,
    /** Those in use. */
    public plans: Plans,
  ) {
    this.#recorded = plans;
  }

  /** Makes the state and records the passes. `id` names the model in messages. */
  static async create(
    backend: Backend,
    a: Architecture,
    weights: Weights,
    { id, slots, chunk }: { id: string; slots: number; chunk: number },
  ): Promise<Runner> {
    const cache = makeCache(backend, a, slots);
    const many = makeState(backend, a, chunk, cache);
    const one = { ...makeState(backend, a, 1, cache), logits: makeLogits(backend, a, 1) };
    const sampling = {
      settings: backend.tensor([4], "F32", "activations"),
      counter: backend.tensor([3], "U32", "activations"),
      seen: backend.tensor([a.vocabSize], "U32", "activations"),
      drawn: backend.tensor([backend.readAhead ?? 1], "I32", "activations"),
    };
    const plans = await recordPlans(backend.record.bind(backend), weights, many, one, sampling);
    return new Runner(backend, a, weights, id, slots, chunk, many, one, sampling, plans);
  }

  /** Goes over to kernels that are the same in every run of the program, or back to those that were the fastest. */
  async useFixed(fixed: boolean): Promise<void> {
    const { recordFixed } = this.backend;
    if (!recordFixed) return; // no others
    const { weights, many, one, sampling } = this;
    if (fixed) this.#fixed ??= await recordPlans(recordFixed, weights, many, one, sampling);
    const plans = fixed ? this.#fixed! : this.#recorded;
    if (plans !== this.plans) this.#forget(); // the others round differently
    this.plans = plans;
  }

  /** Whether the next token would have to leave the window, or slide it. */
  get full(): boolean {
    return this.#length >= this.slots;
  }

  /** Sets what `draw` draws by and forgets what was drawn. */
  startSampling(options: Required<SamplingOptions>, seed: number): void {
    const { temperature, topK, topP, repetitionPenalty } = options;
    const { settings, counter, seen } = this.sampling;
    this.backend.write(settings, new Float32Array([temperature, topK, topP, repetitionPenalty]));
    this.backend.write(counter, new Uint32Array([seed >>> 0, Math.floor(seed / 2 ** 32), 0]));
    this.backend.write(seen, new Uint32Array(this.architecture.vocabSize));
    this.#drawn = 0;
    this.#ahead = 1; // the first id comes as soon as it can
  }

  /** Puts all but the last of `ids` (at most S) into the cache, and the last where the next pass reads it. */
  async prefill(ids: readonly number[], { reuse, signal }: PrefillOptions = {}): Promise<void> {
    const last = ids.length - 1;
    this.#length = reuse ? this.#common(ids.slice(0, last), reuse) : 0;
    this.#forget(this.#length);
    const whole = this.#prefilled === this.#length && this.#length % this.chunk === 0;
    for await (const chunk of this.#feed(ids.slice(0, last), this.plans.prefill, signal)) {
      this.#written.push(...chunk);
      if (whole) this.#prefilled += chunk.length;
    }
    this.#ready = ids[last];
    this.backend.write(this.one.ids, Int32Array.of(ids[last]));
  }

  /**
   * Takes the id that stands ready and draws the next one, which then stands ready, and so on: at most `most` ids. How many come back
   * together follows from the time that a step took. What was drawn ahead and is not wanted leaves entries that only a
   * prompt which begins so keeps.
   */
  async draw(most: number, signal?: AbortSignal): Promise<number[]> {
    const { slides } = this.architecture;
    const room = slides ? Infinity : this.slots - this.#length;
    const count = Math.max(1, Math.min(most, this.#ahead, room));
    const start = performance.now();
    for (let i = 0; i < count; i++) this.#advance(this.plans.draw);
    const ring = await this.backend.read(this.sampling.drawn);
    const stepMs = (performance.now() - start) / count;
    const ids = Array.from({ length: count }, () => ring[this.#drawn++ % ring.length]);
    if (this.#written.length + count === this.#length) {
      this.#written.push(this.#ready, ...ids.slice(0, -1));
    }
    this.#ready = ids[count - 1];
    const span = Math.floor(TOGETHER_MS / stepMs);
    this.#ahead = Math.max(1, Math.min(2 * this.#ahead, span, ring.length));
    await this.#yielder.yieldIfDue(signal);
    return ids;
  }

  /** Takes the id that stands ready; its logits [V]. */
  async decode(): Promise<Float32Array> {
    this.#advance(this.plans.decode);
    return await this.backend.read(this.one.logits) as Float32Array;
  }

  /** Logits [ids.length, V] of every row, from an empty cache. */
  async logits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    const V = this.architecture.vocabSize;
    const { logits, plan } = this.#logits ??= await this.#recordLogits();
    const all = new Float32Array(ids.length * V);
    this.#length = 0;
    this.#forget();
    for await (const { length: rows } of this.#feed(ids, plan, signal)) {
      const chunk = await this.backend.read(logits, 0, rows * V) as Float32Array;
      all.set(chunk, this.#length * V);
    }
    if (!all.every(Number.isFinite)) throw await this.notFinite(ids);
    return all;
  }

  /**
   * Times the step that takes the last of `ids` (at most S) and draws, and a whole chunk from an empty cache. Draws by what
   * `startSampling` was told last; empties the cache.
   */
  async profile(ids: readonly number[]): Promise<{ prefill: PassTimes; decode: PassTimes }> {
    const { weights, many, one, sampling, plans, chunk } = this;
    await this.prefill(ids); // what is timed works on real numbers
    const decode = await this.#time(
      this.#step(1),
      plans.draw,
      (k) => forwardAndSample(k, weights, one, sampling),
    );
    await this.prefill(ids.slice(0, 1)); // the step has gone over the cache's last entry
    const prefill = await this.#time(
      { rows: chunk, position: 0, slot: 0, length: chunk },
      plans.prefill,
      (k) => forward(k, weights, many),
    );
    return { prefill, decode };
  }

  async #time(step: Segment, plan: Plan, build: (k: Recorder) => void): Promise<PassTimes> {
    const { backend, one } = this;
    const time = async (count: number) => {
      const start = performance.now();
      for (let i = 0; i < count; i++) plan.run(step);
      await backend.read(one.ids);
      return (performance.now() - start) / count;
    };
    await time(1);
    // As many together as a generation queues at most; one where each is done when it is run.
    const count = Math.min(backend.readAhead ?? 1, Math.ceil(TOGETHER_MS / await time(1)));
    const turns: number[] = [];
    const end = performance.now() + PASS_MS;
    while (turns.length < PASS_TURNS || performance.now() < end) turns.push(await time(count));
    const ms = turns.sort((a, b) => a - b)[turns.length >> 1];
    return { step, ms, kernels: await backend.profile(build, step) };
  }

  /** Says which layer first gives a number that is not finite for these ids; runs the layers again, one more at a time. */
  async notFinite(ids: readonly number[]): Promise<CheckpointError> {
    const { weights, many, architecture: { nLayer, nEmbd } } = this;
    const window = ids.slice(-this.slots);
    for (let layers = 0; layers <= nLayer; layers++) {
      const head = { ...weights, h: weights.h.slice(0, layers) };
      using plan = await this.backend.record((k) => forward(k, head, many));
      this.#length = 0;
      this.#forget();
      for await (const { length: rows } of this.#feed(window, plan)) {
        const x = await this.backend.read(many.x, 0, rows * nEmbd) as Float32Array;
        if (!x.every(Number.isFinite)) {
          const place = layers === 0 ? "the embedding" : `layer h.${layers - 1} of ${nLayer}`;
          return this.#notFinite(place);
        }
      }
    }
    return this.#notFinite("the final norm or the head");
  }

  #notFinite(place: string): CheckpointError {
    return new CheckpointError(
      `Cannot run "${this.id}": expected finite logits, got NaN or infinity, first after ${place}`,
    );
  }

  async #recordLogits(): Promise<{ logits: Tensor; plan: Plan }> {
    const { backend, architecture, weights, many, chunk } = this;
    const logits = makeLogits(backend, architecture, chunk);
    return { logits, plan: await backend.record((k) => forward(k, weights, { ...many, logits })) };
  }

  /** Runs a plan of many rows over the ids that the cache has not taken yet; yields each chunk before it is counted as taken. */
  async *#feed(ids: readonly number[], plan: Plan, signal?: AbortSignal) {
    while (this.#length < ids.length) {
      const chunk = ids.slice(this.#length, this.#length + this.chunk);
      this.backend.write(this.many.ids, Int32Array.from(chunk));
      plan.run(this.#step(chunk.length));
      yield chunk;
      this.#length += chunk.length;
      await this.#yielder.yieldIfDue(signal);
    }
  }

  /** Queues a pass over the one id that stands ready. */
  #advance(plan: Plan): void {
    plan.run(this.#step(1));
    // Past the window a slot is written again, and the beginning is no longer what was written first.
    if (this.full) this.#forget();
    this.#length++;
  }

  /** The step of the next `rows` tokens. */
  #step(rows: number): Segment {
    const S = this.slots;
    const beyond = this.architecture.rope ? S : S - 1;
    return {
      rows,
      position: Math.min(this.#length, beyond),
      slot: this.#length % S,
      length: Math.min(this.#length + rows, S),
    };
  }

  /**
   * Entries to keep for a prompt that begins as the last one: whole chunks alone, so that every sum is made as it was. Those written
   * while drawing are the same numbers but for rounding: a chat keeps them, and encodes only what is new.
   */
  #common(ids: readonly number[], reuse: true | "all"): number {
    const known = reuse === "all" ? this.#written.length : this.#prefilled;
    let same = 0;
    while (same < ids.length && same < known && ids[same] === this.#written[same]) same++;
    return reuse === "all" ? same : same - same % this.chunk;
  }

  /** Trusts the first entries alone. */
  #forget(from = 0): void {
    this.#written.length = Math.min(this.#written.length, from);
    this.#prefilled = Math.min(this.#prefilled, from);
  }
}

async function recordPlans(
  record: Backend["record"],
  weights: Weights,
  many: State,
  one: State & { logits: Tensor },
  sampling: Sampling,
): Promise<Plans> {
  return {
    prefill: await record((k) => forward(k, weights, many)),
    decode: await record((k) => forward(k, weights, one)),
    draw: await record((k) => forwardAndSample(k, weights, one, sampling)),
  };
}

function forwardAndSample(
  k: Recorder,
  w: Weights,
  s: State & { logits: Tensor },
  sampling: Sampling,
): void {
  forward(k, w, s);
  k.sample(s.ids, s.logits, sampling);
}

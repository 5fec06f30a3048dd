/**
 * An open model: generation, logits, its memory, its disposal.
 *
 * @module
 */
import type { Activations, Backend } from "../kernels/backend.ts";
import type { Memory } from "../kernels/memory.ts";
import { kvFormatOf } from "../kernels/formats/kv.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import type { Architecture } from "./architecture/mod.ts";
import { encodeChat } from "./conversation.ts";
import { findNotFinite } from "./diagnose.ts";
import { DEFAULTS } from "./defaults.ts";
import { CheckpointError } from "./errors.ts";
import {
  ABORTED,
  checkGenerate,
  type GeneratedToken,
  type GenerateOptions,
  type GenerateSettings,
  generateTokens,
} from "./generate.ts";
import { copyIds, expectType } from "./options.ts";
import type { Runner } from "./runner.ts";
import type { ChatMessage, Tokenizer } from "./tokenizer/tokenizer.ts";
import { isQuantised } from "./weights/mod.ts";

/** Access of the benchmark and the profile to a model, beside its public members. */
export interface Instruments {
  /**
   * Waits until the model is free and runs `work` on a copy of `ids`.
   * @param signal ends the waiting with its reason.
   * @throws {TypeError} If `ids` is no list.
   * @throws {RangeError} If there are no ids, an id is outside the vocabulary, or there are more
   *   ids than the context holds.
   */
  run<T>(
    ids: readonly number[],
    work: (runner: Runner, ids: readonly number[]) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T>;
  /**
   * As `Model.generate`.
   * @param onRead called after each read from the device, with the number of ids that it returned.
   */
  generate(
    ids: readonly number[],
    options: GenerateOptions,
    onRead: (count: number) => void,
  ): AsyncIterableIterator<GeneratedToken>;
  /**
   * Opens the same weights once more, on typed arrays.
   * @param contextLength number of tokens that its cache holds.
   * @param signal ends the loading with its reason.
   */
  openPlain(contextLength: number, signal?: AbortSignal): Promise<PlainRunner>;
}

/** The passes of a model on typed arrays; disposing of it frees its weights. */
export interface PlainRunner extends AsyncDisposable {
  readonly runner: Runner;
}

/**
 * Runs a function of the library on a model whose engine is in another thread.
 * @param args its arguments without the model, and its options.
 */
export type RemoteCall = <T>(
  name: "benchmark" | "profile" | "perplexity",
  args: readonly unknown[],
  options: object,
) => Promise<T>;

/** The calls of each model whose engine is in another thread: a page's. */
export const remoteCalls: WeakMap<Model, RemoteCall> = new WeakMap();

/** What a model uses of its backend. */
export type ModelBackend =
  & Pick<
    Backend,
    "name" | "threads" | "description" | "onGpu" | "shaders" | "simd" | "memory" | "activations"
  >
  & AsyncDisposable;

/** The instruments of a model; not exported by `mod.ts`. */
export let instrumentsOf: (model: Model) => Instruments;

/** A loaded model: generation, logits, and its memory until it is disposed of. */
export class Model implements AsyncDisposable {
  static {
    // Trick: gives other modules of the engine access to private members, without a public door.
    instrumentsOf = (model) => ({
      run: (ids, work, signal) => model.#run(ids, work, signal),
      generate: (ids, options, onRead) => model.#start(ids, options, onRead),
      openPlain: (contextLength, signal) => model.#openPlain(contextLength, signal),
    });
  }

  #runner: Runner | null;
  /** Settles when the model is free; the next caller waits for it. */
  #free: Promise<void> = Promise.resolve();
  readonly #tokenizer: Tokenizer | string;
  readonly #backend: ModelBackend;
  readonly #openPlain: Instruments["openPlain"];
  /** The source that the model was loaded from. */
  readonly id: string;
  /** Dtype of the weights in memory. */
  readonly dtype: WeightDtype;
  /** Choices and omissions made while reading the files, a sentence each. */
  readonly notes: readonly string[];
  /** Time of loading, from the call of `loadModel` on, in ms. */
  readonly loadMs: number;
  /** Number of learned parameters; tied ones count once. */
  readonly parameters: number;
  /** Bytes of the weights in memory. */
  readonly weightsBytes: number;

  /** Called by `loadModel`. The runner is null if it is in another thread (`page/remote.ts`). */
  constructor(
    backend: ModelBackend,
    /** The architecture record. */
    readonly config: Architecture,
    runner: Runner | null,
    tokenizer: Tokenizer | string,
    facts: {
      id: string;
      dtype: WeightDtype;
      parameters: number;
      loadMs: number;
      notes: readonly string[];
      openPlain: Instruments["openPlain"];
    },
  ) {
    this.#backend = backend;
    this.#runner = runner;
    this.#tokenizer = tokenizer;
    this.id = facts.id;
    this.dtype = facts.dtype;
    this.loadMs = facts.loadMs;
    this.parameters = facts.parameters;
    this.notes = facts.notes;
    this.#openPlain = facts.openPlain;
    this.weightsBytes = backend.memory.classes.weights.current;
  }

  /** The backend that the model runs on. */
  get backend(): Pick<Backend, "name" | "threads" | "description" | "onGpu" | "shaders" | "simd"> {
    return this.#backend;
  }

  /** Tracked bytes of every buffer; all 0 after disposal. */
  get memory(): Memory {
    return this.#backend.memory;
  }

  /** Number of tokens that the cache holds. */
  get contextLength(): number {
    return this.#alive().slots;
  }

  /** Dtype of the keys and values in the cache. */
  get kvDtype(): string {
    const [cache] = this.#alive().buffers.decode.cache;
    return cache ? kvFormatOf(cache.k.dtype)!.dtype : DEFAULTS.kvDtype;
  }

  /** Bits of activations in products: "int8" if weights are quantised and 8 bits were asked for. */
  get activations(): Activations {
    const { activations = "exact" } = this.#backend;
    // A backend in another thread gives those of its model.
    return !this.#runner || isQuantised(this.#runner.weights) ? activations : "exact";
  }

  /** Whether a generation continues past the context, as the model's family defines it. */
  get slides(): boolean {
    return this.config.slides || this.config.crops;
  }

  /** Whether there is a tokenizer; a model without one works with ids. */
  get hasTokenizer(): boolean {
    return typeof this.#tokenizer !== "string";
  }

  /**
   * The tokenizer found with the weights.
   * @throws {CheckpointError} If there is none; the message says why.
   */
  get tokenizer(): Tokenizer {
    if (typeof this.#tokenizer === "string") throw new CheckpointError(this.#tokenizer);
    return this.#tokenizer;
  }

  /**
   * Draws tokens after a prompt, one item for each id; the last item has the reason for the end.
   *
   * Leaving the loop early leaves the model usable. A second generation waits for the first.
   *
   * @param prompt text, which is encoded with special tokens, or ids.
   * @param options sampling, length, stop strings and signal.
   * @throws {TypeError} If the prompt or an option is of the wrong type.
   * @throws {RangeError} If an option is out of range, the prompt is empty, an id is outside the
   *   vocabulary, or the prompt is beyond the context (models of LabCore and nanoGPT crop it).
   * @throws {CheckpointError} If text is given or asked for and there is no tokenizer, or a logit
   *   is not finite (the message names the layer).
   * @example
   * ```ts
   * import { loadModel } from "@wgslm/wgslm";
   *
   * await using model = await loadModel("bench/demo");
   * for await (const { text } of model.generate("ROMEO:", { maxNewTokens: 16, seed: 1 })) {
   *   console.log(text);
   * }
   * ```
   */
  generate(
    prompt: string | readonly number[],
    options: GenerateOptions = {},
  ): AsyncIterableIterator<GeneratedToken> {
    return this.#start(prompt, options);
  }

  /**
   * Draws the assistant's answer to a conversation: the tokenizer's chat template, then `generate`.
   *
   * `reusePrompt: "all"` keeps the cache from one answer to the next, so that only new messages are
   * prefilled.
   *
   * @param messages the conversation, the oldest message first.
   * @param options as of `generate`.
   * @throws {CheckpointError} If there is no tokenizer, it has no chat template, or the template
   *   refuses the conversation.
   * @throws {TypeError} If a message has no role or no content, or an option is of the wrong type.
   * @throws {RangeError} As `generate` does.
   * @example
   * ```ts ignore
   * const messages = [{ role: "user", content: "What is the capital of France?" }];
   * for await (const { text } of model.chat(messages, { temperature: 0 })) console.log(text);
   * ```
   */
  chat(
    messages: readonly ChatMessage[],
    options: GenerateOptions = {},
  ): AsyncIterableIterator<GeneratedToken> {
    return this.#start(encodeChat(this.tokenizer, messages), options);
  }

  /**
   * Computes the logits of every position.
   *
   * @param ids at most `contextLength` ids, [T].
   * @returns logits, [T, V] row by row, V the vocabulary's size.
   * @throws {TypeError} If `ids` is no list.
   * @throws {RangeError} If there are no ids, an id is outside the vocabulary, or there are more
   *   ids than the context holds.
   * @throws {CheckpointError} If a logit is not finite; the message names the layer.
   * @example
   * ```ts
   * import { loadModel } from "@wgslm/wgslm";
   *
   * await using model = await loadModel("bench/demo");
   * const ids = model.tokenizer.encode("ROMEO:");
   * const logits = await model.logits(ids);
   * console.log(logits.length === ids.length * model.config.vocabSize); // true
   * ```
   */
  async logits(ids: readonly number[]): Promise<Float32Array> {
    return await this.#run(ids, async (runner, ids) => {
      const logits = await runner.logits(ids);
      if (!logits.every(Number.isFinite)) throw await findNotFinite(runner, ids);
      return logits;
    });
  }

  /** Frees every buffer. A generation under way ends with an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#runner) return;
    this.#runner = null;
    await this.#backend[Symbol.asyncDispose]();
  }

  /** Checks prompt and options when `generate` is called, not when its first item is asked for. */
  #start(
    prompt: string | readonly number[],
    options: GenerateOptions,
    onRead?: (count: number) => void,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const { slots } = this.#alive();
    const settings = checkGenerate(options);
    if (settings.stop.length && !this.hasTokenizer) this.tokenizer; // throws: stops need text
    const isPrompt = typeof prompt === "string" || typeof prompt === "object" && prompt !== null;
    expectType("Cannot generate: expected a prompt", "text or token ids", isPrompt, prompt);
    const ids = this.#checkIds(
      typeof prompt === "string" ? this.tokenizer.encode(prompt) : prompt,
    );
    const count = ids.length;
    if (!this.slides && count > slots) {
      throw new RangeError(
        `Cannot generate: expected a prompt of at most ${slots} tokens (the context), got ${count}`,
      );
    }
    return this.#generate(ids, settings, onRead);
  }

  async *#generate(
    ids: readonly number[],
    settings: GenerateSettings,
    onRead?: (count: number) => void,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const release = await this.#acquire(settings.signal);
    if (!release) return yield ABORTED;
    try {
      const runner = this.#alive();
      await runner.useFixed(settings.deterministic);
      const tokenizer = this.hasTokenizer ? this.tokenizer : null;
      // A chat model's configuration may name only the end of a text; the tokenizer has the id
      // that ends an answer.
      const eosIds = [...this.config.eosIds, ...tokenizer?.eosIds ?? []];
      const checkAlive = () => void this.#alive();
      yield* generateTokens({ runner, tokenizer, eosIds, checkAlive }, ids, settings, onRead);
    } finally {
      release();
    }
  }

  async #run<T>(
    asked: readonly number[],
    work: (runner: Runner, ids: readonly number[]) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const ids = this.#checkIds(asked);
    const { slots } = this.#alive();
    if (ids.length > slots) {
      throw new RangeError(
        `Cannot give logits: expected at most ${slots} ids (the context), got ${ids.length}`,
      );
    }
    const release = await this.#acquire(signal);
    if (!release) throw signal!.reason;
    try {
      return await work(this.#alive(), ids);
    } finally {
      release();
    }
  }

  /** Waits until the model is free; the result frees it again. null if aborted while waiting. */
  async #acquire(signal?: AbortSignal): Promise<(() => void) | null> {
    const before = this.#free;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#free = promise;
    const aborted = Promise.withResolvers<"aborted">();
    const onAbort = () => aborted.resolve("aborted");
    signal?.addEventListener("abort", onAbort);
    const first = signal?.aborted ? "aborted" : await Promise.race([before, aborted.promise]);
    signal?.removeEventListener("abort", onAbort);
    if (first !== "aborted") return resolve;
    before.then(resolve); // later ones still wait for the earlier ones
    return null;
  }

  #alive(): Runner {
    if (!this.#runner) throw new Error(`Cannot use "${this.id}": it was disposed of`);
    return this.#runner;
  }

  /** A checked copy of ids that the caller may change. */
  #checkIds(ids: readonly number[]): number[] {
    const copy = copyIds(ids, this.config.vocabSize);
    if (copy.length) return copy;
    throw new RangeError("Cannot run an empty prompt: expected at least one token");
  }
}

/**
 * An open model: generation, logits, its memory, its disposal.
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import type { Memory } from "../kernels/memory.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import type { Architecture } from "./architecture/mod.ts";
import { encodeChat } from "./conversation.ts";
import { DEFAULTS } from "./defaults.ts";
import { findNotFinite } from "./diagnose.ts";
import { CheckpointError } from "./errors.ts";
import {
  checkGenerate,
  type GeneratedToken,
  type GenerateOptions,
  generateTokens,
} from "./generate.ts";
import type { Runner } from "./runner.ts";
import type { ChatMessage, Tokenizer } from "./tokenizer/tokenizer.ts";

/** What the benchmark and the profile use of a model beside its public members. */
export interface Instruments {
  /**
   * Runs `work` over `ids` while nothing else runs on the model.
   * @throws {RangeError} on no ids, an id outside the vocabulary, or more ids than the context
   *   holds.
   */
  run<T>(ids: readonly number[], work: (runner: Runner) => Promise<T>): Promise<T>;
  /**
   * As `Model.generate`; `onRead` is called with the number of ids that each read from the device
   * brings.
   */
  generate(
    ids: readonly number[],
    options: GenerateOptions,
    onRead: (count: number) => void,
  ): AsyncIterableIterator<GeneratedToken>;
}

/** The instruments of a model; not exported by `mod.ts`. */
export let instrumentsOf: (model: Model) => Instruments;

/** A loaded model. Dispose of it to give its memory back. */
export class Model implements AsyncDisposable {
  static {
    // Trick: only code inside the class reaches private members, so the function for other modules
    // is made here.
    instrumentsOf = (model) => ({
      run: (ids, work) => model.#run(ids, work),
      generate: (ids, options, onRead) => model.#start(ids, options, onRead),
    });
  }

  #runner: Runner | null;
  /** Settles when the model is free; the next use waits for it. */
  #free: Promise<void> = Promise.resolve();
  readonly #tokenizer: Tokenizer | string;
  readonly #backend: Backend;
  /** What the model was loaded from. */
  readonly id: string;
  /** The dtype that the weights are kept in. */
  readonly dtype: WeightDtype;
  /** What was chosen or left out when the files were read, a sentence each. */
  readonly notes: readonly string[];
  /** From the call of `loadModel` to a model that is ready, in ms. */
  readonly loadMs: number;
  /** Learned numbers, tied ones once. */
  readonly parameters: number;
  /** Bytes of the weights as they are kept. */
  readonly weightsBytes: number;

  /** Made by `loadModel`. */
  constructor(
    backend: Backend,
    /** The architecture record. */
    readonly config: Architecture,
    runner: Runner,
    tokenizer: Tokenizer | string,
    facts: {
      id: string;
      dtype: WeightDtype;
      parameters: number;
      loadMs: number;
      notes: readonly string[];
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
    this.weightsBytes = backend.memory.classes.weights.current;
  }

  /** What the model runs on. */
  get backend(): Pick<Backend, "name" | "threads" | "description" | "onGpu" | "shaders"> {
    return this.#backend;
  }

  /** Tracked bytes of every buffer; all zero after dispose. */
  get memory(): Memory {
    return this.#backend.memory;
  }

  /** Tokens that the cache holds. */
  get contextLength(): number {
    return this.#alive().slots;
  }

  /** Whether a generation goes on past the context, by the rule of the model's family. */
  get slides(): boolean {
    return this.config.slides || this.config.crops;
  }

  /** Whether there is a tokenizer; without one the model works with ids. */
  get hasTokenizer(): boolean {
    return typeof this.#tokenizer !== "string";
  }

  /**
   * The tokenizer that lies beside the weights.
   * @throws {CheckpointError} saying why there is none, when there is none.
   */
  get tokenizer(): Tokenizer {
    if (typeof this.#tokenizer === "string") throw new CheckpointError(this.#tokenizer);
    return this.#tokenizer;
  }

  /**
   * Draws tokens after a prompt, one item for each id. The last item has the reason for the end.
   * Leaving the loop early leaves the model usable; a second generation waits for the first.
   *
   * @throws {RangeError} on an option out of range, an empty prompt, an id outside the vocabulary,
   *   or a prompt beyond the context (LabCore's models crop it).
   * @throws {CheckpointError} on text without a tokenizer, and when logits are not finite; it names
   *   the layer.
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
   * `reusePrompt: "all"` keeps the cache from one answer to the next, so that a conversation that
   * goes on feeds only what is new.
   * @param messages the conversation, the oldest message first.
   * @throws {CheckpointError} when there is no tokenizer, or it has no chat template or refuses the
   *   conversation.
   * @throws {TypeError} when a message has no role or no content.
   * @throws {RangeError} as `generate` does.
   *
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
   * Logits of every position: Float32Array [ids.length, vocabSize].
   * @throws {RangeError} on no ids, an id outside the vocabulary, or more ids than the context
   *   holds.
   * @throws {CheckpointError} when a logit is not finite; it names the layer.
   */
  logits(ids: readonly number[]): Promise<Float32Array> {
    return this.#run(ids, async (runner) => {
      const logits = await runner.logits(ids);
      if (!logits.every(Number.isFinite)) throw await findNotFinite(runner, ids);
      return logits;
    });
  }

  /** Frees every buffer. A generation that is under way ends with an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#runner) return;
    this.#runner = null;
    await this.#backend[Symbol.asyncDispose]();
  }

  /** Checks everything before the first token is asked for. */
  #start(
    prompt: string | readonly number[],
    options: GenerateOptions,
    onRead?: (count: number) => void,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const { slots } = this.#alive();
    const { stop } = checkGenerate(options);
    if (stop.length && !this.hasTokenizer) this.tokenizer; // throws: a stop string needs one
    const ids = typeof prompt === "string" ? this.tokenizer.encode(prompt) : [...prompt];
    this.#checkIds(ids);
    const count = ids.length;
    if (!this.slides && count > slots) {
      throw new RangeError(
        `Cannot generate: expected a prompt of at most ${slots} tokens (the context), got ${count}`,
      );
    }
    return this.#generate(ids, options, onRead);
  }

  async *#generate(
    ids: readonly number[],
    options: GenerateOptions,
    onRead?: (count: number) => void,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const release = await this.#acquire();
    try {
      const runner = this.#alive();
      await runner.useFixed(options.deterministic ?? DEFAULTS.deterministic);
      const tokenizer = this.hasTokenizer ? this.tokenizer : null;
      // A chat model's configuration may name the end of a text alone; the tokenizer has the id
      // that ends an answer.
      const eosIds = [...this.config.eosIds, ...tokenizer?.eosIds ?? []];
      const checkAlive = () => void this.#alive();
      yield* generateTokens({ runner, tokenizer, eosIds, checkAlive }, ids, options, onRead);
    } finally {
      release();
    }
  }

  async #run<T>(ids: readonly number[], work: (runner: Runner) => Promise<T>): Promise<T> {
    this.#checkIds(ids);
    const { slots } = this.#alive();
    if (ids.length > slots) {
      throw new RangeError(
        `Cannot give logits: expected at most ${slots} ids (the context), got ${ids.length}`,
      );
    }
    const release = await this.#acquire();
    try {
      return await work(this.#alive());
    } finally {
      release();
    }
  }

  /** Waits until the model is free and takes it; the result frees it. */
  async #acquire(): Promise<() => void> {
    const before = this.#free;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#free = promise;
    await before;
    return resolve;
  }

  #alive(): Runner {
    if (!this.#runner) throw new Error(`Cannot use "${this.id}": it was disposed of`);
    return this.#runner;
  }

  #checkIds(ids: readonly number[]): void {
    if (!ids.length) {
      throw new RangeError("Cannot run an empty prompt: expected at least one token");
    }
    const V = this.config.vocabSize;
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= V);
    if (wrong !== undefined) {
      throw new RangeError(`Cannot run id ${wrong}: expected an integer from 0 to ${V - 1}`);
    }
  }
}

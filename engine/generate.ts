/**
 * Text generation: sampled ids, reasons to stop, and text that is held back until it is certain.
 *
 * @module
 */
import { NOT_FINITE } from "../kernels/ops/sample/mod.ts";
import { DEFAULTS } from "./defaults.ts";
import { findNotFinite } from "./diagnose.ts";
import type { Runner } from "./runner.ts";
import { expectType } from "./options.ts";
import { checkSampling, expectOption, type SamplingOptions } from "./sampler.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

/** Options of a generation. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens to draw at most. Default 256. */
  readonly maxNewTokens?: number;
  /** Seed of the draws, an integer from 0 to 2⁵³ − 1; null, the default, picks one at random. */
  readonly seed?: number | null;
  /**
   * Whether reruns are equal bit for bit: kernels chosen without measuring, a fixed order of sums,
   * no cache entries of an earlier prompt. Default false.
   */
  readonly deterministic?: boolean;
  /** Whether keys and values are kept; false computes the window anew per token. Default true. */
  readonly useKvCache?: boolean;
  /** One or more texts that end the generation and are not yielded. Default none. */
  readonly stop?: string | readonly string[];
  /** Whether to go on after an end-of-text id. Default false. */
  readonly ignoreEos?: boolean;
  /**
   * Whether to reuse cache entries where the prompt begins like the last one. true: those that its
   * prefill wrote, so that every sum keeps its order; "all": also those of its answer, as a chat
   * does, which may round differently. Default true, but false under `deterministic`.
   */
  readonly reusePrompt?: boolean | "all";
  /** Ends the generation with the reason "aborted", even while it waits for another one. */
  readonly signal?: AbortSignal;
}

/** Why a generation ended. */
export type FinishReason = "stop" | "eos" | "length" | "context" | "aborted";

/** One id and the text that became certain with it. */
export interface GeneratedToken {
  /** Absent if the last item has only a reason. */
  readonly id?: number;
  /** Text that became certain with this id; may be empty. */
  readonly text: string;
  /** Present on the last item only. */
  readonly finishReason?: FinishReason;
}

/** The last item of a generation that was aborted. */
export const ABORTED: GeneratedToken = { text: "", finishReason: "aborted" };

/** Parts of a model that a generation uses. */
export interface GenerationModel {
  readonly runner: Runner;
  readonly tokenizer: Tokenizer | null;
  readonly eosIds: readonly number[];
  /** Throws if the model has been disposed of. */
  readonly checkAlive: () => void;
}

/** A random seed of 32 bits. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** Checked options with their defaults. */
export interface GenerateSettings extends Required<Omit<GenerateOptions, "signal" | "stop">> {
  readonly seed: number;
  /** No empty text among them. */
  readonly stop: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * Checks every option and fills in defaults, before anything runs.
 * @throws {TypeError} If an option is of the wrong type.
 * @throws {RangeError} If an option is out of range.
 */
export function checkGenerate(options: GenerateOptions): GenerateSettings {
  const sampling = checkSampling(options);
  const maxNewTokens = options.maxNewTokens ?? DEFAULTS.maxNewTokens;
  expectOption("maxNewTokens", maxNewTokens);
  const seed = options.seed ?? randomSeed();
  expectOption("seed", seed);
  const deterministic = expectFlag(options, "deterministic") ?? DEFAULTS.deterministic;
  const useKvCache = expectFlag(options, "useKvCache") ?? DEFAULTS.useKvCache;
  const ignoreEos = expectFlag(options, "ignoreEos") ?? DEFAULTS.ignoreEos;
  const reusePrompt = options.reusePrompt === "all"
    ? "all"
    : expectFlag(options, "reusePrompt") ?? true;
  const signal = options.signal ?? undefined;
  expectType(
    "Cannot generate: expected signal",
    "an AbortSignal",
    signal === undefined || signal instanceof AbortSignal,
    signal,
  );
  return {
    ...sampling,
    maxNewTokens,
    seed,
    stop: checkStop(options.stop),
    deterministic,
    useKvCache,
    ignoreEos,
    reusePrompt,
    signal,
  };
}

/** Names of the options that are true or false. */
type FlagName = "deterministic" | "useKvCache" | "ignoreEos" | "reusePrompt";

function expectFlag(options: GenerateOptions, name: FlagName): boolean | undefined {
  const value = options[name] ?? undefined;
  const type = name === "reusePrompt" ? 'true, false or "all"' : "true or false";
  const holds = value === undefined || typeof value === "boolean";
  expectType(`Cannot generate: expected ${name}`, type, holds, value);
  return value as boolean | undefined;
}

function checkStop(stop: GenerateOptions["stop"]): readonly string[] {
  const texts = stop == null ? [] : typeof stop === "string" ? [stop] : stop;
  const type = "a text or a list of texts";
  expectType("Cannot generate: expected stop", type, Array.isArray(texts), stop);
  // The copy has undefined in place of the holes of a sparse list.
  for (const text of [...texts]) {
    expectType("Cannot generate: expected each stop", "a text", typeof text === "string", text);
  }
  return texts.filter((text) => text !== "");
}

/** A generation under way. */
interface Generation {
  readonly model: GenerationModel;
  readonly settings: GenerateSettings;
  /** The prompt and the ids drawn so far. */
  readonly ids: number[];
  readonly text: TextOut;
  readonly onRead?: (count: number) => void;
}

/**
 * Draws tokens after `prompt`. The caller must have the model to itself until the iteration ends.
 *
 * @param prompt ids within the vocabulary, at least one.
 * @param onRead called after each read from the device, with the number of ids that it returned.
 */
export async function* generateTokens(
  model: GenerationModel,
  prompt: readonly number[],
  settings: GenerateSettings,
  onRead?: (count: number) => void,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { maxNewTokens, seed, stop, useKvCache, deterministic, reusePrompt, signal } = settings;
  const reuse = useKvCache && !deterministic && reusePrompt;
  const { runner } = model;
  const text = new TextOut(model.tokenizer, stop);
  const ids = [...prompt];
  const run = { model, settings, ids, text, onRead };
  if (signal?.aborted) return yield ABORTED;
  if (maxNewTokens === 0) return yield { text: "", finishReason: "length" };
  try {
    runner.startSampling(settings, seed);
    await runner.prefill(ids.slice(-runner.slots), { reuse, signal });
    let drawn: number[] = []; // the next one last
    for (let count = 1;; count++) {
      model.checkAlive();
      if (!drawn.length) drawn = await drawNext(run, count);
      const id = drawn.pop() as number;
      if (id === NOT_FINITE) throw await findNotFinite(runner, ids);
      ids.push(id);
      const token = tokenOf(run, id, count);
      yield token;
      if (token.finishReason) return;
      if (signal?.aborted) break;
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
  yield { text: text.flush(), finishReason: "aborted" };
}

/**
 * Draws ids, the next one last. Prefills the window anew without a cache, past the context of a
 * model that crops, and where the text outgrows the rotations of the cached keys.
 */
async function drawNext(run: Generation, count: number): Promise<number[]> {
  const { model: { runner }, settings: { maxNewTokens, useKvCache, signal }, ids, onRead } = run;
  const { slots, architecture: { crops } } = runner;
  const isCropped = crops && ids.length > slots;
  if (count > 1 && (!useKvCache || isCropped || runner.outgrows(ids.length))) {
    await runner.prefill(ids.slice(-slots), { signal });
  }
  const drawn = await runner.draw(useKvCache ? maxNewTokens - count + 1 : 1, signal);
  onRead?.(drawn.length);
  return drawn.reverse();
}

/** The item of the `count`-th drawn id; the last item if the id ends the generation. */
function tokenOf(run: Generation, id: number, count: number): GeneratedToken {
  const { model: { runner, eosIds }, settings: { maxNewTokens, ignoreEos }, ids, text } = run;
  if (!ignoreEos && eosIds.includes(id)) return { id, text: text.flush(), finishReason: "eos" };
  const { slots, architecture: { slides, crops } } = runner;
  const piece = text.push(id);
  let finishReason: FinishReason | undefined;
  if (text.stopped) finishReason = "stop";
  else if (count === maxNewTokens) finishReason = "length";
  else if (!slides && !crops && ids.length > slots) finishReason = "context";
  return finishReason ? { id, text: piece + text.flush(), finishReason } : { id, text: piece };
}

/** Releases text once it is certain: whole characters, and no beginning of a stop string. */
class TextOut {
  stopped = false;
  #held = "";
  readonly #stream: ReturnType<Tokenizer["stream"]> | null;

  constructor(tokenizer: Tokenizer | null, readonly stop: readonly string[]) {
    this.#stream = tokenizer?.stream() ?? null;
  }

  push(id: number): string {
    this.#held += this.#stream?.push(id) ?? "";
    return this.#release();
  }

  /** The remaining text, at the end. */
  flush(): string {
    if (this.stopped) return "";
    this.#held += this.#stream?.flush() ?? "";
    const certain = this.#release();
    const rest = this.stopped ? "" : this.#held;
    this.#held = "";
    return certain + rest;
  }

  #release(): string {
    const hits = this.stop.map((s) => this.#held.indexOf(s)).filter((at) => at >= 0);
    if (hits.length) {
      this.stopped = true;
      return this.#held.slice(0, Math.min(...hits));
    }
    let keep = 0;
    for (const s of this.stop) {
      for (let n = Math.min(s.length - 1, this.#held.length); n > keep; n--) {
        if (this.#held.endsWith(s.slice(0, n))) keep = n;
      }
    }
    const end = this.#held.length - keep;
    const certain = this.#held.slice(0, end);
    this.#held = this.#held.slice(end);
    return certain;
  }
}

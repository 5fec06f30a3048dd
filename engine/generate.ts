/**
 * Text generation: ids drawn one after the other, reasons to stop, and text held back until it is
 * certain.
 *
 * @module
 */
import { NOT_FINITE } from "../kernels/ops/sample/mod.ts";
import { DEFAULTS } from "./defaults.ts";
import { findNotFinite } from "./diagnose.ts";
import type { Runner } from "./runner.ts";
import { checkSampling, expectOption, type SamplingOptions } from "./sampler.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

/** What a generation does beside sampling. */
export interface GenerateOptions extends SamplingOptions {
  /** Default 256. */
  readonly maxNewTokens?: number;
  /** An integer from 0 to 2⁵³ − 1; null, the default, draws one. */
  readonly seed?: number | null;
  /** Fixed order of sums, nothing reused: reruns are equal bit for bit. Default false. */
  readonly deterministic?: boolean;
  /** false: the whole window is computed again for every token. Default true. */
  readonly useKvCache?: boolean;
  /** Texts that end the generation; they are not yielded. Default none. */
  readonly stop?: readonly string[];
  /** Go on after an end-of-text id. Default false. */
  readonly ignoreEos?: boolean;
  /**
   * Keep the cache entries of a beginning that is the last prompt's too; "all": of the answer to it
   * as well, as a chat does, though reruns may then differ in rounding. Default true, but false
   * under `deterministic`.
   */
  readonly reusePrompt?: boolean | "all";
  /** Ends the generation with "aborted". */
  readonly signal?: AbortSignal;
}

/** Why a generation ended. */
export type FinishReason = "stop" | "eos" | "length" | "context" | "aborted";

/** One id and the text that became certain with it. */
export interface GeneratedToken {
  /** Missing on a last item that has only a reason. */
  readonly id?: number;
  /** Text that became certain with this id; may be empty. */
  readonly text: string;
  /** On the last item. */
  readonly finishReason?: FinishReason;
}

/** A model as a generation sees it. */
export interface GenerationModel {
  readonly runner: Runner;
  readonly tokenizer: Tokenizer | null;
  readonly eosIds: readonly number[];
  /** Throws when the model was disposed of. */
  readonly checkAlive: () => void;
}

/** A random seed. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/**
 * Checks every option, before anything runs.
 * @throws {RangeError} naming the option.
 */
export function checkGenerate(options: GenerateOptions): {
  sampling: Required<SamplingOptions>;
  maxNewTokens: number;
  seed: number;
  stop: readonly string[];
} {
  const maxNewTokens = options.maxNewTokens ?? DEFAULTS.maxNewTokens;
  expectOption("maxNewTokens", maxNewTokens);
  const seed = options.seed ?? randomSeed();
  expectOption("seed", seed);
  const stop = (options.stop ?? []).filter((text) => text !== "");
  return { sampling: checkSampling(options), maxNewTokens, seed, stop };
}

/** A generation under way. */
interface Generation {
  readonly model: GenerationModel;
  /** The prompt and what was drawn. */
  readonly ids: number[];
  readonly text: TextOut;
  readonly maxNewTokens: number;
  readonly useKvCache: boolean;
  readonly ignoreEos: boolean;
  readonly signal?: AbortSignal;
  readonly onRead?: (count: number) => void;
}

/**
 * Draws tokens after `prompt`. The caller has the model to itself until the iteration ends.
 * @param onRead called with the number of ids that each read from the device brings.
 */
export async function* generateTokens(
  model: GenerationModel,
  prompt: readonly number[],
  options: GenerateOptions,
  onRead?: (count: number) => void,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { sampling, maxNewTokens, seed, stop } = checkGenerate(options);
  const {
    useKvCache = DEFAULTS.useKvCache,
    deterministic = DEFAULTS.deterministic,
    ignoreEos = DEFAULTS.ignoreEos,
    signal,
  } = options;
  const reuse = useKvCache && !deterministic && (options.reusePrompt ?? true);
  const { runner } = model;
  const text = new TextOut(model.tokenizer, stop);
  const ids = [...prompt];
  const run = { model, ids, text, maxNewTokens, useKvCache, ignoreEos, signal, onRead };
  if (signal?.aborted) return yield { text: "", finishReason: "aborted" };
  if (maxNewTokens === 0) return yield { text: "", finishReason: "length" };
  try {
    runner.startSampling(sampling, seed);
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

/** Draws ids, the next one last. Prefills the window again where the cache does not serve. */
async function drawNext(run: Generation, count: number): Promise<number[]> {
  const { model: { runner }, ids, maxNewTokens, useKvCache, signal, onRead } = run;
  const { slots, architecture: { crops } } = runner;
  const isCropped = crops && ids.length > slots;
  if (count > 1 && (!useKvCache || isCropped)) {
    await runner.prefill(ids.slice(-slots), { signal });
  }
  const drawn = await runner.draw(useKvCache ? maxNewTokens - count + 1 : 1, signal);
  onRead?.(drawn.length);
  return drawn.reverse();
}

/**
 * The item of the id that was drawn last, the `count`-th; the last item if the id ends the text.
 */
function tokenOf(run: Generation, id: number, count: number): GeneratedToken {
  const { model: { runner, eosIds }, ids, text, maxNewTokens, ignoreEos } = run;
  if (!ignoreEos && eosIds.includes(id)) return { id, text: text.flush(), finishReason: "eos" };
  const { slots, architecture: { slides, crops } } = runner;
  const piece = text.push(id);
  let finishReason: FinishReason | undefined;
  if (text.stopped) finishReason = "stop";
  else if (count === maxNewTokens) finishReason = "length";
  else if (!slides && !crops && ids.length > slots) finishReason = "context";
  return finishReason ? { id, text: piece + text.flush(), finishReason } : { id, text: piece };
}

/** Text released when it is certain: whole characters, and no beginning of a stop string. */
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

  /** The text held back, at the end. */
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

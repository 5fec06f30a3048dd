/**
 * From a prompt to text, an id at a time: drawing, stopping, and holding back text that is not
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
  /** Missing on a last item that has only a reason to tell. */
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
  /** Throws when the model is gone. */
  readonly checkAlive: () => void;
}

/** A seed that nobody chose. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/**
 * Checks every option, so that a mistake is told before anything runs.
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
  const { runner, tokenizer, eosIds } = model;
  const { slots, architecture: { slides, crops } } = runner;
  const text = new TextOut(tokenizer, stop);
  const ids = [...prompt];
  if (signal?.aborted) return yield { text: "", finishReason: "aborted" };
  if (maxNewTokens === 0) return yield { text: "", finishReason: "length" };
  try {
    runner.startSampling(sampling, seed);
    await runner.prefill(ids.slice(-slots), { reuse, signal });
    let drawn: number[] = []; // the next one last
    for (let count = 1;; count++) {
      model.checkAlive();
      if (!drawn.length) {
        const isCropped = crops && ids.length > slots;
        if (count > 1 && (!useKvCache || isCropped)) {
          await runner.prefill(ids.slice(-slots), { signal });
        }
        drawn = await runner.draw(useKvCache ? maxNewTokens - count + 1 : 1, signal);
        onRead?.(drawn.length);
        drawn.reverse();
      }
      const id = drawn.pop() as number;
      if (id === NOT_FINITE) throw await findNotFinite(runner, ids);
      ids.push(id);
      let finishReason: FinishReason | undefined;
      let piece = "";
      if (!ignoreEos && eosIds.includes(id)) finishReason = "eos";
      else {
        piece = text.push(id);
        if (text.stopped) finishReason = "stop";
        else if (count === maxNewTokens) finishReason = "length";
        else if (!slides && !crops && ids.length > slots) finishReason = "context";
      }
      if (finishReason) return yield { id, text: piece + text.flush(), finishReason };
      yield { id, text: piece };
      if (signal?.aborted) break;
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
  yield { text: text.flush(), finishReason: "aborted" };
}

/**
 * Text that is let go only when it is certain: whole characters, and no beginning of a stop string.
 */
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

  /** What was held back, at the end. */
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

/**
 * The size of a benchmark: its prompt and its numbers of tokens, fitted to the model's context.
 *
 *     context  ├── prompt ──┼──── max(genTokens, warmupTokens) ────┤
 *
 * A value that was asked for stays as it is; a default shrinks to what the context leaves. A window
 * that goes on past the context takes any length.
 *
 * @module
 */
import { expectRoom } from "../engine/measure/benchmark.ts";
import { drawPrompt } from "../engine/measure/prompt.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { CheckpointError } from "../engine/errors.ts";
import type { Loadable } from "../engine/load.ts";

/** Values that were asked for; a missing one is a default. */
export interface AskedSize {
  readonly prompt?: string;
  /** Number of random ids in place of `prompt`. */
  readonly promptTokens?: number;
  readonly genTokens?: number;
  readonly warmupTokens?: number;
}

/** A size that fits. */
export interface BenchmarkSize {
  readonly prompt: string | readonly number[];
  readonly genTokens: number;
  readonly warmupTokens: number;
  /** Defaults that were changed, in a sentence. */
  readonly note?: string;
}

/**
 * Fits a benchmark to a context.
 * @param seed of random ids.
 * @throws {RangeError} If a value that was asked for does not fit, or the vocabulary cannot spell a
 *   prompt that was asked for.
 * @throws {CheckpointError} If a text is asked for and there is no tokenizer.
 */
export function fitBenchmark(
  model: Loadable,
  asked: AskedSize,
  seed: number,
): BenchmarkSize {
  const { contextLength: room, architecture } = model;
  const slides = architecture.slides || architecture.crops;
  let { prompt, ids, note } = choosePrompt(model, asked, seed);
  let { genTokens = DEFAULTS.genTokens, warmupTokens = DEFAULTS.warmupTokens } = asked;
  const longest = () => Math.max(genTokens, warmupTokens);
  if (!slides && ids.length + longest() > room) {
    if (asked.prompt === undefined && asked.promptTokens === undefined) {
      const tokens = Math.max(
        asked.genTokens ?? Math.floor(room / 2),
        asked.warmupTokens ?? 0,
      );
      const kept = ids.slice(0, Math.max(1, room - tokens));
      if (kept.length < ids.length) prompt = ids = kept;
    }
    const rest = room - ids.length;
    if (asked.genTokens === undefined) genTokens = Math.min(genTokens, Math.max(1, rest));
    if (asked.warmupTokens === undefined) warmupTokens = Math.min(warmupTokens, Math.max(0, rest));
    note =
      `${
        note ? `${note}; ` : ""
      }the context of ${room} tokens is too short for the defaults: took a prompt of ` +
      `${ids.length}, ${warmupTokens} to warm up and ${genTokens} in each iteration`;
  }
  expectRoom({ contextLength: room, slides }, ids.length, longest());
  return { prompt, genTokens, warmupTokens, note };
}

function choosePrompt(
  { architecture, tokenizer }: Loadable,
  { prompt, promptTokens }: AskedSize,
  seed: number,
): Pick<BenchmarkSize, "prompt" | "note"> & { ids: readonly number[] } {
  const draw = (count: number, note?: string) => {
    const ids = drawPrompt(count, architecture.vocabSize, seed);
    return { prompt: ids, ids, note };
  };
  if (prompt !== undefined) return { prompt, ids: encode(tokenizer, prompt) };
  if (promptTokens !== undefined) return draw(promptTokens);
  if (typeof tokenizer === "string") return draw(DEFAULTS.promptTokens);
  try {
    return { prompt: DEFAULTS.prompt, ids: tokenizer.encode(DEFAULTS.prompt) };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const note = `the vocabulary cannot spell "${DEFAULTS.prompt}": took ` +
      `${DEFAULTS.promptTokens} random ids as the prompt`;
    return draw(DEFAULTS.promptTokens, note);
  }
}

function encode(tokenizer: Loadable["tokenizer"], text: string): number[] {
  if (typeof tokenizer !== "string") return tokenizer.encode(text);
  // bench has another flag for ids than generate.
  const advice = tokenizer.replace("give ids with --ids", "draw ids with --prompt-tokens N");
  throw new CheckpointError(advice);
}

/**
 * A generation on standard output, token by token.
 *
 * @module
 */
import type { FinishReason, GenerateOptions, Model } from "../mod.ts";
import { plural, rate } from "./format.ts";
import { ask, print, printText, say } from "./terminal.ts";
import { runtime } from "../engine/host/runtime.ts";

/** A finished generation. */
export interface Written {
  readonly text: string;
  readonly tokens: number;
  readonly seconds: number;
  readonly reason?: FinishReason;
}

/**
 * Generates, prints, and ends the last line. A model without a tokenizer gives ids, separated by
 * commas as `--ids` takes them.
 */
export async function write(
  model: Model,
  prompt: string | readonly number[],
  options: GenerateOptions,
  isVerbose: boolean,
): Promise<Written> {
  const start = performance.now();
  let tokens = 0;
  let reason: FinishReason | undefined;
  let all = "";
  try {
    for await (const { id, text, finishReason } of model.generate(prompt, options)) {
      reason = finishReason;
      let shown = text;
      if (id !== undefined) {
        if (!model.hasTokenizer) shown = tokens ? `,${id}` : `${id}`;
        tokens++;
      }
      all += shown;
      if (shown) printText(shown);
    }
  } finally {
    // What follows begins on a line of its own, also after the ^C that a terminal shows.
    if (all && !all.endsWith("\n")) print("\n");
    else if (options.signal?.aborted && runtime.stdin.isTerminal()) ask("\n");
  }
  const seconds = (performance.now() - start) / 1000;
  if (isVerbose) say(`${plural(tokens, "token")}, ${rate(tokens / seconds)}, ended by ${reason}`);
  return { text: all, tokens, seconds, reason };
}

/** Why a generation ended before the number of tokens asked for; undefined if it did not. */
export function endingOf(model: Model, { tokens, reason }: Written): string | undefined {
  const causes: Readonly<Record<FinishReason, string | undefined>> = {
    eos: "the model ended its text",
    stop: "a --stop text came up",
    context: `the context of ${plural(model.contextLength, "token")} is full`,
    aborted: "interrupted",
    length: undefined,
  };
  const cause = reason && causes[reason];
  return cause && `ended after ${plural(tokens, "token")}: ${cause}`;
}

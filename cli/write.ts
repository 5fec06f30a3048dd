/**
 * A generation on standard output, as it comes.
 *
 * @module
 */
import type { FinishReason, GenerateOptions, Model } from "../mod.ts";
import { plural, rate } from "./format.ts";
import { print, say } from "./terminal.ts";

/** What was written, and why it ended. */
export interface Written {
  readonly text: string;
  readonly reason?: FinishReason;
}

/** Generates and prints, and ends the last line. */
export async function write(
  model: Model,
  prompt: string | readonly number[],
  options: GenerateOptions,
  isVerbose: boolean,
): Promise<Written> {
  const start = performance.now();
  let count = 0;
  let reason: FinishReason | undefined;
  let all = "";
  try {
    for await (const { id, text, finishReason } of model.generate(prompt, options)) {
      if (id !== undefined) count++;
      reason = finishReason;
      all += text;
      if (text) print(text);
    }
  } finally {
    // What comes next on the terminal begins on a line of its own, also after an interrupt.
    if (all && !all.endsWith("\n")) print("\n");
  }
  if (isVerbose) {
    const seconds = (performance.now() - start) / 1000;
    say(`${plural(count, "token")}, ${rate(count / seconds)}, ended by ${reason}`);
  }
  return { text: all, reason };
}

/**
 * `generate`: text on standard output, as it comes.
 *
 * @module
 */
import type { Model } from "../mod.ts";
import type { Given } from "./flags.ts";
import { plural, rate } from "./format.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, openModel, readSettings, sayModel } from "./session.ts";
import { clearStatus, print, say } from "./terminal.ts";

/** Runs the command. */
export async function generate(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const config = await readSettings(given);
  const { generation } = config;
  const chosen = chooseModel(invocation, config);
  using progress = new Progress();
  await using model = await openModel(chosen, given, progress, signal);
  signal.throwIfAborted();
  clearStatus();
  if (given.verbose) sayModel(model, chosen.id);
  const prompt = promptOf(model, given);
  const seed = given.seed ?? generation.seed;
  const start = performance.now();
  let count = 0;
  let reason: string | undefined;
  let written = "";
  try {
    const tokens = model.generate(prompt, {
      maxNewTokens: given["max-tokens"] ?? 256,
      temperature: given.temperature ?? generation.temperature ?? 0.9,
      topK: given["top-k"] ?? generation.topK ?? 40,
      topP: given["top-p"] ?? generation.topP ?? 1,
      repetitionPenalty: given["repetition-penalty"] ?? generation.repetitionPenalty ?? 1,
      useKvCache: given["use-kv-cache"] ?? generation.useKvCache ?? true,
      deterministic: generation.deterministic ?? false,
      stop: given.stop ?? [],
      signal,
      ...seed !== undefined && { seed },
    });
    for await (const { id, text, finishReason } of tokens) {
      if (id !== undefined) count++;
      reason = finishReason;
      if (text) print(written = text);
    }
  } finally {
    // The shell's prompt begins on a line of its own, also after an interrupt.
    if (written && !written.endsWith("\n")) print("\n");
  }
  if (given.verbose) {
    const seconds = (performance.now() - start) / 1000;
    say(`${plural(count, "token")}, ${rate(count / seconds)}, ended by ${reason}`);
  }
}

function promptOf(model: Model, given: Given): string | number[] {
  const prompt = given.prompt ?? "ROMEO:";
  if (!given.chat) return prompt;
  const text = model.tokenizer.applyChatTemplate([
    ...given.system === undefined ? [] : [{ role: "system", content: given.system }],
    { role: "user", content: prompt },
  ]);
  // A template writes the special tokens itself.
  return model.tokenizer.encode(text, { addSpecialTokens: false });
}

/**
 * `generate`: text on standard output, as it comes.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import { type ChatMessage, encodeChat, type GenerateOptions, type Model } from "../mod.ts";
import { chat } from "./chat.ts";
import type { Given } from "./flags.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, openModel, readSettings, sayModel } from "./session.ts";
import { clearStatus } from "./terminal.ts";
import { write } from "./write.ts";

/** Runs the command. */
export async function generate(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const config = await readSettings(given);
  const { generation } = config;
  const chosen = chooseModel(invocation, config);
  using progress = new Progress();
  await using model = await openModel(chosen, given, config, progress, signal);
  signal.throwIfAborted();
  clearStatus();
  if (given.verbose) sayModel(model, chosen.id);
  const options: GenerateOptions = {
    maxNewTokens: given["max-tokens"],
    temperature: given.temperature ?? generation.temperature,
    topK: given["top-k"] ?? generation.topK,
    topP: given["top-p"] ?? generation.topP,
    repetitionPenalty: given["repetition-penalty"] ?? generation.repetitionPenalty,
    useKvCache: given["use-kv-cache"] ?? generation.useKvCache,
    deterministic: generation.deterministic,
    stop: given.stop,
    seed: given.seed ?? generation.seed,
    signal,
  };
  const isVerbose = given.verbose ?? false;
  if (given.chat && given.prompt === undefined) {
    return await chat(model, { messages: systemMessage(given), isVerbose, options });
  }
  await write(model, promptOf(model, given), options, isVerbose);
}

function promptOf(model: Model, given: Given): string | number[] {
  if (given.ids) return given.ids;
  const prompt = given.prompt ?? DEFAULTS.prompt;
  if (!given.chat) return prompt;
  const messages = [...systemMessage(given), { role: "user", content: prompt }];
  return encodeChat(model.tokenizer, messages);
}

/** How a conversation begins. */
function systemMessage({ system }: Given): ChatMessage[] {
  return system === undefined ? [] : [{ role: "system", content: system }];
}

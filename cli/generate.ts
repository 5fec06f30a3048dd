/**
 * `generate`: text on standard output, token by token.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import { type ChatMessage, encodeChat, type GenerateOptions, type Model } from "../mod.ts";
import { chat } from "./chat.ts";
import { type Given, UsageError } from "./flags.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, type Chosen, openModel, readSettings, sayModel } from "./session.ts";
import { readPrompt } from "./stdin.ts";
import { clearStatus, say } from "./terminal.ts";
import { endingOf, write } from "./write.ts";

/** Runs the command. */
export async function generate(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const config = await readSettings(given);
  const { generation } = config;
  const chosen = chooseModel(invocation, config);
  const isConversation = given.chat && given.prompt === undefined;
  const prompt = isConversation ? [] : await choosePrompt(chosen, given, signal);
  const expectPrompt = () => {
    if (prompt === undefined) throw new UsageError(NO_PROMPT);
  };
  if (chosen.origin === "hf") expectPrompt(); // before a download
  using progress = new Progress();
  // Errors of the files come first, and all before a weight is read.
  await using model = await openModel(chosen, given, config, progress, signal, expectPrompt);
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
  if (isConversation) {
    return await chat(model, { messages: systemMessage(given), isVerbose, options });
  }
  const written = await write(model, encode(model, prompt!, given), options, isVerbose);
  const ending = endingOf(model, written);
  if (ending) say(ending);
}

const NO_PROMPT =
  "generate needs a prompt: give --prompt TEXT, --ids 1,2,3, or text on standard input";

/** The prompt of a flag, of standard input, or of the demo. */
async function choosePrompt(
  { isDemo }: Chosen,
  { prompt, ids }: Given,
  signal: AbortSignal,
): Promise<string | readonly number[] | undefined> {
  return prompt ?? ids ?? await readPrompt(signal) ??
    (isDemo ? DEFAULTS.prompt : undefined);
}

/** The prompt as `model.generate` takes it; with `--chat`, in the chat template. */
function encode(
  model: Model,
  prompt: string | readonly number[],
  given: Given,
): string | readonly number[] {
  if (!given.chat || typeof prompt !== "string") return prompt;
  const messages = [...systemMessage(given), { role: "user", content: prompt }];
  return encodeChat(model.tokenizer, messages);
}

/** The messages that a conversation begins with. */
function systemMessage({ system }: Given): ChatMessage[] {
  return system === undefined ? [] : [{ role: "system", content: system }];
}

/**
 * `generate --chat` without a prompt: a conversation, a turn a line.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import { type ChatMessage, encodeChat, type GenerateOptions, type Model } from "../mod.ts";
import { UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import { ask, note, takeInterrupts } from "./terminal.ts";
import { write } from "./write.ts";

/** How the conversation is led. */
interface ChatSettings {
  /** How it begins: with a system message, or none. */
  readonly messages: readonly ChatMessage[];
  readonly isVerbose: boolean;
  /** How answers are generated; turn i draws with seed + i. */
  readonly options: GenerateOptions;
}

/**
 * Answers the lines of standard input until it ends, a line is "/exit", or the conversation fills
 * the context. What an interrupt finds is stopped: an answer, or at the prompt the command.
 *
 * The cache keeps the conversation, and each turn feeds only what is new (`engine/conversation.ts`
 * has the picture).
 *
 * @throws {UsageError} when there is no line at all and nobody was asked for one.
 * @throws the signal's reason, when the command is to end.
 */
export async function chat(
  model: Model,
  { messages: begin, isVerbose, options }: ChatSettings,
): Promise<void> {
  const isAsked = Deno.stdin.isTerminal();
  const { contextLength } = model;
  const { signal, seed, ...rest } = options;
  const messages = [...begin];
  const idsAfter = (content: string) => {
    messages.push({ role: "user", content });
    return encodeChat(model.tokenizer, messages);
  };
  idsAfter("Hi"); // a model that cannot chat says so before anybody has typed
  messages.pop();
  let turns = 0;
  let isCutTold = false;
  if (isAsked) ask("> ");
  for await (const line of readLines(signal)) {
    if (line.trim() === "/exit") return;
    if (line.trim() !== "") {
      const ids = idsAfter(line);
      if (ids.length > contextLength) {
        const sentence =
          `the conversation takes ${ids.length} tokens, and the context has ${contextLength}`;
        // Whoever sent lines without watching has to learn that one was not answered.
        if (!isAsked) throw new Error(`Cannot answer: ${sentence}`);
        return note(`${sentence}, so it ends here`);
      }
      using answer = stoppable(signal);
      const { text, reason } = await write(model, ids, {
        ...rest,
        reusePrompt: "all", // answers too
        signal: answer.signal,
        ...seed != null && { seed: seed + turns },
      }, isVerbose);
      signal?.throwIfAborted();
      turns++;
      messages.push({ role: "assistant", content: text });
      if (reason === "context") {
        return note(
          `the context of ${contextLength} tokens is full, so the conversation ends here`,
        );
      }
      if (reason === "length" && !isCutTold) {
        isCutTold = true;
        const cut = plural(rest.maxNewTokens ?? DEFAULTS.maxNewTokens, "token");
        note(`the answer was cut at ${cut}; --max-tokens gives it more`);
      }
    }
    if (isAsked) ask("> ");
  }
  if (isAsked) ask("\n"); // the shell's prompt begins on a line of its own
  else if (!turns) throw new UsageError("--chat needs a --prompt, or lines on standard input");
}

/**
 * A signal for an answer: aborted with the command, and at an interrupt, until it is disposed of.
 */
function stoppable(command?: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const answer = new AbortController();
  const handler = takeInterrupts(() => {
    // Whoever presses it again while the answer lasts means the command.
    if (answer.signal.aborted) return false;
    answer.abort();
    return true;
  });
  return {
    signal: command ? AbortSignal.any([command, answer.signal]) : answer.signal,
    [Symbol.dispose]: () => handler[Symbol.dispose](),
  };
}

/** The lines of standard input, the last one also where nothing ends it. */
async function* readLines(signal?: AbortSignal): AsyncGenerator<string> {
  const reader = Deno.stdin.readable.pipeThrough(new TextDecoderStream()).getReader();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {}); // also when nobody waits for a line
  signal?.addEventListener("abort", () => reject(signal.reason));
  let held = "";
  for (;;) {
    signal?.throwIfAborted();
    const { value, done } = await Promise.race([reader.read(), aborted]);
    if (done) break;
    const lines = (held + value).split("\n");
    held = lines.pop()!;
    for (const line of lines) yield line.replace(/\r$/, "");
  }
  if (held) yield held;
}

/**
 * `generate --chat` without a prompt: a conversation, one turn per line.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import { type ChatMessage, encodeChat, type GenerateOptions, type Model } from "../mod.ts";
import { type Conversation, isCommandLine, runCommand } from "./chat_commands.ts";
import { UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import { History } from "./history.ts";
import { LineEditor } from "./line_editor.ts";
import { readLines } from "./stdin.ts";
import { ask, fancy, note, takeInterrupts } from "./terminal.ts";
import { write, type Written } from "./write.ts";
import { runtime } from "../engine/host/runtime.ts";

/** The options of a conversation. */
interface ChatSettings {
  /** The messages that it begins with: a system message, or none. */
  readonly messages: readonly ChatMessage[];
  readonly isVerbose: boolean;
  /** Options of each answer; turn i draws with seed + i. */
  readonly options: GenerateOptions;
}

/**
 * Answers the lines of standard input until it ends, a line is "/exit", or the conversation fills
 * the context. An interrupt stops an answer, and at the prompt the command.
 *
 * The cache keeps the conversation, and each turn prefills only what is new
 * (`engine/conversation.ts` has the picture).
 *
 * @throws {UsageError} If standard input is no terminal and has no line.
 * @throws the signal's reason, if the command is to end.
 */
export async function chat(
  model: Model,
  { messages, isVerbose, options }: ChatSettings,
): Promise<void> {
  const isTerminal = runtime.stdin.isTerminal();
  const { signal } = options;
  const conversation: Conversation = { model, messages: [...messages], turns: 0 };
  // Fails before a line is read if the model cannot chat.
  encodeChat(model.tokenizer, [...messages, { role: "user", content: "Hi" }]);
  const answerer = new Answerer(conversation, options, isVerbose, isTerminal);
  let lines = 0;
  for await (const line of isTerminal ? typedLines(signal) : readLines(signal)) {
    if (line.trim() === "") continue;
    lines++;
    if (isCommandLine(line)) {
      const next = runCommand(conversation, line);
      if (next === "exit") return;
      if (next === "answer" && !await answerer.answer()) return;
    } else {
      conversation.messages.push({ role: "user", content: line });
      if (!await answerer.answer()) return;
    }
  }
  if (!isTerminal && !lines) {
    throw new UsageError("--chat needs a --prompt, or lines on standard input");
  }
}

/** Lines from the terminal: from the editor, or as the terminal itself edits them if it is dumb. */
async function* typedLines(signal?: AbortSignal): AsyncGenerator<string> {
  if (!fancy) {
    ask("> ");
    for await (const line of readLines(signal)) {
      yield line;
      ask("> ");
    }
    return ask("\n"); // the shell's prompt begins on a line of its own
  }
  const editor = new LineEditor(new History());
  for (;;) {
    const edited = await editor.edit("> ", signal);
    if (edited === "end") return;
    if (edited === "interrupt") throw new Interrupted();
    yield edited.line;
  }
}

/** Ctrl-C at the prompt, which in raw mode is no signal. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Draws the answers of a conversation. */
class Answerer {
  #isCutSaid = false;

  constructor(
    readonly conversation: Conversation,
    readonly options: GenerateOptions,
    readonly isVerbose: boolean,
    readonly isTerminal: boolean,
  ) {}

  /** Answers the last message. Returns whether the conversation goes on. */
  async answer(): Promise<boolean> {
    const { conversation, options: { signal, seed, ...options } } = this;
    const { model, messages } = conversation;
    const ids = encodeChat(model.tokenizer, messages);
    if (ids.length > model.contextLength) {
      const sentence =
        `the conversation takes ${ids.length} tokens, and the context has ${model.contextLength}`;
      // A script has to learn that a line got no answer.
      if (!this.isTerminal) throw new Error(`Cannot answer: ${sentence}`);
      note(`${sentence}, so it ends here`);
      return false;
    }
    using stop = stoppable(signal);
    const written = await write(model, ids, {
      ...options,
      reusePrompt: "all", // answers too
      signal: stop.signal,
      ...seed != null && { seed: seed + conversation.turns },
    }, this.isVerbose);
    signal?.throwIfAborted();
    conversation.turns++;
    conversation.last = written;
    messages.push({ role: "assistant", content: written.text });
    return this.#goesOn(written);
  }

  #goesOn({ reason }: Written): boolean {
    const { model: { contextLength } } = this.conversation;
    if (reason === "context") {
      note(`the context of ${contextLength} tokens is full, so the conversation ends here`);
      return false;
    }
    if (reason === "length" && !this.#isCutSaid) {
      this.#isCutSaid = true;
      const cut = plural(this.options.maxNewTokens ?? DEFAULTS.maxNewTokens, "token");
      note(`the answer was cut at ${cut}; --max-tokens gives it more`);
    }
    return true;
  }
}

/** A signal for an answer: aborted with the command, and at an interrupt, until disposed of. */
function stoppable(command?: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const answer = new AbortController();
  const handler = takeInterrupts(() => {
    // A second interrupt during one answer ends the command.
    if (answer.signal.aborted) return false;
    answer.abort();
    return true;
  });
  return {
    signal: command ? AbortSignal.any([command, answer.signal]) : answer.signal,
    [Symbol.dispose]: () => handler[Symbol.dispose](),
  };
}

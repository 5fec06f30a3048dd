/**
 * Commands of a conversation: `/help`, `/clear`, `/system` …
 *
 * @module
 */
import { isRecord } from "../engine/json.ts";
import { messageOf } from "../engine/errors.ts";
import { type ChatMessage, encodeChat, type Model } from "../mod.ts";
import { plural, rate, table } from "./format.ts";
import { prepareOutput } from "./output.ts";
import { note, say } from "./terminal.ts";
import type { Written } from "./write.ts";
import { runtime } from "../engine/host/runtime.ts";

/** A conversation in progress. */
export interface Conversation {
  readonly model: Model;
  readonly messages: ChatMessage[];
  /** Answers drawn so far, replaced ones included; the next one draws with seed + turns. */
  turns: number;
  /** The last answer. */
  last?: Written;
}

/** What follows a command: the next line, an answer, or the end. */
export type Next = "line" | "answer" | "exit";

interface ChatCommand {
  /** Its argument in the help. */
  readonly value?: string;
  readonly about: string;
  /** @throws {Error} a sentence for the user. */
  readonly run: (conversation: Conversation, argument: string) => Next | void;
}

const COMMANDS: Readonly<Record<string, ChatCommand>> = {
  help: { about: "list these commands", run: help },
  clear: { about: "forget the conversation, except the system message", run: clear },
  system: { value: "[TEXT]", about: "set the system message, or remove it", run: setSystem },
  save: { value: "FILE", about: "write the conversation as JSON", run: save },
  load: { value: "FILE", about: "go on with a conversation from a file", run: load },
  regen: { about: "draw the last answer again", run: regenerate },
  stats: { about: "show tokens, speed and the context in use", run: showStats },
  exit: { about: "end, as the end of the input does", run: () => "exit" },
};

/** A slash, a word, and an argument; a path such as /usr/bin is text. */
const COMMAND_LINE = /^\/([\p{L}\d_-]+)(?:\s+([^]*))?$/u;

/** Whether a line is a command, known or not, and never goes to the model. */
export function isCommandLine(line: string): boolean {
  return COMMAND_LINE.test(line.trimEnd());
}

/** Runs a command; one that fails says so and changes nothing. */
export function runCommand(conversation: Conversation, line: string): Next {
  const [, name, argument = ""] = COMMAND_LINE.exec(line.trimEnd())!;
  try {
    if (!Object.hasOwn(COMMANDS, name)) {
      throw new Error(`there is no command /${name}; /help lists them, a blank before it sends it`);
    }
    const { value, run } = COMMANDS[name];
    if (value === undefined && argument) throw new Error(`/${name} takes no argument`);
    if (value === "FILE" && !argument) throw new Error(`/${name} needs a file`);
    return run(conversation, argument.trim()) ?? "line";
  } catch (error) {
    note(messageOf(error));
    return "line";
  }
}

function help(): void {
  const rows = Object.entries(COMMANDS).map(([name, { value, about }]) => [
    `/${name}${value ? ` ${value}` : ""}`,
    about,
  ]);
  say(table(rows).trimEnd());
}

function systemOf(messages: readonly ChatMessage[]): ChatMessage[] {
  return messages.filter(({ role }, i) => i === 0 && role === "system");
}

/** Replaces the messages, if the template takes them with a user's turn at the end. */
function replace({ model, messages }: Conversation, next: readonly ChatMessage[]): void {
  const isUsersTurn = next.at(-1)?.role !== "user";
  encodeChat(model.tokenizer, [...next, ...isUsersTurn ? [{ role: "user", content: "Hi" }] : []]);
  messages.splice(0, messages.length, ...next);
}

function clear({ messages }: Conversation): void {
  messages.splice(0, messages.length, ...systemOf(messages));
}

function setSystem(conversation: Conversation, content: string): void {
  const { messages } = conversation;
  const turns = messages.slice(systemOf(messages).length);
  replace(conversation, [...content ? [{ role: "system", content }] : [], ...turns]);
}

function save({ messages }: Conversation, path: string): void {
  prepareOutput(path).write(`${JSON.stringify({ messages }, null, 2)}\n`);
  say(`wrote ${plural(messages.length, "message")} to ${path}`);
}

function load(conversation: Conversation, path: string): void {
  const fail = (reason: string): never => {
    throw new Error(`Cannot load "${path}": ${reason}`);
  };
  let file: unknown;
  try {
    file = JSON.parse(runtime.readTextFileSync(path));
  } catch (error) {
    return fail(messageOf(error));
  }
  const messages = isRecord(file) ? file.messages : undefined;
  if (!Array.isArray(messages) || !messages.every(isMessage)) {
    return fail('expected { "messages": [{ "role", "content" }, …] }');
  }
  replace(conversation, messages.map(({ role, content }) => ({ role, content })));
  say(`loaded ${plural(messages.length, "message")}`);
}

function isMessage(value: unknown): value is { role: string; content: string } {
  return isRecord(value) && typeof value.role === "string" && typeof value.content === "string";
}

function regenerate({ messages }: Conversation): Next {
  const last = messages.at(-1)?.role;
  if (last === "assistant" && messages.at(-2)?.role === "user") messages.pop();
  else if (last !== "user") throw new Error("there is no answer to draw again");
  return "answer";
}

function showStats({ model, messages, turns, last }: Conversation): void {
  const used = messages.length
    ? encodeChat(model.tokenizer, messages, { addGenerationPrompt: false }).length
    : 0;
  const context = `context ${used} of ${plural(model.contextLength, "token")}`;
  const speed = last
    ? `last answer ${plural(last.tokens, "token")}, ${rate(last.tokens / last.seconds)}; `
    : "";
  say(`${plural(turns, "answer")}; ${speed}${context}`);
}

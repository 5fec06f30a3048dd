/**
 * Chat template: renders a conversation as a model's prompt text with the Jinja template of its
 * tokenizer, as `render_jinja_template` of transformers does.
 *
 * A template is untrusted code: it sees only plain data, and its time and memory are limited.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord } from "../json.ts";
import { withinDeadline } from "./deadline.ts";
import { compile, RaisedByTemplate, type Template, TemplateError } from "./jinja/mod.ts";
import { Dict, fromJs, textOf, type Value } from "./jinja/values.ts";
import { formatTime } from "./strftime.ts";
import type { ChatMessage, ChatOptions } from "./tokenizer.ts";
import { show } from "./vocabulary.ts";

/** Maximum length of a template, in UTF-16 units; the longest known one has 30,000. */
const MAX_TEMPLATE = 1_000_000;

/** Maximum length of a template's own message in an error, in UTF-16 units. */
const MAX_REASON = 200;

/**
 * Field names of a message's reasoning, in order of precedence; templates read the first two.
 */
const REASONING = ["reasoning_content", "thinking", "reasoning"];

/**
 * A chat template. It is parsed on first use, so that a model with a broken template can still
 * generate from text.
 */
export class ChatTemplate {
  /** Compiled templates by source text. */
  readonly #templates = new Map<string, Template>();

  /**
   * @param source `chat_template` of a tokenizer_config.json: a string, a list of
   *   `{ name, template }`, or an object from names to strings.
   * @param variables special tokens by the variable names that templates use.
   * @param where name of the tokenizer in errors.
   */
  constructor(
    readonly source: unknown,
    readonly variables: Readonly<Record<string, unknown>>,
    readonly where: string,
  ) {}

  /**
   * Renders a conversation.
   * @throws {CheckpointError} If the template is broken or rejects the conversation.
   * @throws {TypeError} If a message has no role or no content, or a variable is not plain data.
   */
  render(
    messages: readonly ChatMessage[],
    { addGenerationPrompt = true, tools, documents, ...others }: ChatOptions = {},
  ): string {
    checkMessages(messages);
    const variables = new Map(
      Object.entries({
        ...this.variables,
        ...others,
        tools: tools ?? null,
        documents: documents ?? null,
        add_generation_prompt: addGenerationPrompt,
      }).filter(([, value]) => value !== undefined).map(([name, value]) => [name, fromJs(value)]),
    );
    const chat = messages.map((message) => withReasoning(fromJs(message) as Dict));
    const size = charactersOf(chat) + charactersOf([...variables.values()]);
    try {
      return withinDeadline(size, () => {
        const template = this.#template(tools != null);
        const render = (messages: Value) =>
          template.render(new Map([...variables, ["messages", messages]]), size, timeNow);
        return renderOrJoin(chat, render);
      });
    } catch (error) {
      throw new CheckpointError(
        `Cannot apply the chat template of ${this.where}: ${reasonOf(error)}`,
      );
    }
  }

  /**
   * The text that the template writes right after an assistant's message: the end-of-turn token.
   * Empty if the template rejects a conversation of a user and an assistant.
   */
  afterAnswer(): string {
    const answer = "wgslm-answer";
    try {
      const turns = [{ role: "user", content: "Hi" }, { role: "assistant", content: answer }];
      const text = this.render(turns, { addGenerationPrompt: false });
      return text.split(answer).slice(1).join(answer).trimStart();
    } catch (error) {
      if (error instanceof CheckpointError) return "";
      throw error;
    }
  }

  #template(hasTools: boolean): Template {
    const text = chooseTemplate(this.source, hasTools);
    let template = this.#templates.get(text);
    if (!template) {
      if (text.length > MAX_TEMPLATE) {
        throw new TemplateError(`expected at most ${MAX_TEMPLATE} characters, got ${text.length}`);
      }
      this.#templates.set(text, template = compile(text));
    }
    return template;
  }
}

const timeNow = (format: string) => formatTime(new Date(), format);

function checkMessages(messages: readonly unknown[]): void {
  for (const message of messages) {
    if (isRecord(message) && typeof message.role === "string" && hasContent(message)) continue;
    throw new TypeError(
      `Cannot apply a chat template: expected each message to have a role and content, got ${
        show(message)
      }`,
    );
  }
}

/**
 * Whether the content is text, a list of parts, an object or null. It may be missing if the message
 * has other fields, such as tool calls.
 */
function hasContent(message: Record<string, unknown>): boolean {
  const { content } = message;
  if (content === undefined) {
    return Object.entries(message).some(([key, value]) => key !== "role" && value !== undefined);
  }
  return typeof content === "string" || typeof content === "object";
}

/** Copies a message's reasoning to the two names that templates read, as transformers does. */
function withReasoning(message: Dict): Dict {
  const reasoning = REASONING.map((name) => message.get(name)).find((value) => value != null);
  if (reasoning === undefined) return message;
  const entries: [Value, Value][] = [
    ["thinking", reasoning],
    ...[...message.entries()].map((
      [key, value],
    ): [Value, Value] => [key, value]),
    ["reasoning_content", reasoning],
  ];
  return new Dict(entries);
}

/**
 * Renders a conversation. If the template fails on content in parts, retries with the parts joined
 * to one text; a `raise_exception` of the template is not retried.
 */
function renderOrJoin(chat: readonly Dict[], render: (messages: Value) => string): string {
  const joined = chat.map(withJoinedParts);
  const hasParts = joined.some((message, i) => message !== chat[i]);
  try {
    return render([...chat]);
  } catch (error) {
    const hasFailed = error instanceof TemplateError && !(error instanceof RaisedByTemplate);
    if (!hasParts || !hasFailed) throw error;
    return render(joined);
  }
}

/** Joins content that is a list of text parts to one text, with a newline between the parts. */
function withJoinedParts(message: Dict): Dict {
  const content = message.get("content");
  if (!Array.isArray(content)) return message;
  const texts = content.map((part) =>
    part instanceof Dict && part.get("type") === "text" ? textOf(part.get("text")) : undefined
  );
  if (texts.includes(undefined)) return message;
  const joined = new Dict(message.entries());
  joined.set("content", texts.join("\n"));
  return joined;
}

/** Total length of the strings in a value, in UTF-16 units. */
function charactersOf(value: Value): number {
  if (typeof value === "string") return value.length;
  const items = Array.isArray(value) ? value : value instanceof Dict ? [...value.entries()] : [];
  return items.reduce<number>((sum, item) => sum + charactersOf(item as Value), 0);
}

/** Selects a template: the only one, or "tool_use" if tools are given, or "default". */
function chooseTemplate(source: unknown, hasTools: boolean): string {
  if (typeof source === "string") return source;
  const named = Array.isArray(source)
    ? source.filter(isRecord).map(({ name, template }) => [name, template])
    : isRecord(source)
    ? Object.entries(source)
    : null;
  if (!named) throw new TemplateError(`expected chat_template to be text, got ${show(source)}`);
  const find = (wanted: string) => named.find(([name]) => name === wanted)?.[1];
  const found = (hasTools ? find("tool_use") : undefined) ?? find("default");
  if (typeof found === "string") return found;
  throw new TemplateError(
    `expected a template named "default", got ${
      named.map(([name]) => show(name)).join(", ") || "none"
    }`,
  );
}

/** Message of an error, truncated to MAX_REASON. */
function reasonOf(error: unknown): string {
  // Stack overflow, such as a macro that calls itself, or a string over V8's maximum length.
  if (error instanceof RangeError) return `it exceeds a limit of JavaScript (${error.message})`;
  const reason = messageOf(error);
  return reason.length > MAX_REASON ? `${reason.slice(0, MAX_REASON - 1).toWellFormed()}…` : reason;
}

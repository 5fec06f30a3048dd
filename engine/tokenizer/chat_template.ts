/**
 * Chat templates: a conversation as the text that a model was trained on, by the rules of the model's own Jinja template.
 *
 * A template is a stranger's program. The library runs it without a way out to the machine; here it gets an end as well: a template
 * has no endless loop, but loops in loops, and lists that double, come to the same.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { withinDeadline } from "./deadline.ts";
import { formatTime } from "./strftime.ts";
import type { ChatMessage } from "./tokenizer.ts";
import { show } from "./vocabulary.ts";

type Library = typeof import("@huggingface/jinja");
type Program = ReturnType<Library["parse"]>;
type Interpreter = InstanceType<Library["Interpreter"]>;
type Evaluate = Interpreter["evaluate"];
type Value = ReturnType<Evaluate>;
type Node = Parameters<Evaluate>[0];
type Scope = Parameters<Evaluate>[1];

/** Longer than any template, in UTF-16 units. */
const MAX_TEMPLATE = 1_000_000;
/** Expressions and statements that may be evaluated, so that little memory is taken until the deadline. A long chat takes some ten thousand. */
const MAX_STEPS = 3_000_000;
/** Items of a list, as in Jinja's sandbox. */
const MAX_ITEMS = 100_000;
/** UTF-16 units of a text. */
const MAX_TEXT = 10_000_000;

/** A template that is read when it is applied first: a model whose template is damaged still generates. */
export class ChatTemplate {
  #program?: Program;
  readonly #interpret: ReturnType<typeof boundedInterpreter>;

  /**
   * @param source `chat_template` of a tokenizer_config.json: a text, a list of `{ name, template }`, or an object of texts.
   * @param variables the marks that a template may name, as texts.
   * @param where names the tokenizer in messages.
   */
  constructor(
    readonly library: Library,
    readonly source: unknown,
    readonly variables: Readonly<Record<string, unknown>>,
    readonly where: string,
  ) {
    this.#interpret = boundedInterpreter(library);
  }

  /** Writes a conversation out. @throws {CheckpointError} when the template refuses it or is broken. */
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    checkMessages(messages);
    const size = messages.reduce((sum, { content }) => sum + content.length, 0);
    try {
      return withinDeadline(size, () => {
        this.#program ??= parseTemplate(this.library, defaultTemplate(this.source));
        return this.#interpret(this.#program, {
          ...this.variables,
          messages,
          add_generation_prompt: addGenerationPrompt,
          tools: null,
          documents: null,
        });
      });
    } catch (error) {
      throw new CheckpointError(
        `Cannot apply the chat template of ${this.where}: ${reasonOf(error)}`,
      );
    }
  }

  /**
   * What the template writes right after an assistant's words: there such a turn ends, whatever ends a text.
   * Empty where the template takes no conversation of a user and an assistant.
   */
  afterAnswer(): string {
    const answer = "wgslm-answer";
    try {
      const turns = [{ role: "user", content: "Hi" }, { role: "assistant", content: answer }];
      return this.render(turns, false).split(answer).slice(1).join(answer).trimStart();
    } catch (error) {
      if (error instanceof CheckpointError) return "";
      throw error;
    }
  }
}

/** What a template says in raise_exception() as it is; what the library trips over in words. */
function reasonOf(error: unknown): string {
  // Without a stack left, as when a template calls itself, or with a text that is longer than texts can be.
  if (error instanceof RangeError) return `it is too much (${error.message})`;
  if (error instanceof TypeError) return `it is cut short or damaged (${error.message})`;
  return messageOf(error);
}

function checkMessages(messages: readonly unknown[]): void {
  for (const message of messages) {
    const isMessage = isRecord(message) && typeof message.role === "string" &&
      typeof message.content === "string";
    if (!isMessage) {
      throw new TypeError(
        `Cannot apply a chat template: expected messages with a role and a content, got ${
          show(message)
        }`,
      );
    }
  }
}

/** The template that stands for itself, or the one among several that is named "default". */
function defaultTemplate(source: unknown): string {
  if (typeof source === "string") return source;
  const named = Array.isArray(source)
    ? source.filter(isRecord).map(({ name, template }) => [name, template])
    : isRecord(source)
    ? Object.entries(source)
    : null;
  if (!named) throw new Error(`expected chat_template to be text, got ${show(source)}`);
  const found = named.find(([name]) => name === "default")?.[1];
  if (typeof found === "string") return found;
  throw new Error(
    `expected a template named "default", got ${
      named.map(([name]) => show(name)).join(", ") || "none"
    }`,
  );
}

function parseTemplate({ parse, tokenize }: Library, text: string): Program {
  if (text.length > MAX_TEMPLATE) {
    throw new Error(`expected at most ${MAX_TEMPLATE} characters, got ${text.length}`);
  }
  // As transformers compiles them.
  return parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true }));
}

/** What every template may call. The library's own names of months follow the machine's language, Python's are English. */
const HELPERS: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range,
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  strftime_now: (format: unknown) => formatTime(new Date(), String(format)),
};

/** As Python's, with the bound that Jinja's sandbox sets. */
function range(...bounds: unknown[]): number[] {
  if (!bounds.length || bounds.length > 3 || !bounds.every(Number.isSafeInteger)) {
    throw new Error(`range() takes one to three integers, got ${show(bounds)}`);
  }
  const numbers = bounds as number[];
  const [start, stop] = numbers.length === 1 ? [0, numbers[0]] : numbers;
  const step = numbers[2] ?? 1;
  if (step === 0) throw new Error("range() takes a step other than 0");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_ITEMS) {
    throw new Error(`range() gives at most ${MAX_ITEMS} numbers, got ${length}`);
  }
  return Array.from({ length }, (_, i) => start + i * step);
}

/** Runs programs, each within bounds, with the way of Python's strip() that the library leaves out. */
function boundedInterpreter({ Environment, Interpreter }: Library) {
  class Bounded extends Interpreter {
    #steps = 0;

    override evaluate(node: Node, scope: Scope): Value {
      const value = this.#strip(node, scope) ?? super.evaluate(node, scope);
      this.#count(value.value);
      return value;
    }

    /** Bounds what a value takes, and all that was done so far. */
    #count(value: unknown): void {
      const isText = typeof value === "string";
      const size = isText || Array.isArray(value)
        ? value.length
        : value instanceof Map
        ? value.size
        : 0;
      if (size > (isText ? MAX_TEXT : MAX_ITEMS)) {
        throw new Error(
          `it makes a ${isText ? "text" : "list"} of ${size} ${isText ? "characters" : "items"}`,
        );
      }
      this.#steps += 1 + size / 1000; // whoever handles a long text looks at its characters
      if (this.#steps > MAX_STEPS) throw new Error("it does not come to an end");
    }

    /** `text.strip(characters)` and its two sisters; undefined for everything else. */
    #strip(node: Node, scope: Scope): Value | undefined {
      const call = node as CallNode | undefined;
      if (call?.type !== "CallExpression" || call.args.length !== 1) return;
      const { type, computed, object, property } = call.callee;
      if (type !== "MemberExpression" || computed || !property) return;
      const name = /^(l|r|)strip$/.exec(property.value);
      if (!name) return;
      const [text, characters]: unknown[] = [object, call.args[0]]
        .map((part) => this.evaluate(part, scope).value);
      if (typeof text !== "string" || typeof characters !== "string") return;
      const among = new Set(characters);
      const letters = [...text];
      let [from, to] = [0, letters.length];
      if (name[1] !== "r") { while (from < to && among.has(letters[from])) from++; }
      if (name[1] !== "l") { while (to > from && among.has(letters[to - 1])) to--; }
      // The library keeps its texts to itself: a node makes one.
      const literal = { type: "StringLiteral", value: letters.slice(from, to).join("") };
      return super.evaluate(literal as Node, scope);
    }
  }
  return (program: Program, variables: Record<string, unknown>): string => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...variables, ...HELPERS })) {
      if (name !== "namespace") environment.set(name, value);
    }
    return String(new Bounded(environment).run(program).value);
  };
}

/** A call in the library's syntax tree, which it gives no types of. */
interface CallNode {
  readonly type: string;
  readonly args: readonly Node[];
  readonly callee: {
    readonly type: string;
    readonly computed?: boolean;
    readonly object?: Node;
    readonly property?: { readonly value: string };
  };
}

/**
 * Values as Python writes them: `str()`, `repr()` and `json.dumps()`.
 *
 * @module
 */
import { sortBy } from "./compare.ts";
import { writeFloat, writeInteger } from "./numbers.ts";
import { checkText } from "./text.ts";
import {
  Dict,
  fail,
  Lazy,
  Markup,
  Range,
  textOf,
  Thing,
  Tuple,
  typeOf,
  Undefined,
  type Value,
  View,
} from "./values.ts";

/**
 * Collects text, and refuses too much of it: lists in lists may be written as far more than they
 * hold.
 */
class Writer {
  text = "";

  write(part: string): void {
    this.text += part;
    checkText(this.text.length);
  }

  /** Items with a separator between. */
  list<T>(items: Iterable<T>, separator: string, write: (item: T) => void): void {
    let isFirst = true;
    for (const item of items) {
      if (!isFirst) this.write(separator);
      isFirst = false;
      write(item);
    }
  }
}

/** `str()` */
export function toText(value: Value): string {
  const text = textOf(value);
  if (text !== undefined) return text;
  return value instanceof Undefined ? "" : repr(value);
}

/** `repr()` */
export function repr(value: Value): string {
  const writer = new Writer();
  writeRepr(value, writer);
  return writer.text;
}

function writeRepr(value: Value, to: Writer): void {
  const list = (open: string, items: Iterable<Value>, close: string) => {
    to.write(open);
    to.list(items, ", ", (item) => writeRepr(item, to));
    to.write(close);
  };
  if (Array.isArray(value)) list("[", value, "]");
  else if (value instanceof Tuple) list("(", value.items, value.items.length === 1 ? ",)" : ")");
  else if (value instanceof View) list(`${typeOf(value)}([`, value, "])");
  else if (value instanceof Dict) {
    to.write("{");
    to.list(value.entries(), ", ", ([key, item]) => {
      writeRepr(key, to);
      to.write(": ");
      writeRepr(item, to);
    });
    to.write("}");
  } else to.write(reprOne(value));
}

function reprOne(value: Value): string {
  if (value === null) return "None";
  switch (typeof value) {
    case "boolean":
      return value ? "True" : "False";
    case "bigint":
      return writeInteger(value);
    case "number":
      return writeFloat(value);
    case "string":
      return quote(value);
  }
  if (value instanceof Markup) return `Markup(${quote(value.text)})`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Range) {
    const step = value.step === 1 ? "" : `, ${value.step}`;
    return `range(${value.start}, ${value.stop}${step})`;
  }
  if (value instanceof Thing) return value.repr();
  return value instanceof Lazy ? "<generator object>" : fail(`no text of ${typeOf(value)}`);
}

const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * A quoted string: double quotes if it has only single ones. Unprintable characters are escaped.
 */
export function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\'"]|[\p{C}\p{Z}]/gu, (letter) => {
    if (letter === "\\" || letter === mark) return `\\${letter}`;
    if (letter === " " || letter === "'" || letter === '"') return letter;
    if (Object.hasOwn(SHORT, letter)) return SHORT[letter];
    const code = letter.codePointAt(0)!;
    const hex = code.toString(16);
    return code < 0x100
      ? `\\x${hex.padStart(2, "0")}`
      : code < 0x10000
      ? `\\u${hex.padStart(4, "0")}`
      : `\\U${hex.padStart(8, "0")}`;
  });
  return mark + escaped + mark;
}

/** Options of `tojson` as transformers has it: those of json.dumps. */
export interface JsonOptions {
  /** Indentation per level; null writes one line. */
  readonly indent: string | null;
  readonly ensureAscii: boolean;
  readonly separators: readonly [item: string, key: string];
  readonly sortKeys: boolean;
}

/** `json.dumps()` */
export function toJson(value: Value, options: JsonOptions): string {
  const writer = new Writer();
  writeJson(value, options, "\n", writer);
  return writer.text;
}

function writeJson(value: Value, options: JsonOptions, newline: string, to: Writer): void {
  const text = jsonScalar(value, options.ensureAscii);
  if (text !== undefined) return to.write(text);
  const { indent, separators: [comma, colon] } = options;
  const inner = indent === null ? "" : newline + indent;
  const nested = <T>(
    open: string,
    items: readonly T[],
    close: string,
    write: (item: T) => void,
  ) => {
    if (items.length === 0) return to.write(open + close);
    to.write(open + inner);
    to.list(items, comma + inner, write);
    to.write((indent === null ? "" : newline) + close);
  };
  if (value instanceof Dict) {
    const entries = [...value.entries()];
    const sorted = options.sortKeys
      ? sortBy(
        entries.map((entry) => new Tuple(entry)),
        (entry) => (entry as Tuple).items[0],
        false,
      )
        .map((entry) => (entry as Tuple).items as readonly [Value, Value])
      : entries;
    nested("{", sorted, "}", ([key, item]) => {
      to.write(jsonKey(key, options.ensureAscii) + colon);
      writeJson(item, options, inner, to);
    });
  } else if (Array.isArray(value) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items;
    nested("[", items, "]", (item) => writeJson(item, options, inner, to));
  } else fail(`Object of type ${typeOf(value)} is not JSON serializable`);
}

function jsonKey(key: Value, ensureAscii: boolean): string {
  const scalar = jsonScalar(key, ensureAscii) ??
    fail(`keys must be str, int, float, bool or None, not ${typeOf(key)}`);
  return textOf(key) === undefined ? `"${scalar}"` : scalar;
}

function jsonScalar(value: Value, ensureAscii: boolean): string | undefined {
  const text = textOf(value);
  if (text !== undefined) return jsonText(text, ensureAscii);
  if (value === null) return "null";
  switch (typeof value) {
    case "boolean":
      return String(value);
    case "bigint":
      return writeInteger(value);
    case "number":
      if (Number.isFinite(value)) return writeFloat(value);
      return Number.isNaN(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
  }
}

function jsonText(text: string, ensureAscii: boolean): string {
  const hex = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  // JSON.stringify escapes lone surrogates, which Python leaves.
  const escaped = text.isWellFormed()
    ? JSON.stringify(text)
    : `"${
      text.split(/(?=[\ud800-\udfff])|(?<=[\ud800-\udfff])/).map((part) =>
        /^[\ud800-\udfff]$/.test(part) ? part : JSON.stringify(part).slice(1, -1)
      ).join("")
    }"`;
  return ensureAscii ? escaped.replace(/[\x7f-\uffff]/g, hex) : escaped;
}

/**
 * Methods of Python's str, on text and on Markup.
 *
 * @module
 */
import { bind, type Bound, needIndex, needText } from "./arguments.ts";
import { escapeHtml, formatBraces, type Lookup } from "./format.ts";
import {
  capitalize,
  characters,
  checkText,
  expandTabs,
  hasCase,
  isSpace,
  isTitle,
  justify,
  lengthOf,
  replaceText,
  splitLines,
  splitText,
  stripText,
  swapCase,
  titleWords,
  toCodePoints,
} from "./text.ts";
import {
  Callable,
  Dict,
  fail,
  isTrue,
  iterate,
  Markup,
  textOf,
  Tuple,
  typeOf,
  type Value,
} from "./values.ts";

/** A method: signature and implementation. */
type Method = readonly [
  signature: string,
  run: (text: string, args: Bound, escape: (value: Value) => Value) => Value,
];

const strip = (
  side: "left" | "right" | "both",
): Method => [
  "chars",
  (text, [chars]) => stripText(text, side, chars == null ? undefined : needText(chars, "strip")),
];

const split = (fromRight: boolean): Method => ["sep maxsplit", (text, [sep, limit]) =>
  splitText(
    text,
    sep == null ? null : needText(sep, "split"),
    limit === undefined ? -1 : needIndex(limit, "split"),
    fromRight,
  )];

const place = (
  to: "<" | ">" | "^",
): Method => ["width! fillchar", (text, [width, fill], escape) => {
  const letter = fill === undefined ? " " : needText(escape(fill), "justify");
  if (lengthOf(letter) !== 1) fail("the fill character must be exactly one character long");
  return justify(text, needIndex(width, "justify"), letter, to);
}];

const matches = (pattern: RegExp): Method => ["", (text) => pattern.test(text)];

/**
 * Starts and ends of a search, which count code points; gives the part and where it begins, or null
 * where it is outside.
 */
function within(text: string, start?: Value, end?: Value): [part: string, from: number] | null {
  if (start == null && end == null) return [text, 0];
  const letters = characters(text);
  const size = letters.length;
  const clamp = (value: Value | undefined, fallback: number) => {
    if (value == null) return fallback;
    const index = needIndex(value, "a place in a text");
    return index < 0 ? Math.max(0, index + size) : index;
  };
  const [from, to] = [clamp(start, 0), Math.min(size, clamp(end, size))];
  if (from > size || from > to) return null;
  const part = letters.slice(from, to);
  return [typeof part === "string" ? part : part.join(""), from];
}

/** `find` and its three relatives. */
const find = (name: string): Method => ["sub! start end", (text, [sub, start, end]) => {
  const wanted = needText(sub, name);
  const found = within(text, start, end);
  const units = found === null
    ? -1
    : name.startsWith("r")
    ? found[0].lastIndexOf(wanted)
    : found[0].indexOf(wanted);
  if (units >= 0) return BigInt(found![1] + toCodePoints(found![0], units));
  return name.endsWith("index") ? fail("substring not found") : -1n;
}];

const edge = (name: "startsWith" | "endsWith"): Method => ["prefix! start end", (text, args) => {
  const [prefix, start, end] = args;
  const found = within(text, start, end);
  const options = prefix instanceof Tuple ? prefix.items : [prefix];
  const texts = options.map((option) => needText(option, name.toLowerCase()));
  return found !== null && texts.some((option) => found[0][name](option));
}];

const partition = (fromRight: boolean): Method => ["sep!", (text, [sep]) => {
  const mark = needText(sep, "partition");
  if (mark === "") fail("empty separator");
  const at = fromRight ? text.lastIndexOf(mark) : text.indexOf(mark);
  if (at < 0) return new Tuple(fromRight ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), mark, text.slice(at + mark.length)]);
}];

const METHODS: Readonly<Record<string, Method>> = {
  capitalize: ["", capitalize],
  casefold: [
    "",
    (text) =>
      text.replace(/[^\x20-\x7fıİ]/gu, (letter) => letter.toUpperCase().toLowerCase())
        .toLowerCase(),
  ],
  center: place("^"),
  count: ["sub! start end", (text, [sub, start, end]) => {
    const wanted = needText(sub, "count");
    const found = within(text, start, end);
    if (found === null) return 0n;
    return BigInt(wanted === "" ? lengthOf(found[0]) + 1 : found[0].split(wanted).length - 1);
  }],
  endswith: edge("endsWith"),
  expandtabs: [
    "tabsize",
    (text, [size]) => expandTabs(text, size === undefined ? 8 : needIndex(size, "expandtabs")),
  ],
  find: find("find"),
  index: find("index"),
  isalnum: matches(/^[\p{L}\p{N}]+$/u),
  isalpha: matches(/^\p{L}+$/u),
  isascii: matches(/^[^\x80-\u{10ffff}]*$/u),
  isdecimal: matches(/^\p{Nd}+$/u),
  isdigit: matches(/^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒🄀-🄊]+$/u),
  isidentifier: matches(/^[\p{XIDS}_]\p{XIDC}*$/u),
  islower: ["", (text) => hasCase(text, false)],
  isnumeric: matches(/^[\p{N}一二三四五六七八九十百千万億兆零〇]+$/u),
  isprintable: ["", (text) => !/[\p{C}\p{Z}]/u.test(text.replaceAll(" ", ""))],
  isspace: ["", isSpace],
  istitle: ["", isTitle],
  isupper: ["", (text) => hasCase(text, true)],
  join: ["iterable!", (text, [items], escape) => {
    let joined = "";
    let isFirst = true;
    for (const item of iterate(items!)) {
      const part = textOf(escape(item)) ??
        fail(`sequence item: expected str instance, ${typeOf(item)} found`);
      joined += isFirst ? part : text + part;
      isFirst = false;
      checkText(joined.length);
    }
    return joined;
  }],
  ljust: place("<"),
  lower: ["", (text) => text.toLowerCase()],
  lstrip: strip("left"),
  partition: partition(false),
  removeprefix: ["prefix!", (text, [prefix]) => {
    const lead = needText(prefix, "removeprefix");
    return text.startsWith(lead) ? text.slice(lead.length) : text;
  }],
  removesuffix: ["suffix!", (text, [suffix]) => {
    const tail = needText(suffix, "removesuffix");
    return text.endsWith(tail) ? text.slice(0, text.length - tail.length) : text;
  }],
  replace: ["old! new! count", (text, [old, by, count], escape) =>
    replaceText(
      text,
      needText(old, "replace"),
      needText(escape(by!), "replace"),
      count === undefined ? -1 : needIndex(count, "replace"),
    )],
  rfind: find("rfind"),
  rindex: find("rindex"),
  rjust: place(">"),
  rpartition: partition(true),
  rsplit: split(true),
  rstrip: strip("right"),
  split: split(false),
  splitlines: ["keepends", (text, [keep]) => splitLines(text, isTrue(keep ?? false))],
  startswith: edge("startsWith"),
  strip: strip("both"),
  swapcase: ["", swapCase],
  title: ["", titleWords],
  upper: ["", (text) => text.toUpperCase()],
  zfill: ["width!", (text, [width]) => {
    const [, sign, rest] = /^([+-]?)([^]*)$/.exec(text)!;
    return sign + justify(rest, needIndex(width, "zfill") - sign.length, "0", ">");
  }],
};

/** A method of a str or Markup; undefined if it does not exist. */
export function textMethod(
  value: string | Markup,
  name: string,
  lookup: Lookup,
): Callable | undefined {
  const isMarkup = value instanceof Markup;
  const text = isMarkup ? value.text : value;
  const finish = (result: Value): Value => isMarkup ? marked(result) : result;
  if (name === "format" || name === "format_map") {
    return new Callable(name, (args, kwargs) => {
      const [given, named] = name === "format" ? [args, kwargs] : [[], mapOf(args[0])];
      const escape = (of: Value, formatted: string) =>
        escapeHtml(of instanceof Markup ? of : formatted);
      return finish(formatBraces(text, given, named, lookup, isMarkup ? escape : undefined));
    });
  }
  if (isMarkup && (name === "unescape" || name === "striptags")) {
    return new Callable(name, () => name === "unescape" ? unescapeHtml(text) : stripTags(text));
  }
  if (!Object.hasOwn(METHODS, name)) return undefined;
  const [signature, run] = METHODS[name];
  const escape = (item: Value) => isMarkup ? escapeHtml(item) : item;
  return new Callable(
    name,
    (args, kwargs) => finish(run(text, bind(name, signature, args, kwargs), escape)),
  );
}

function mapOf(value: Value | undefined): Map<string, Value> {
  if (!(value instanceof Dict)) return fail("format_map() takes a mapping");
  return new Map([...value.entries()].map(([key, item]) => [textOf(key) ?? "", item]));
}

/** Texts within a result as Markup. */
function marked(value: Value): Value {
  if (typeof value === "string") return new Markup(value);
  if (Array.isArray(value)) return value.map(marked);
  return value instanceof Tuple ? new Tuple(value.items.map(marked)) : value;
}

/** HTML without tags, its white space in single blanks. */
export function stripTags(html: string): string {
  const text = html.replace(/<!--[^]*?-->|<(?!!--)[^>]*>/g, "");
  return unescapeHtml(splitText(text, null, -1, false).join(" "));
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\xa0",
};

function unescapeHtml(html: string): string {
  return html.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (written, decimal, hex, name) => {
    if (name !== undefined) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : written;
    const code = decimal !== undefined ? Number(decimal) : parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}

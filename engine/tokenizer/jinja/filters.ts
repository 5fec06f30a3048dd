/**
 * Filters: `x | upper`. As jinja2.filters, and `tojson` as transformers has it.
 *
 * @module
 */
import { needIndex, needText } from "./arguments.ts";
import { attributeOf, getAttribute } from "./attributes.ts";
import { toFloat } from "./numbers.ts";
import { escapeHtml, formatPercent } from "./format.ts";
import { LIST_FILTERS } from "./list_filters.ts";
import { NUMBER_FILTERS } from "./number_filters.ts";
import { operate } from "./operators.ts";
import { type JsonOptions, repr, toJson, toText } from "./repr.ts";
import { unpack } from "./runtime.ts";
import {
  capitalize,
  checkText,
  justify,
  lengthOf,
  replaceText,
  splitLines,
  stripText,
} from "./text.ts";
import { type Filter, filter } from "./tables.ts";
import { stripTags } from "./text_methods.ts";
import {
  Dict,
  fail,
  integerOf,
  isTrue,
  itemsOf,
  iterate,
  Markup,
  sizeOf,
  textOf,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

/** A filter of text; Markup stays Markup. */
const ofText = (run: (text: string) => string): Filter =>
  filter("", (value) => {
    const result = run(toText(value));
    return value instanceof Markup ? new Markup(result) : result;
  });

const like = (value: Value, text: string): Value =>
  value instanceof Markup ? new Markup(text) : text;

const length: Filter = filter(
  "",
  (value) => BigInt(sizeOf(value) ?? fail(`object of type '${typeOf(value)}' has no len()`)),
);

const fallback: Filter = filter(
  "default_value boolean",
  (value, otherwise = "", boolean = false) =>
    value instanceof Undefined || isTrue(boolean) && !isTrue(value) ? otherwise : value,
);

const escape: Filter = filter("", (value) => new Markup(escapeHtml(value)));

/** Words begin after white space, a hyphen or an opening bracket. */
function title(text: string): string {
  return text.split(/([-\s({[<]+)/).map((word) => {
    const [first = ""] = word;
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  }).join("");
}

function indent(
  value: Value,
  width: Value = 4n,
  first: Value = false,
  blank: Value = false,
): Value {
  const text = needText(value, "indent");
  const count = textOf(width) === undefined ? needIndex(width, "indent") : 0;
  checkText(count);
  const lead = textOf(width) ?? " ".repeat(Math.max(0, count));
  const lines = splitLines(`${text}\n`);
  checkText(text.length + lines.length * lead.length);
  const indented = lines.map((line, i) =>
    i === 0 || line === "" && !isTrue(blank) ? line : lead + line
  );
  return like(value, (isTrue(first) ? lead : "") + indented.join("\n"));
}

function truncate(
  value: Value,
  length: Value = 255n,
  killWords: Value = false,
  end: Value = "...",
  leeway: Value = 5n,
): Value {
  const [most, tail] = [needIndex(length, "truncate"), needText(end, "truncate")];
  const slack = leeway === null ? 5 : needIndex(leeway, "truncate");
  const kept = most - lengthOf(tail);
  if (kept < 0 || slack < 0) fail("truncate takes a length of at least that of its end");
  const size = sizeOf(value);
  if (size !== undefined && size <= most + slack) return value;
  const text = [...needText(value, "truncate")].slice(0, kept).join("");
  const at = text.lastIndexOf(" ");
  return like(value, (isTrue(killWords) || at < 0 ? text : text.slice(0, at)) + tail);
}

function jsonOf(
  value: Value,
  ensureAscii: Value = false,
  indentBy: Value = null,
  separators: Value = null,
  sortKeys: Value = false,
): Value {
  const width = integerOf(indentBy);
  const indent = indentBy === null
    ? null
    : width === undefined
    ? needText(indentBy, "the indent of tojson")
    : " ".repeat(Math.max(0, Math.min(1000, needIndex(width, "the indent of tojson"))));
  const [comma, colon] = separators === null
    ? [indent === null ? ", " : ",", ": "]
    : [...iterate(separators)].map((mark) => needText(mark, "a separator of tojson"));
  const options: JsonOptions = {
    ensureAscii: isTrue(ensureAscii),
    indent,
    separators: [comma, colon ?? fail("tojson takes two separators")],
    sortKeys: isTrue(sortKeys),
  };
  return toJson(value, options);
}

function urlEncode(value: Value): Value {
  const quote = (item: Value, isQuery: boolean) => {
    const kept = isQuery ? /%(?:7E|2D|2E|5F)/g : /%(?:7E|2D|2E|5F|2F)/g;
    const encoded = encodeURIComponent(toText(item).toWellFormed())
      .replace(/[!'()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`)
      .replace(kept, decodeURIComponent);
    return isQuery ? encoded.replaceAll("%20", "+") : encoded;
  };
  if (textOf(value) !== undefined || itemsOf(value) === undefined) return quote(value, false);
  const pairs = value instanceof Dict
    ? [...value.entries()]
    : [...iterate(value)].map((pair) => unpack(pair, 2));
  return pairs.map(([key, item]) => `${quote(key, true)}=${quote(item, true)}`).join("&");
}

function xmlAttributes(value: Value, withSpace: Value = true): Value {
  if (!(value instanceof Dict)) return fail("xmlattr takes a mapping");
  const written: string[] = [];
  for (const [key, item] of value.entries()) {
    if (item === null || item instanceof Undefined) continue;
    const name = needText(key, "an attribute's name");
    if (/[\s/>=]/.test(name)) fail(`invalid character in attribute name: ${repr(key)}`);
    written.push(`${escapeHtml(key)}="${escapeHtml(item)}"`);
  }
  const text = written.join(" ");
  return isTrue(withSpace) && text !== "" ? ` ${text}` : text;
}

function fileSize(value: Value, binary: Value = false): Value {
  const bytes = typeof value === "bigint" ? toFloat(value) : Number(toText(value));
  const base = isTrue(binary) ? 1024 : 1000;
  if (bytes === 1) return "1 Byte";
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const units = [..."kMGTPEZY"].map((letter) =>
    isTrue(binary) ? `${letter.toUpperCase()}iB` : `${letter}B`
  );
  let power = 1;
  while (power < units.length && bytes >= base ** (power + 1)) power++;
  return `${formatPercent("%.1f", bytes / base ** power)} ${units[power - 1]}`;
}

export const FILTERS: Readonly<Record<string, Filter>> = {
  ...LIST_FILTERS,
  ...NUMBER_FILTERS,
  attr: filter("name!", (value, name) => {
    const text = needText(name, "attr");
    return attributeOf(value, text) === undefined
      ? new Undefined(`'${typeOf(value)} object' has no attribute '${text}'`)
      : getAttribute(value, text);
  }),
  capitalize: ofText(capitalize),
  center: filter(
    "width",
    (value, width = 80n) =>
      like(value, justify(toText(value), needIndex(width, "center"), " ", "^")),
  ),
  count: length,
  d: fallback,
  default: fallback,
  e: escape,
  escape,
  filesizeformat: filter("binary", fileSize),
  forceescape: filter("", (value) => new Markup(escapeHtml(toText(value)))),
  format: (value, args, kwargs) => {
    if (args.length > 0 && kwargs.size > 0) fail("format takes arguments by place or by name");
    const values = kwargs.size > 0 ? new Dict(kwargs) : new Tuple(args);
    return operate("%", value instanceof Markup ? value : toText(value), values);
  },
  indent: filter("width first blank", indent),
  items: filter("", (value) => {
    if (value instanceof Undefined) return [];
    if (!(value instanceof Dict)) return fail("Can only get item pairs from a mapping.");
    return [...value.entries()].map((entry) => new Tuple(entry));
  }),
  length,
  lower: ofText((text) => text.toLowerCase()),
  replace: filter("old! new! count", (value, old, by, count = null) =>
    replaceText(
      toText(value),
      toText(old!),
      toText(by!),
      count === null ? -1 : needIndex(count, "replace"),
    )),
  safe: filter("", (value) => new Markup(toText(value))),
  string: filter("", (value) => textOf(value) === undefined ? toText(value) : value),
  striptags: filter("", (value) => stripTags(toText(value))),
  title: filter("", (value) => title(toText(value))),
  tojson: filter("ensure_ascii indent separators sort_keys", jsonOf),
  trim: filter("chars", (value, chars = null) =>
    like(
      value,
      stripText(toText(value), "both", chars === null ? undefined : needText(chars, "trim")),
    )),
  truncate: filter("length killwords end leeway", truncate),
  upper: ofText((text) => text.toUpperCase()),
  urlencode: filter("", urlEncode),
  wordcount: filter("", (value) => BigInt(toText(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
  xmlattr: filter("autospace", xmlAttributes),
};

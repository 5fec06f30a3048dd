/**
 * Python's formatting of text: `"%s: %d" % (a, b)`, and `"{:>8.2f}".format(a)` by the format
 * specification mini-language.
 *
 * @module
 */
import {
  digitsOf,
  toFixed,
  toFloat,
  truncate,
  writeExponent,
  writeFloat,
  writePoint,
} from "./numbers.ts";
import { quote, repr, toText } from "./repr.ts";
import { checkText, justify, lengthOf } from "./text.ts";
import {
  Dict,
  fail,
  integerOf,
  type Kwargs,
  Markup,
  orElse,
  Range,
  textOf,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

/** How one value is written. */
interface Spec {
  readonly fill: string;
  readonly align: string;
  readonly sign: string;
  readonly isAlternate: boolean;
  readonly width: number;
  readonly grouping: string;
  readonly precision: number | undefined;
  readonly type: string;
}

const PERCENT = /%(?:\(((?:[^()]|\([^()]*\))*)\))?([-#0 +]*)(\*|\d*)(?:\.(\*|\d*))?[hlL]?([^]?)/g;

/** `template % values`; `write` is the text of a value, escaped for a Markup. */
export function formatPercent(template: string, values: Value, write = toText): string {
  const args = values instanceof Tuple ? values.items : [values];
  let used = 0;
  let usesKeys = false;
  const next = (): Value =>
    used < args.length ? args[used++] : fail("not enough arguments for format string");
  const size = (written: string | undefined): number | undefined => {
    if (written !== "*") return written === undefined ? undefined : Number(written);
    return Number(integerOf(next()) ?? fail("* wants int"));
  };
  const text = template.replace(PERCENT, (_, key, flags, width, precision, type) => {
    usesKeys ||= key !== undefined;
    const spec = percentSpec(flags, size(width) ?? 0, size(precision), type);
    if (type === "%") return "%";
    const value = key === undefined ? next() : keyed(values, key);
    return checked(formatOne(
      type === "s"
        ? write(value)
        : type !== "" && "ra".includes(type)
        ? write(convert(value, type))
        : value,
      spec,
    ));
  });
  const isMapping = values instanceof Dict || Array.isArray(values) || values instanceof Range ||
    values instanceof Undefined;
  if (used < args.length && !usesKeys && !isMapping) {
    fail("not all arguments converted during string formatting");
  }
  return checked(text);
}

function keyed(values: Value, key: string): Value {
  if (!(values instanceof Dict)) return fail("format requires a mapping");
  return orElse(values.get(key), () => fail(`KeyError: ${quote(key)}`));
}

function percentSpec(
  flags: string,
  width: number,
  precision: number | undefined,
  type: string,
): Spec {
  const isLeft = flags.includes("-") || width < 0;
  const hasZeros = flags.includes("0") && "diuxXoeEfFgG".includes(type);
  return {
    fill: hasZeros && !isLeft ? "0" : " ",
    align: isLeft ? "<" : hasZeros ? "=" : ">",
    sign: flags.includes("+") ? "+" : flags.includes(" ") ? " " : "-",
    isAlternate: flags.includes("#"),
    width: Math.abs(width),
    grouping: "",
    precision,
    type,
  };
}

function checked(text: string): string {
  checkText(text.length);
  return text;
}

function formatOne(value: Value, spec: Spec): string {
  const { type } = spec;
  switch (type) {
    case "s":
    case "r":
    case "a":
      return pad(cut(toText(value), spec.precision), spec);
    case "c": {
      const text = textOf(value) ?? character(integerOf(value) ?? fail("%c requires int or char"));
      return lengthOf(text) === 1 ? pad(text, spec) : fail("%c requires int or char");
    }
    case "d":
    case "i":
    case "u": {
      const integer = integerOf(value) ?? (typeof value === "number" ? truncate(value) : undefined);
      return integer === undefined
        ? fail(`%${type} format: a real number is required, not ${typeOf(value)}`)
        : formatInteger(integer, { ...spec, type: "d" });
    }
    case "x":
    case "X":
    case "o":
      return formatInteger(
        integerOf(value) ?? fail(`%${type} format: an integer is required, not ${typeOf(value)}`),
        spec,
      );
  }
  if (type !== "" && "eEfFgG".includes(type)) {
    return formatFloat(
      numberOf(value) ?? fail(`must be real number, not ${typeOf(value)}`),
      { ...spec, precision: spec.precision ?? 6 },
    );
  }
  return fail(type === "" ? "incomplete format" : `unsupported format character ${quote(type)}`);
}

/** `ascii()` */
function ascii(value: Value): string {
  return repr(value).replace(/[\x7f-\u{10ffff}]/gu, (letter) => {
    const code = letter.codePointAt(0)!;
    const hex = code.toString(16);
    return code < 0x100
      ? `\\x${hex}`
      : code < 0x10000
      ? `\\u${hex.padStart(4, "0")}`
      : `\\U${hex.padStart(8, "0")}`;
  });
}

function numberOf(value: Value): number | undefined {
  const integer = integerOf(value);
  return integer !== undefined ? toFloat(integer) : typeof value === "number" ? value : undefined;
}

function cut(text: string, precision: number | undefined): string {
  return precision === undefined ? text : [...text].slice(0, precision).join("");
}

function pad(text: string, { fill, align, width }: Spec): string {
  if (align !== "^") return justify(text, width, fill, align === "<" ? "<" : ">");
  // Unlike str.center(), format() puts an unpaired space on the right.
  checkText(width);
  const missing = Math.max(0, width - lengthOf(text));
  return fill.repeat(missing >> 1) + text + fill.repeat(missing - (missing >> 1));
}

function character(code: bigint): string {
  return code >= 0n && code < 0x110000n
    ? String.fromCodePoint(Number(code))
    : fail("a code that is no character");
}

const BASES: Readonly<Record<string, number>> = { b: 2, o: 8, x: 16, X: 16 };

function formatInteger(value: bigint, spec: Spec): string {
  const { type, isAlternate, precision = 0 } = spec;
  const size = value < 0n ? -value : value;
  const base = BASES[type] ?? 10;
  checkText(precision);
  const digits = size.toString(base).padStart(precision, "0");
  const prefix = isAlternate && base !== 10 ? `0${type}` : "";
  return padNumber(
    value < 0n,
    prefix,
    type === "X" ? digits.toUpperCase() : digits,
    "",
    spec,
    base === 10 ? 3 : 4,
  );
}

function formatFloat(value: number, spec: Spec): string {
  const { type } = spec;
  const isNegative = value < 0 || Object.is(value, -0);
  const text = Number.isFinite(value)
    ? floatText(Math.abs(value), spec)
    : writeFloat(Math.abs(value));
  const cased = /[A-Z]/.test(type) ? text.toUpperCase() : text;
  const [, whole, rest] = /^(\d*)([^]*)$/.exec(cased)!;
  return padNumber(isNegative, "", whole, type === "%" ? `${rest}%` : rest, spec, 3);
}

/** The text of a float without its sign. */
function floatText(value: number, { type, precision, isAlternate }: Spec): string {
  const kind = type.toLowerCase();
  if (kind === "" && precision === undefined) return writeFloat(value);
  const places = precision ?? 6;
  checkText(places);
  if (kind === "f" || kind === "%") {
    const text = toFixed(kind === "%" ? value * 100 : value, places);
    return isAlternate && places === 0 ? `${text}.` : text;
  }
  if (kind === "e") {
    const [digits, exponent] = digitsOf(value, places);
    const text = writeExponent(digits, exponent);
    return isAlternate && places === 0 ? text.replace("e", ".e") : text;
  }
  // g, and a precision without a type, which keeps one digit after the point
  const most = Math.max(1, places);
  const [digits, exponent] = digitsOf(value, Math.min(100, most - 1));
  const isShort = exponent >= -4 && exponent < (kind === "" ? most - 1 : most);
  const kept = isAlternate ? digits : digits.replace(/0+$/, "") || "0";
  if (!isShort) return writeExponent(kept, exponent);
  const text = writePoint(kept, exponent);
  if (kind === "" && !text.includes(".")) return `${text}.0`;
  return isAlternate && !text.includes(".") ? `${text}.` : text;
}

function padNumber(
  isNegative: boolean,
  prefix: string,
  digits: string,
  rest: string,
  spec: Spec,
  group: number,
): string {
  const { align, width, grouping, fill } = spec;
  const lead = (isNegative ? "-" : spec.sign === "-" ? "" : spec.sign) + prefix;
  checkText(width);
  let whole = grouped(digits, grouping, group);
  if (align !== "=") return pad(lead + whole + rest, spec);
  if (fill !== "0") {
    return lead + fill.repeat(Math.max(0, width - lengthOf(lead + whole + rest))) + whole + rest;
  }
  for (let zeros = digits; lead.length + whole.length + rest.length < width;) {
    zeros = `0${zeros}`;
    whole = grouped(zeros, grouping, group);
  }
  return lead + whole + rest;
}

function grouped(digits: string, mark: string, size: number): string {
  if (mark === "") return digits;
  return digits.replace(size === 3 ? /\B(?=(?:\d{3})+$)/g : /\B(?=(?:[\da-fA-F]{4})+$)/g, mark);
}

const SPEC = /^(?:([^])?([<>=^]))?([-+ ])?(z)?(#)?(0)?(\d*)([,_])?(?:\.(\d+))?([a-zA-Z%])?$/u;

/** `format(value, specification)` */
export function formatValue(value: Value, specification: string): string {
  if (specification === "") return toText(value);
  const found = SPEC.exec(specification) ?? fail("Invalid format specifier");
  const [, fill, align, sign, , alternate, zero, width, grouping = "", precision, type = ""] =
    found;
  const text = textOf(value);
  const isText = text !== undefined;
  const spec: Spec = {
    fill: fill ?? (zero ? "0" : " "),
    align: align ?? (isText ? "<" : zero ? "=" : ">"),
    sign: sign ?? "-",
    isAlternate: alternate !== undefined,
    width: Number(width || 0),
    grouping,
    precision: precision === undefined ? undefined : Number(precision),
    type,
  };
  if (isText) {
    if (spec.align === "=" || sign || grouping || (type !== "" && type !== "s")) {
      fail("a format specifier that text does not take");
    }
    return pad(cut(text, spec.precision), spec);
  }
  const integer = integerOf(value);
  if (integer !== undefined && (type === "" || "bcdoxXn".includes(type))) {
    if (precision !== undefined) fail("Precision not allowed in integer format specifier");
    return type === "c" ? pad(character(integer), spec) : formatInteger(integer, spec);
  }
  const number = numberOf(value);
  if (number === undefined || !"eEfFgGn%".includes(type)) {
    fail(`unsupported format string passed to ${typeOf(value)}.__format__`);
  }
  return formatFloat(number!, type === "n" ? { ...spec, type: "g" } : spec);
}

/** Attribute and item access for replacement fields. */
export interface Lookup {
  attribute(value: Value, name: string): Value;
  item(value: Value, key: Value): Value;
}

/** `template.format(*args, **kwargs)`; `finish` escapes a filled-in text for a Markup. */
export function formatBraces(
  template: string,
  args: readonly Value[],
  kwargs: Kwargs,
  lookup: Lookup,
  finish: (value: Value, text: string) => string = (_, text) => text,
): string {
  return new BraceFormatter(args, kwargs, lookup, finish).fill(template, 1);
}

class BraceFormatter {
  /** Next number of `{}`. */
  #counter = 0;

  constructor(
    readonly args: readonly Value[],
    readonly kwargs: Kwargs,
    readonly lookup: Lookup,
    readonly finish: (value: Value, text: string) => string,
  ) {}

  /** Replaces the fields of a text; a specification is filled one level deeper. */
  fill(text: string, depth: number): string {
    if (depth > 3) fail("Max string recursion exceeded");
    let filled = "";
    for (let at = 0; at < text.length;) {
      const letter = text[at];
      if (letter !== "{" && letter !== "}") filled += letter, at++;
      else if (text[at + 1] === letter) filled += letter, at += 2;
      else {
        const end = letter === "{" ? closing(text, at) : -1;
        if (end < 0) fail(`Single '${letter}' encountered in format string`);
        filled += this.#field(text.slice(at + 1, end), depth);
        at = end + 1;
      }
      checkText(filled.length);
    }
    return filled;
  }

  /** `name!conversion:specification` */
  #field(text: string, depth: number): string {
    const [, name, conversion, specification = ""] =
      /^((?:\[[^\]]*\]|[^!:[])*)(?:!([^]?))?(?::([^]*))?$/.exec(text) ??
        fail("expected ':' after conversion specifier");
    const value = this.#value(name);
    const converted = conversion === undefined ? value : convert(value, conversion);
    return this.finish(converted, formatValue(converted, this.fill(specification, depth + 1)));
  }

  /** `0.attribute[item]` */
  #value(name: string): Value {
    const [, first, rest] = /^([^.[]*)([^]*)$/.exec(name)!;
    const key = first === "" ? String(this.#counter++) : first;
    let value: Value = /^\d+$/.test(key)
      ? orElse(this.args[Number(key)], () => fail(`no argument ${key} to fill in`))
      : orElse(this.kwargs.get(key), () => fail(`KeyError: ${quote(key)}`));
    for (const [, attribute, item] of rest.matchAll(/\.([^.[]*)|\[([^\]]*)\]/g)) {
      value = attribute !== undefined
        ? this.lookup.attribute(value, attribute)
        : this.lookup.item(value, /^\d+$/.test(item) ? BigInt(item) : item);
    }
    return value;
  }
}

/** `!r`, `!s`, `!a`, and the same three of a percent format. */
function convert(value: Value, conversion: string): string {
  switch (conversion) {
    case "r":
      return repr(value);
    case "s":
      return toText(value);
    case "a":
      return ascii(value);
  }
  return fail(`Unknown conversion specifier '${conversion}'`);
}

/** Position of the brace that closes the one at `from`, or -1. */
function closing(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    if (text[at] === "{") depth++;
    else if (text[at] === "}" && --depth === 0) return at;
  }
  return -1;
}

const HTML: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

/** HTML's special characters as entities; Markup stays as it is. */
export function escapeHtml(value: Value): string {
  if (value instanceof Markup) return value.text;
  const text = toText(value).replace(/[&<>"']/g, (letter) => HTML[letter]);
  return checked(text);
}

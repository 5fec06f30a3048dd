/**
 * Attribute and item access: `a.b` tries attributes first, `a["b"]` items.
 *
 * As Jinja's ImmutableSandboxedEnvironment: names with a leading underscore and methods that change
 * a list or a dict are unsafe.
 *
 * @module
 */
import { bind, needIndex } from "./arguments.ts";
import { isEqual } from "./compare.ts";
import { quote, repr } from "./repr.ts";
import { characters, checkItems } from "./text.ts";
import { textMethod } from "./text_methods.ts";
import {
  Callable,
  Dict,
  fail,
  integerOf,
  iterate,
  Markup,
  orElse,
  Range,
  textOf,
  Thing,
  Tuple,
  typeOf,
  Undefined,
  type Value,
  View,
} from "./values.ts";

/** Methods that would change a value. */
const MUTATING: Readonly<Record<string, readonly string[]>> = {
  list: ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"],
  dict: ["clear", "pop", "popitem", "setdefault", "update"],
};

type Method<T> = readonly [
  signature: string,
  run: (self: T, args: readonly (Value | undefined)[]) => Value,
];

const DICT: Readonly<Record<string, Method<Dict>>> = {
  keys: ["", (dict) => new View(dict, "keys")],
  values: ["", (dict) => new View(dict, "values")],
  items: ["", (dict) => new View(dict, "items")],
  get: ["key! default", (dict, [key, fallback = null]) => orElse(dict.get(key!), () => fallback)],
  copy: ["", (dict) => new Dict(dict.entries())],
  fromkeys: [
    "iterable! value",
    (_, [keys, value = null]) => new Dict([...iterate(keys!)].map((key) => [key, value])),
  ],
};

const LIST: Readonly<Record<string, Method<readonly Value[]>>> = {
  count: [
    "value!",
    (items, [value]) => BigInt(items.filter((item) => isEqual(item, value!)).length),
  ],
  index: ["value! start stop", (items, [value, start, stop]) => {
    const clamp = (index: Value | undefined, otherwise: number) => {
      if (index === undefined) return otherwise;
      const at = needIndex(index, "index");
      return at < 0 ? Math.max(0, at + items.length) : at;
    };
    const [from, to] = [clamp(start, 0), clamp(stop, items.length)];
    const at = items.findIndex((item, i) => i >= from && i < to && isEqual(item, value!));
    return at < 0 ? fail(`${repr(value!)} is not in list`) : BigInt(at);
  }],
  copy: ["", (items) => [...items]],
};

function methodOf<T>(
  table: Readonly<Record<string, Method<T>>>,
  self: T,
  name: string,
): Callable | undefined {
  if (!Object.hasOwn(table, name)) return undefined;
  const [signature, run] = table[name];
  return new Callable(name, (args, kwargs) => run(self, bind(name, signature, args, kwargs)));
}

/** An attribute as Python's getattr() gives it; undefined if it does not exist. */
export function attributeOf(value: Value, name: string): Value | undefined {
  if (value instanceof Undefined) return value.fail();
  if (name.startsWith("_") || MUTATING[typeOf(value)]?.includes(name)) {
    // Python finds these attributes; using the result fails.
    const isThere = !name.startsWith("_") || /^__\w+__$/.test(name);
    if (!isThere) return undefined;
    return new Undefined(
      `access to attribute '${name}' of '${typeOf(value)}' object is unsafe.`,
    );
  }
  if (typeof value === "string" || value instanceof Markup) return textMethod(value, name, LOOKUP);
  if (value instanceof Dict) return methodOf(DICT, value, name);
  if (Array.isArray(value)) return methodOf(LIST, value, name);
  if (value instanceof Tuple) {
    const at = value.names.indexOf(name);
    return at >= 0
      ? value.items[at]
      : name === "copy"
      ? undefined
      : methodOf(LIST, value.items, name);
  }
  if (value instanceof Range) {
    if (name === "start" || name === "stop" || name === "step") return BigInt(value[name]);
    return name === "copy" ? undefined : methodOf(LIST, [...value], name);
  }
  if (value instanceof Thing) return value.attribute(name);
  return numberAttribute(value, name);
}

function numberAttribute(value: Value, name: string): Value | undefined {
  const integer = integerOf(value);
  if (integer === undefined && typeof value !== "number") return undefined;
  const real = integer ?? value;
  switch (name) {
    case "real":
    case "numerator":
      return name === "numerator" && integer === undefined ? undefined : real;
    case "imag":
      return integer === undefined ? 0 : 0n;
    case "denominator":
      return integer === undefined ? undefined : 1n;
    case "conjugate":
      return new Callable(name, () => real);
    case "bit_length":
      return integer === undefined ? undefined : new Callable(
        name,
        () => integer === 0n ? 0n : BigInt((integer < 0n ? -integer : integer).toString(2).length),
      );
    case "is_integer":
      return typeof value === "number"
        ? new Callable(name, () => Number.isInteger(value))
        : undefined;
  }
}

/** An item as Python's `value[key]` gives it; undefined if it does not exist. */
function itemOf(value: Value, key: Value): Value | undefined {
  if (value instanceof Undefined) return value.fail();
  if (value instanceof Dict) {
    return Array.isArray(key) || key instanceof Dict ? undefined : value.get(key);
  }
  const index = integerOf(key);
  if (index === undefined) return undefined;
  const at = (length: number) => Number(index < 0n ? index + BigInt(length) : index);
  const text = textOf(value);
  if (text !== undefined) {
    const letters = characters(text);
    const letter = letters[at(letters.length)];
    return letter !== undefined && value instanceof Markup ? new Markup(letter) : letter;
  }
  if (Array.isArray(value)) return value[at(value.length)];
  if (value instanceof Tuple) return value.items[at(value.items.length)];
  if (value instanceof Range) {
    const place = at(value.length);
    return place >= 0 && place < value.length ? value.at(place) : undefined;
  }
  return undefined;
}

function missing(value: Value, key: Value): Undefined {
  const kind = value === null ? "None" : `${typeOf(value)} object`;
  const name = textOf(key);
  return new Undefined(
    name === undefined
      ? `${kind} has no element ${repr(key)}`
      : `'${kind}' has no attribute ${quote(name)}`,
  );
}

/** `value.name` */
export function getAttribute(value: Value, name: string): Value {
  return orElse(
    attributeOf(value, name),
    () => orElse(itemOf(value, name), () => missing(value, name)),
  );
}

/** `value[key]` */
export function getItem(value: Value, key: Value): Value {
  const name = textOf(key);
  return orElse(
    itemOf(value, key),
    () =>
      orElse(
        name === undefined ? undefined : attributeOf(value, name),
        () => missing(value, key),
      ),
  );
}

const LOOKUP = { attribute: getAttribute, item: getItem };

/** `value[start:stop:step]` */
export function getSlice(value: Value, bounds: readonly (Value | undefined)[]): Value {
  if (value instanceof Undefined) return value.fail();
  const [start, stop, step = 1] = bounds.map((bound) =>
    bound == null ? undefined : needIndex(bound, "slice")
  );
  if (step === 0) fail("slice step cannot be zero");
  const text = textOf(value);
  const items: string | readonly Value[] | Range | null = text !== undefined
    ? characters(text)
    : value instanceof Tuple
    ? value.items
    : Array.isArray(value) || value instanceof Range
    ? value
    : null;
  // Python refuses to slice these, but where all is constant Jinja prints nothing.
  if (items === null) return new Undefined(`'${typeOf(value)}' object cannot be sliced`);
  const { length } = items;
  const clamp = (bound: number | undefined, otherwise: number) => {
    if (bound === undefined) return otherwise;
    const at = bound < 0 ? bound + length : bound;
    return step > 0 ? Math.max(0, Math.min(length, at)) : Math.max(-1, Math.min(length - 1, at));
  };
  const [from, to] = [
    clamp(start, step > 0 ? 0 : length - 1),
    clamp(stop, step > 0 ? length : -1),
  ];
  if (items instanceof Range) {
    const { start: first, step: stride } = items;
    return new Range(first + from * stride, first + to * stride, stride * step);
  }
  if (text !== undefined && step === 1) {
    const part = items.slice(from, Math.max(from, to));
    return rewrap(value, typeof part === "string" ? part : part.join(""));
  }
  const picked: Value[] = [];
  for (let i = from; step > 0 ? i < to : i > to; i += step) picked.push(items[i]);
  if (text !== undefined) return rewrap(value, picked.join(""));
  checkItems(picked.length);
  return value instanceof Tuple ? new Tuple(picked) : picked;
}

function rewrap(like: Value, text: string): Value {
  return like instanceof Markup ? new Markup(text) : text;
}

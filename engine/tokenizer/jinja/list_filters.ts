/**
 * Filters of lists and dicts.
 *
 * @module
 */
import { needIndex } from "./arguments.ts";
import { getItem } from "./attributes.ts";
import { compare, isEqual, sortBy } from "./compare.ts";
import { operate } from "./operators.ts";
import { quote, toText } from "./repr.ts";
import { checkItems, checkText } from "./text.ts";
import { type Filter, filter, find, type Tables } from "./tables.ts";
import {
  Dict,
  fail,
  hashOf,
  isTrue,
  iterate,
  type Kwargs,
  Lazy,
  listOf,
  Markup,
  orElse,
  textOf,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

type Get = (item: Value) => Value;

/** Reads `"a.b.0"` step by step; without an attribute, the item itself. */
function getter(attribute: Value | undefined, otherwise?: Value): Get {
  const text = attribute === undefined ? undefined : textOf(attribute);
  const parts: Value[] = attribute == null
    ? []
    : text === undefined
    ? [attribute]
    : text.split(".").map((part) => /^\p{Nd}+$/u.test(part) ? BigInt(part) : part);
  return (item) =>
    parts.reduce((value, part) => {
      const found = getItem(value, part);
      return otherwise != null && found instanceof Undefined ? otherwise : found;
    }, item);
}

/** Text in lower case, so that sorting and grouping see no case; other values as they are. */
function folded(get: Get, isCaseSensitive: Value | undefined): Get {
  if (isTrue(isCaseSensitive ?? false)) return get;
  return (item) => {
    const value = get(item);
    return textOf(value)?.toLowerCase() ?? value;
  };
}

/** Several attributes with commas between, as a list to sort by. */
function keysOf(attribute: Value | undefined, isCaseSensitive: Value | undefined): Get {
  const text = attribute === undefined ? undefined : textOf(attribute);
  const gets = (text?.split(",") ?? [attribute]).map((one) => folded(getter(one), isCaseSensitive));
  return (item) => gets.map((get) => get(item));
}

function batch(value: Value, count: Value | undefined, fill: Value = null): Value {
  const size = needIndex(count, "batch");
  const groups: Value[][] = [];
  for (const item of iterate(value)) {
    if (groups.length === 0 || groups[groups.length - 1].length === size) groups.push([]);
    groups[groups.length - 1].push(item);
  }
  const last = groups.at(-1);
  if (last && fill !== null) {
    checkItems(size);
    while (last.length < size) last.push(fill);
  }
  return groups;
}

function slices(value: Value, count: Value | undefined, fill: Value = null): Value {
  const items = listOf(value);
  const number = needIndex(count, "slice");
  if (number === 0) fail("integer division or modulo by zero");
  checkItems(number);
  const [size, more] = [Math.floor(items.length / number), items.length % number];
  let from = 0;
  return Array.from({ length: Math.max(0, number) }, (_, i) => {
    const slice = items.slice(from, from += size + (i < more ? 1 : 0));
    if (fill !== null && i >= more) slice.push(fill);
    return slice;
  });
}

function sortDict(
  value: Value,
  isCaseSensitive?: Value,
  by: Value = "key",
  reverse: Value = false,
): Value {
  if (by !== "key" && by !== "value") return fail('You can only sort by either "key" or "value"');
  if (!(value instanceof Dict)) {
    return value instanceof Undefined ? value.fail() : fail("dictsort takes a mapping");
  }
  const at = by === "key" ? 0 : 1;
  const entries = [...value.entries()].map((entry) => new Tuple(entry));
  return sortBy(
    entries,
    folded((entry) => (entry as Tuple).items[at], isCaseSensitive),
    isTrue(reverse),
  );
}

function groupBy(
  value: Value,
  attribute: Value | undefined,
  otherwise?: Value,
  isCaseSensitive?: Value,
): Value {
  const get = getter(attribute, otherwise);
  const key = folded(get, isCaseSensitive);
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sortBy(listOf(value), key, false)) {
    const last = groups.at(-1);
    if (last && isEqual(last.key, key(item))) last.items.push(item);
    else groups.push({ key: key(item), items: [item] });
  }
  return groups.map(({ items }) => new Tuple([get(items[0]), items], ["grouper", "list"]));
}

function join(value: Value, separator: Value = "", attribute?: Value): Value {
  const get = getter(attribute);
  const between = toText(separator);
  let joined = "";
  let isFirst = true;
  for (const item of iterate(value)) {
    joined += (isFirst ? "" : between) + toText(get(item));
    isFirst = false;
    checkText(joined.length);
  }
  return joined;
}

function extreme(sign: 1 | -1): Filter {
  return filter("case_sensitive attribute", (value, isCaseSensitive, attribute) => {
    const key = folded(getter(attribute), isCaseSensitive);
    let best: { item: Value; key: Value } | undefined;
    for (const item of iterate(value)) {
      const own = key(item);
      if (!best || sign * compare(own, best.key, sign > 0 ? "<" : ">") < 0) {
        best = { item, key: own };
      }
    }
    return best ? best.item : new Undefined("No aggregated item, sequence was empty.");
  });
}

function reverse(value: Value): Value {
  const text = textOf(value);
  if (text !== undefined) {
    const reversed = [...text].reverse().join("");
    return value instanceof Markup ? new Markup(reversed) : reversed;
  }
  const reversed = listOf(value).reverse();
  return value instanceof Lazy ? reversed : new Lazy(reversed);
}

function last(value: Value): Value {
  if (value instanceof Lazy) return fail("'generator' object is not reversible");
  return orElse(listOf(value).at(-1), () => new Undefined("No last item, sequence was empty."));
}

function* unique(value: Value, isCaseSensitive?: Value, attribute?: Value): Generator<Value> {
  const key = folded(getter(attribute), isCaseSensitive);
  const seen = new Set<unknown>();
  for (const item of iterate(value)) {
    const hash = hashOf(key(item));
    if (seen.has(hash)) continue;
    seen.add(hash);
    yield item;
  }
}

/** The function that `map` applies to each item: a named filter or an attribute. */
function mapper(args: readonly Value[], kwargs: Kwargs, tables: Tables): Get {
  if (args.length === 0 && kwargs.has("attribute")) {
    const { attribute, default: otherwise, ...others } = Object.fromEntries(kwargs);
    for (const key of Object.keys(others)) fail(`Unexpected keyword argument ${quote(key)}`);
    return getter(attribute, otherwise);
  }
  const [name, ...rest] = args;
  if (name === undefined) return fail("map requires a filter argument");
  const run = find(tables.filters, "filter", name);
  return (item) => run(item, rest, kwargs, tables);
}

function* map(
  value: Value,
  args: readonly Value[],
  kwargs: Kwargs,
  tables: Tables,
): Generator<Value> {
  if (!isTrue(value)) return;
  const run = mapper(args, kwargs, tables);
  for (const item of iterate(value)) yield run(item);
}

/** `select` and its three relatives. */
function selector(keeps: boolean, byAttribute: boolean): Filter {
  const select = function* (...[value, args, kwargs, tables]: Parameters<Filter>) {
    if (!isTrue(value)) return;
    const [first, ...rest] = args;
    if (byAttribute && first === undefined) fail("Missing parameter for attribute name");
    const get: Get = byAttribute ? getter(first) : (item) => item;
    const [name, ...given] = byAttribute ? rest : args;
    const test = name === undefined ? isTrue : find(tables.tests, "test", name);
    for (const item of iterate(value)) {
      if (test(get(item), given, kwargs, tables) === keeps) yield item;
    }
  };
  return (...given) => new Lazy(select(...given));
}

function sum(value: Value, attribute?: Value, start: Value = 0n): Value {
  const get = getter(attribute);
  if (textOf(start) !== undefined) fail("sum() can't sum strings");
  let total = start;
  for (const item of iterate(value)) total = operate("+", total, get(item));
  return total;
}

export const LIST_FILTERS: Readonly<Record<string, Filter>> = {
  batch: filter("linecount! fill_with", batch),
  dictsort: filter("case_sensitive by reverse", sortDict),
  first: filter("", (value) => {
    for (const item of iterate(value)) return item;
    return new Undefined("No first item, sequence was empty.");
  }),
  groupby: filter("attribute! default case_sensitive", groupBy),
  join: filter("d attribute", join),
  last: filter("", last),
  list: filter("", listOf),
  map: (...given) => new Lazy(map(...given)),
  max: extreme(-1),
  min: extreme(1),
  reject: selector(false, false),
  rejectattr: selector(false, true),
  reverse: filter("", reverse),
  select: selector(true, false),
  selectattr: selector(true, true),
  slice: filter("slices! fill_with", slices),
  sort: filter(
    "reverse case_sensitive attribute",
    (value, reverse, isCaseSensitive, attribute) =>
      sortBy(listOf(value), keysOf(attribute, isCaseSensitive), isTrue(reverse ?? false)),
  ),
  sum: filter("attribute start", sum),
  unique: filter(
    "case_sensitive attribute",
    (value, isCaseSensitive, attribute) => new Lazy(unique(value, isCaseSensitive, attribute)),
  ),
};

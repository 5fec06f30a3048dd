/**
 * Python's equality, order and membership.
 *
 * @module
 */
import { compareText } from "./text.ts";
import {
  Dict,
  fail,
  itemsOf,
  Range,
  sizeOf,
  textOf,
  Thing,
  Tuple,
  typeOf,
  Undefined,
  type Value,
  View,
} from "./values.ts";

/**
 * A number or a bool as a number of JavaScript, which compares ints and floats exactly; undefined
 * for other values.
 */
function numberOf(value: Value): bigint | number | undefined {
  if (typeof value === "boolean") return BigInt(value);
  return typeof value === "bigint" || typeof value === "number" ? value : undefined;
}

/** `==` */
export function isEqual(a: Value, b: Value): boolean {
  const [left, right] = [numberOf(a), numberOf(b)];
  // deno-lint-ignore eqeqeq
  if (left !== undefined && right !== undefined) return left == right;
  const [text, other] = [textOf(a), textOf(b)];
  if (text !== undefined || other !== undefined) return text === other;
  if (Array.isArray(a)) return Array.isArray(b) && areEqual(a, b);
  if (a instanceof Tuple) return b instanceof Tuple && areEqual(a.items, b.items);
  if (a instanceof Range) {
    return b instanceof Range && a.length === b.length && areEqual([...a], [...b]);
  }
  if (a instanceof Dict) {
    if (!(b instanceof Dict) || a.size !== b.size) return false;
    for (const [key, value] of a.entries()) {
      const found = b.get(key);
      if (found === undefined || !isSame(value, found)) return false;
    }
    return true;
  }
  if (a instanceof View && b instanceof View && a.kind !== "values" && b.kind !== "values") {
    return a.dict.size === b.dict.size && [...a].every((item) => isIn(item, b));
  }
  if (a instanceof Undefined) return b instanceof Undefined;
  return a === b;
}

/** Items of a container are equal where they are one object, too: NaN is in a list of it. */
function isSame(a: Value, b: Value): boolean {
  return Object.is(a, b) || isEqual(a, b);
}

function areEqual(a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((item, i) => isSame(item, b[i]));
}

/** `in` */
export function isIn(item: Value, container: Value): boolean {
  const text = textOf(container);
  if (text !== undefined) {
    const part = textOf(item);
    if (part !== undefined) return text.includes(part);
    return fail(`'in <string>' requires string as left operand, not ${typeOf(item)}`);
  }
  if (container instanceof Dict) return container.get(item) !== undefined;
  if (container instanceof View && container.kind === "keys") {
    return container.dict.get(item) !== undefined;
  }
  const items = itemsOf(container) ??
    fail(`argument of type '${typeOf(container)}' is not iterable`);
  for (const one of items) if (isSame(one, item)) return true;
  return false;
}

/**
 * Negative, 0 or positive; NaN where two floats are not ordered.
 * @throws {TemplateError} If Python does not order the types.
 */
export function compare(a: Value, b: Value, operator = "<"): number {
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  const [left, right] = [numberOf(a), numberOf(b)];
  if (left !== undefined && right !== undefined) {
    // deno-lint-ignore eqeqeq
    return left < right ? -1 : left > right ? 1 : left == right ? 0 : NaN;
  }
  const [text, other] = [textOf(a), textOf(b)];
  if (text !== undefined && other !== undefined) return compareText(text, other);
  const lists = Array.isArray(a) && Array.isArray(b)
    ? [a, b]
    : a instanceof Tuple && b instanceof Tuple
    ? [a.items, b.items]
    : undefined;
  if (!lists) {
    return fail(
      `'${operator}' not supported between instances of '${typeOf(a)}' and '${typeOf(b)}'`,
    );
  }
  for (let i = 0; i < Math.min(lists[0].length, lists[1].length); i++) {
    if (!isSame(lists[0][i], lists[1][i])) return compare(lists[0][i], lists[1][i], operator);
  }
  return lists[0].length - lists[1].length;
}

/** The comparisons by their operators. */
export const COMPARISONS: Readonly<Record<string, (a: Value, b: Value) => boolean>> = {
  "==": isEqual,
  "!=": (a, b) => !isEqual(a, b),
  "<": (a, b) => compare(a, b, "<") < 0,
  "<=": (a, b) => compare(a, b, "<=") <= 0,
  ">": (a, b) => compare(a, b, ">") > 0,
  ">=": (a, b) => compare(a, b, ">=") >= 0,
  in: isIn,
  "not in": (a, b) => !isIn(a, b),
};

/** `sorted()`: stable, by a key. */
export function sortBy(
  items: readonly Value[],
  key: (item: Value) => Value,
  isReversed: boolean,
): Value[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  keyed.sort((a, b) => {
    const order = isReversed ? compare(b.key, a.key) : compare(a.key, b.key);
    return Number.isNaN(order) ? 0 : order;
  });
  return keyed.map(({ item }) => item);
}

/** Whether two values are one object, as `is` of Python. */
export function isIdentical(a: Value, b: Value): boolean {
  return typeof a === "object" && a !== null ? a === b : Object.is(a, b);
}

/** Whether a value has `len()` and items by index or key. */
export function isSequence(value: Value): boolean {
  return sizeOf(value) !== undefined && !(value instanceof View) && !(value instanceof Thing);
}

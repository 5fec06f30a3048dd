/**
 * Operators of expressions.
 *
 * @module
 */
import { escapeHtml, formatPercent } from "./format.ts";
import { calculate, toIndex } from "./numbers.ts";
import { toText } from "./repr.ts";
import { checkItems, checkText } from "./text.ts";
import { fail, integerOf, Markup, textOf, Tuple, typeOf, Undefined, type Value } from "./values.ts";

/** `a operator b` for arithmetic, text and lists. */
export function operate(operator: string, a: Value, b: Value): Value {
  const text = textOf(a);
  if (operator === "%" && text !== undefined) {
    return a instanceof Markup
      ? new Markup(formatPercent(text, b, escapeHtml))
      : formatPercent(text, b);
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  const joined = operator === "+" ? concatenate(a, b) : operator === "*" ? repeat(a, b) : undefined;
  return joined ?? calculate(operator, a, b) ??
    fail(`unsupported operand type(s) for ${operator}: '${typeOf(a)}' and '${typeOf(b)}'`);
}

function concatenate(a: Value, b: Value): Value | undefined {
  const [text, more] = [textOf(a), textOf(b)];
  if (text !== undefined && more !== undefined) {
    checkText(text.length + more.length);
    return a instanceof Markup || b instanceof Markup
      ? new Markup(escapeHtml(a) + escapeHtml(b))
      : text + more;
  }
  if (Array.isArray(a) && Array.isArray(b)) {
    checkItems(a.length + b.length);
    return [...a, ...b];
  }
  if (a instanceof Tuple && b instanceof Tuple) {
    checkItems(a.items.length + b.items.length);
    return new Tuple([...a.items, ...b.items]);
  }
  if (text !== undefined) return fail(`can only concatenate str (not "${typeOf(b)}") to str`);
  return undefined;
}

function repeat(a: Value, b: Value): Value | undefined {
  const [times, sequence] = integerOf(a) === undefined ? [b, a] : [a, b];
  const count = integerOf(times);
  if (count === undefined) return undefined;
  const number = Math.max(0, toIndex(count));
  const text = textOf(sequence);
  if (text !== undefined) {
    checkText(text.length * number);
    const repeated = text === "" ? "" : text.repeat(number);
    return sequence instanceof Markup ? new Markup(repeated) : repeated;
  }
  const items = sequence instanceof Tuple ? sequence.items : sequence;
  if (!Array.isArray(items)) return undefined;
  checkItems(items.length * number);
  const repeated: Value[] = [];
  for (let i = 0; i < number && items.length > 0; i++) repeated.push(...items);
  return sequence instanceof Tuple ? new Tuple(repeated) : repeated;
}

/** `a ~ b ~ c` */
export function join(values: readonly Value[]): string {
  let text = "";
  for (const value of values) {
    text += toText(value);
    checkText(text.length);
  }
  return text;
}

/**
 * Filters that make numbers.
 *
 * @module
 */
import { needIndex } from "./arguments.ts";
import { negate, parseFloat, parseInteger, round, toFloat, truncate } from "./numbers.ts";
import { type Filter, filter } from "./tables.ts";
import { fail, integerOf, textOf, typeOf, Undefined, type Value } from "./values.ts";

/** The number of a value that Python's `int()` or `float()` takes; undefined for others. */
function floatOf(value: Value): number | undefined {
  const integer = integerOf(value);
  if (integer !== undefined) return toFloat(integer);
  if (typeof value === "number") return value;
  if (value instanceof Undefined) return value.fail();
  const text = textOf(value);
  return text === undefined ? undefined : parseFloat(text);
}

function toInteger(value: Value, otherwise: Value = 0n, base: Value = 10n): Value {
  const text = textOf(value);
  const exact = text === undefined
    ? integerOf(value)
    : parseInteger(text, needIndex(base, "the base of int"));
  if (exact !== undefined) return exact;
  const float = floatOf(value);
  return float === undefined || !Number.isFinite(float) ? otherwise : truncate(float);
}

function rounded(value: Value, precision: Value = 0n, method: Value = "common"): Value {
  const places = needIndex(precision, "round");
  const number = integerOf(value) ?? value;
  if (number instanceof Undefined) return number.fail();
  if (typeof number !== "bigint" && typeof number !== "number") {
    return fail(`type ${typeOf(value)} cannot be rounded`);
  }
  if (method === "common") return round(number, places);
  if (method !== "ceil" && method !== "floor") return fail("method must be common, ceil or floor");
  const unit = 10 ** places;
  return Math[method](toFloat(number) * unit) / unit;
}

export const NUMBER_FILTERS: Readonly<Record<string, Filter>> = {
  abs: filter("", (value) => {
    const number = negate("+", value);
    return typeof number === "bigint" ? number < 0n ? -number : number : Math.abs(number as number);
  }),
  float: filter("default", (value, otherwise = 0) => floatOf(value) ?? otherwise),
  int: filter("default base", toInteger),
  round: filter("precision method", rounded),
};

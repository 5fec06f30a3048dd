/**
 * Tests: `x is odd`. As jinja2.tests.
 *
 * @module
 */
import { bind } from "./arguments.ts";
import { COMPARISONS, isIdentical, isIn, isSequence } from "./compare.ts";
import { operate } from "./operators.ts";
import { toText } from "./repr.ts";
import type { Test } from "./tables.ts";
import { hasCase } from "./text.ts";
import { Dict, itemsOf, Markup, textOf, Thing, Undefined, type Value } from "./values.ts";

/** A test that takes no argument. */
const one = (run: (value: Value) => boolean): Test => (value, args, kwargs) => {
  bind("test", "", args, kwargs);
  return run(value);
};

/** A test that takes one argument. */
const two =
  (name: string, run: (value: Value, other: Value) => boolean): Test => (value, args, kwargs) => {
    const [other] = bind("test", `${name}!`, args, kwargs);
    return run(value, other!);
  };

const rest = (value: Value, by: Value): Value => operate("%", value, by);
const equals = COMPARISONS["=="];
const named = (operator: string): Test => two("other", COMPARISONS[operator]);

export const TESTS: Readonly<Record<string, Test>> = {
  odd: one((value) => equals(rest(value, 2n), 1n)),
  even: one((value) => equals(rest(value, 2n), 0n)),
  divisibleby: two("num", (value, by) => equals(rest(value, by), 0n)),
  defined: one((value) => !(value instanceof Undefined)),
  undefined: one((value) => value instanceof Undefined),
  filter: (value, _args, _kwargs, { filters }) => Object.hasOwn(filters, toText(value)),
  test: (value, _args, _kwargs, { tests }) => Object.hasOwn(tests, toText(value)),
  none: one((value) => value === null),
  boolean: one((value) => typeof value === "boolean"),
  false: one((value) => value === false),
  true: one((value) => value === true),
  integer: one((value) => typeof value === "bigint"),
  float: one((value) => typeof value === "number"),
  lower: one((value) => hasCase(toText(value), false)),
  upper: one((value) => hasCase(toText(value), true)),
  string: one((value) => textOf(value) !== undefined),
  mapping: one((value) => value instanceof Dict),
  number: one((value) => ["boolean", "bigint", "number"].includes(typeof value)),
  sequence: one(isSequence),
  iterable: one((value) => itemsOf(value) !== undefined),
  callable: one((value) =>
    value instanceof Undefined || value instanceof Thing && value.isCallable
  ),
  sameas: two("other", isIdentical),
  escaped: one((value) => value instanceof Markup),
  in: two("seq", isIn),
  "==": named("=="),
  eq: named("=="),
  equalto: named("=="),
  "!=": named("!="),
  ne: named("!="),
  ">": named(">"),
  gt: named(">"),
  greaterthan: named(">"),
  ">=": named(">="),
  ge: named(">="),
  "<": named("<"),
  lt: named("<"),
  lessthan: named("<"),
  "<=": named("<="),
  le: named("<="),
};

/**
 * Signatures of filters and tests. Both receive the tables of all filters and tests, because `map`
 * and `select` look others up by name.
 *
 * @module
 */
import { bind } from "./arguments.ts";
import { toText } from "./repr.ts";
import { fail, type Kwargs, textOf, type Value } from "./values.ts";

export type Filter = (
  value: Value,
  args: readonly Value[],
  kwargs: Kwargs,
  tables: Tables,
) => Value;

export type Test = (
  value: Value,
  args: readonly Value[],
  kwargs: Kwargs,
  tables: Tables,
) => boolean;

export interface Tables {
  readonly filters: Readonly<Record<string, Filter>>;
  readonly tests: Readonly<Record<string, Test>>;
}

/** A filter with a signature. */
export function filter(
  signature: string,
  run: (value: Value, ...args: (Value | undefined)[]) => Value,
): Filter {
  return (value, args, kwargs) => run(value, ...bind("filter", signature, args, kwargs));
}

/** A filter or a test by a name that is known only when the template runs. */
export function find<Run>(
  table: Readonly<Record<string, Run>>,
  kind: string,
  name: Value,
): Run {
  const text = textOf(name);
  return text !== undefined && Object.hasOwn(table, text)
    ? table[text]
    : fail(`no ${kind} named ${toText(name).slice(0, 60)}`);
}

/**
 * Arguments of functions, filters and methods, by place and by name.
 *
 * @module
 */
import { toIndex } from "./numbers.ts";
import { fail, integerOf, type Kwargs, textOf, typeOf, Undefined, type Value } from "./values.ts";

/** Arguments in the order of a signature; an absent one is undefined. */
export type Bound = readonly (Value | undefined)[];

/**
 * Sorts arguments by a signature.
 * @param signature names separated by spaces; `!` after a required one.
 */
export function bind(
  name: string,
  signature: string,
  args: readonly Value[],
  kwargs: Kwargs,
): Bound {
  const parameters = signature === "" ? [] : signature.split(" ");
  if (args.length > parameters.length) {
    fail(`${name}() takes at most ${parameters.length} arguments, got ${args.length}`);
  }
  const left = new Map(kwargs);
  const bound = parameters.map((parameter, i) => {
    const key = parameter.replace("!", "");
    const named = left.get(key);
    left.delete(key);
    if (i < args.length && named !== undefined) fail(`${name}() got two values for '${key}'`);
    const value = i < args.length ? args[i] : named;
    if (value === undefined && parameter.endsWith("!")) {
      fail(`${name}() lacks the argument '${key}'`);
    }
    return value;
  });
  for (const key of left.keys()) fail(`${name}() takes no argument '${key}'`);
  return bound;
}

/** An argument that has to be text. */
export function needText(value: Value | undefined, what: string): string {
  if (value instanceof Undefined) return value.fail();
  return textOf(value) ?? fail(`${what}: expected str, got ${typeOf(value ?? null)}`);
}

/** An argument that has to be an int, as a number of JavaScript. */
export function needIndex(value: Value | undefined, what: string): number {
  if (value instanceof Undefined) return value.fail();
  return toIndex(
    integerOf(value) ?? fail(`${what}: expected int, got ${typeOf(value ?? null)}`),
  );
}

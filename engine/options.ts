/**
 * Checks of options and arguments that untyped code passes in, and their values in messages.
 *
 * @module
 */

/** Characters of a value that a message quotes at most. */
const QUOTED = 200;

/** Text within one sentence: quoted, at most 200 characters of it. */
export function quote(text: string): string {
  return JSON.stringify(text.length > QUOTED ? `${text.slice(0, QUOTED)}…` : text);
}

/** Any value as a message shows it, in at most about 200 characters. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return quote(value);
    case "bigint":
      return value < 10n ** 20n && value > -(10n ** 20n) ? `${value}n` : "a bigint";
    case "symbol":
    case "function":
      return `a ${typeof value}`;
    case "object":
      return value === null ? "null" : Array.isArray(value) ? "a list" : "an object";
    default:
      return String(value);
  }
}

/**
 * Checks a type.
 * @param what the subject of the sentence, such as "Cannot load: expected threads".
 * @throws {TypeError} If the value is not of the type.
 */
export function expectType(what: string, type: string, holds: boolean, value: unknown): void {
  if (!holds) throw new TypeError(`${what} to be ${type}, got ${show(value)}`);
}

/** Whether a value can hold options: an object that is no list. */
export function isOptions(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Checks token ids from outside; a hole of a sparse list counts as a wrong id.
 * @param V size of the vocabulary.
 * @throws {TypeError} If it is no list.
 * @throws {RangeError} If an id is outside the vocabulary.
 * @returns a copy, so that the caller may change the list while it waits.
 */
export function copyIds(ids: unknown, V: number): number[] {
  const isList = Array.isArray(ids) || (ArrayBuffer.isView(ids) && !(ids instanceof DataView));
  expectType("Cannot run: expected token ids", "a list of numbers", isList, ids);
  const copy = Array.from(ids as ArrayLike<number>);
  const wrong = copy.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= V);
  if (wrong < 0) return copy;
  throw new RangeError(
    `Cannot run id ${show(copy[wrong])}: expected an integer from 0 to ${V - 1}`,
  );
}

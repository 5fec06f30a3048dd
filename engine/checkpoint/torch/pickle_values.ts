/**
 * Values that a pickle is read into, where JavaScript has none of the kind: names, objects, tuples.
 *
 * @module
 */

/** What a constructor may ask of the machine. */
export interface Machine {
  /**
   * Counts what a constructor copies. Two lines of a pickle could copy one list for ever, and a
   * sound pickle copies each once.
   * @throws {CheckpointError} when more was copied than the pickle has bytes.
   */
  spend(count: number): void;
  /** @throws {CheckpointError} naming the file and the byte. */
  fail(expected: string): never;
}

/** What a name of the table can do; one without `make` is only a name. */
export interface Constructor {
  /** Makes the value of a call. */
  make?(args: readonly unknown[], machine: Machine): unknown;
  /** Takes the attributes of a value that `make` made. */
  build?(made: unknown, state: unknown, machine: Machine): void;
}

/** A name of Python that the pickle asked for and may have. */
export class PickleGlobal {
  /** Makes the value of a call, where it can be called. */
  readonly make?: Constructor["make"];
  /** Takes the attributes of a value that it made. */
  readonly build?: Constructor["build"];

  /** Pairs a name with what it can do. */
  constructor(readonly name: string, { make, build }: Constructor = {}) {
    this.make = make;
    this.build = build;
  }
}

/** A value of which nothing is kept but what it is. */
export class Opaque {
  /** Keeps the name of the constructor. */
  constructor(readonly name: string) {}
}

/**
 * An object of a class outside the table, such as a trainer's configuration: its state as data. The
 * class is never imported and none of its code runs.
 */
export class PickledObject {
  /** Attributes, and the items of a subclass of dict. */
  readonly attributes = new Map<unknown, unknown>();
  /** Items of a subclass of list. */
  readonly items: unknown[] = [];

  /** Keeps the class's name and what its constructor is given: of an Enum's member, the value. */
  constructor(readonly name: string, readonly args: readonly unknown[]) {}
}

/** Whether a value is a tuple of Python. */
export function isTuple(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) && Object.isFrozen(value);
}

/** Whether a value is a list of Python. */
export function isList(value: unknown): value is unknown[] {
  return Array.isArray(value) && !Object.isFrozen(value);
}

/** A value in a message: what it is, and a short text itself. */
export function describe(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "string") return JSON.stringify(shorten(value));
  if (typeof value !== "object") return shorten(String(value));
  if (value instanceof PickleGlobal || value instanceof Opaque) return shorten(value.name);
  if (value instanceof PickledObject) return `an object of ${shorten(value.name)}`;
  if (value instanceof Map) return "a dict";
  if (value instanceof Set) return "a set";
  if (value instanceof Uint8Array) return "bytes";
  if (Array.isArray(value)) return isTuple(value) ? "a tuple" : "a list";
  return "another value";
}

/** A file may name things of any length. */
export function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

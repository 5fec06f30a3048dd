/**
 * Python values without a JavaScript counterpart: names, objects, tuples.
 *
 * @module
 */

/** The part of the unpickler that constructors use. */
export interface Machine {
  /**
   * Counts copied values. A short pickle could copy one list again and again; a sound pickle copies
   * each value once.
   * @throws {CheckpointError} If more values are copied than the pickle has bytes.
   */
  spend(count: number): void;
  /** @throws {CheckpointError} Always; names the file and the byte. */
  fail(expected: string): never;
  /** @throws {CheckpointError} Always; says that a Python name is not data. */
  refuseName(name: string): never;
}

/** The behaviour of an allowed name; without `make` it cannot be called. */
export interface Constructor {
  /** Returns the value of a call. */
  make?(args: readonly unknown[], machine: Machine): unknown;
  /** Sets the attributes of a value that `make` returned. */
  build?(made: unknown, state: unknown, machine: Machine): void;
  /**
   * Set if the name alone does not say that it is data. The pickle is refused unless it makes a
   * value: "new", by the instruction that only classes have; "call", by a call that `make` accepts.
   */
  readonly unsure?: "new" | "call";
}

/** An allowed Python name that the pickle refers to. */
export class PickleGlobal {
  /** Returns the value of a call; absent if the name cannot be called. */
  readonly make?: Constructor["make"];
  /** Sets the attributes of a value that `make` returned. */
  readonly build?: Constructor["build"];
  /** What shows that the name is data; absent if that is known. */
  readonly unsure?: Constructor["unsure"];

  /** Pairs a name with its behaviour. */
  constructor(readonly name: string, { make, build, unsure }: Constructor = {}) {
    this.make = make;
    this.build = build;
    this.unsure = unsure;
  }
}

/** A value of which only the constructor's name is kept. */
export class Opaque {
  /** Keeps the name of the constructor. */
  constructor(readonly name: string) {}
}

/**
 * The state of an object whose class is not in the table, such as a trainer's configuration. The
 * class is never imported and its code never runs.
 */
export class PickledObject {
  /** Attributes, and the items of a subclass of dict. */
  readonly attributes = new Map<unknown, unknown>();
  /** Items of a subclass of list. */
  readonly items: unknown[] = [];

  /** Keeps the name of the class and the constructor's arguments: for an Enum member, its value. */
  constructor(readonly name: string, readonly args: readonly unknown[]) {}
}

/** Whether a value is a Python tuple. */
export function isTuple(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) && Object.isFrozen(value);
}

/** Whether a value is a Python list. */
export function isList(value: unknown): value is unknown[] {
  return Array.isArray(value) && !Object.isFrozen(value);
}

/** A value for a message: its kind, or the value itself if it is text or a number. */
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

/** Cuts a text to 80 characters: names from a file may have any length. */
export function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

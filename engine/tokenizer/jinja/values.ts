/**
 * Python values, as far as a template can have them.
 *
 *     Python      here                    Python            here
 *     None        null                    list              array
 *     bool        boolean                 tuple             Tuple
 *     int         bigint                  dict              Dict
 *     float       number                  dict.keys() …     View
 *     str         string                  range             Range
 *     Markup      Markup                  generator         Lazy
 *     Undefined   Undefined               function, macro … Thing
 *
 * @module
 */
import { RaisedByTemplate, TemplateError } from "./errors.ts";
import { characters, checkItems, checkText, lengthOf } from "./text.ts";

export type Value =
  | null
  | boolean
  | bigint
  | number
  | string
  | Markup
  | Undefined
  | Value[]
  | Tuple
  | Dict
  | View
  | Range
  | Lazy
  | Thing;

/** Arguments by name. */
export type Kwargs = ReadonlyMap<string, Value>;

/** Safe HTML; text joined to it is escaped. */
export class Markup {
  constructor(readonly text: string) {}
}

/** Value of a missing name, attribute or item. It prints as "" and iterates over nothing. */
export class Undefined {
  constructor(readonly message: string) {}

  fail(): never {
    throw new TemplateError(this.message);
  }
}

/** A tuple; the groups of `groupby` have names for their items as well. */
export class Tuple {
  constructor(readonly items: readonly Value[], readonly names: readonly string[] = []) {}
}

/** An iterator, spent after one pass. */
export class Lazy {
  readonly #iterator: Iterator<Value>;

  constructor(items: Iterable<Value>) {
    this.#iterator = items[Symbol.iterator]();
  }

  next(): IteratorResult<Value> {
    return this.#iterator.next();
  }

  [Symbol.iterator](): Iterator<Value> {
    return { next: () => this.#iterator.next() }; // no return(): leaving a loop keeps the rest
  }
}

/** `range()`. */
export class Range {
  readonly length: number;

  constructor(readonly start: number, readonly stop: number, readonly step: number) {
    if (step === 0) throw new TemplateError("range() takes a step other than 0");
    this.length = Math.max(0, Math.ceil((stop - start) / step));
    if (this.length > 100_000) {
      throw new TemplateError(`range() gives at most 100000 numbers, got ${this.length}`);
    }
  }

  at(index: number): bigint {
    return BigInt(this.start + index * this.step);
  }

  *[Symbol.iterator](): Generator<Value> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

/** `dict.keys()`, `dict.values()` or `dict.items()`. */
export class View {
  constructor(readonly dict: Dict, readonly kind: "keys" | "values" | "items") {}

  *[Symbol.iterator](): Generator<Value> {
    for (const [key, value] of this.dict.entries()) {
      yield this.kind === "keys" ? key : this.kind === "values" ? value : new Tuple([key, value]);
    }
  }
}

/** A dict: keys by equality, so that 1, 1.0 and True are one key; in order of insertion. */
export class Dict {
  readonly #entries = new Map<unknown, readonly [Value, Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Sets a value. An equal key keeps its position and value: 1 stays 1 when True is set. */
  set(key: Value, value: Value): void {
    const hash = hashOf(key);
    this.#entries.set(hash, [this.#entries.get(hash)?.[0] ?? key, value]);
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hashOf(key))?.[1];
  }

  entries(): Iterable<readonly [Value, Value]> {
    return this.#entries.values();
  }

  *keys(): Generator<Value> {
    for (const [key] of this.#entries.values()) yield key;
  }
}

/** An object with attributes: a function, a namespace, a loop. */
export abstract class Thing {
  abstract readonly typeName: string;
  readonly isCallable: boolean = false;

  /** The value of an attribute; undefined if it does not exist. */
  attribute(_name: string): Value | undefined {
    return undefined;
  }

  call(_args: readonly Value[], _kwargs: Kwargs): Value {
    throw new TemplateError(`'${this.typeName}' object is not callable`);
  }

  /** `len()`; undefined if the object has none. */
  size(): number | undefined {
    return undefined;
  }

  /** Items for iteration; undefined if the object is not iterable. */
  items(): Iterable<Value> | undefined {
    return undefined;
  }

  repr(): string {
    return `<${this.typeName} object>`;
  }
}

/** A function of ours that a template calls. */
export class Callable extends Thing {
  override readonly typeName = "function";
  override readonly isCallable = true;

  constructor(
    readonly name: string,
    readonly run: (args: readonly Value[], kwargs: Kwargs) => Value,
  ) {
    super();
  }

  override call(args: readonly Value[], kwargs: Kwargs): Value {
    return this.run(args, kwargs);
  }

  override repr(): string {
    return `<function ${this.name}>`;
  }
}

/** A Map key: equal values of Python give equal keys. */
export function hashOf(value: Value): unknown {
  switch (typeof value) {
    case "string":
      return value;
    case "boolean":
      return BigInt(value);
    case "number":
      return Number.isInteger(value) ? BigInt(value) : value;
  }
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return Undefined;
  if (value instanceof Tuple) {
    const parts = value.items.map((item) => {
      const hash = hashOf(item);
      return typeof hash === "object" || typeof hash === "function"
        ? `object ${identityOf(hash)}`
        : `${typeof hash} ${String(hash).length} ${hash}`;
    });
    checkText(parts.reduce((sum, part) => sum + part.length, 0));
    // A lone surrogate begins no text of a file.
    return `\ud800(${parts.join(" ")})`;
  }
  if (Array.isArray(value) || value instanceof Dict) {
    throw new TemplateError(`unhashable type: '${typeOf(value)}'`);
  }
  return value;
}

const identities = new WeakMap<object, number>();
let identityCount = 0;

function identityOf(value: object | null): number {
  if (value === null) return -1;
  let identity = identities.get(value);
  if (identity === undefined) identities.set(value, identity = identityCount++);
  return identity;
}

/** A type's name in Python. */
export function typeOf(value: Value): string {
  if (value === null) return "NoneType";
  switch (typeof value) {
    case "boolean":
      return "bool";
    case "bigint":
      return "int";
    case "number":
      return "float";
    case "string":
      return "str";
  }
  if (Array.isArray(value)) return "list";
  if (value instanceof Dict) return "dict";
  if (value instanceof Tuple) return "tuple";
  if (value instanceof Markup) return "Markup";
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Range) return "range";
  if (value instanceof View) return `dict_${value.kind}`;
  return value instanceof Thing ? value.typeName : "generator";
}

/** Truth of a value. */
export function isTrue(value: Value): boolean {
  if (value === null) return false;
  if (typeof value !== "object") return Boolean(value);
  if (value instanceof Undefined) return false;
  const length = sizeOf(value);
  return length === undefined || length > 0;
}

/** `len()`, where a value has one. */
export function sizeOf(value: Value): number | undefined {
  if (typeof value === "string") return lengthOf(value);
  if (value instanceof Markup) return lengthOf(value.text);
  if (Array.isArray(value) || value instanceof Range) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof View) return value.dict.size;
  if (value instanceof Undefined) return 0;
  return value instanceof Thing ? value.size() : undefined;
}

/** The items that a loop walks over; undefined where it cannot. */
export function itemsOf(value: Value): Iterable<Value> | undefined {
  if (typeof value === "string") return characters(value);
  if (value instanceof Markup) return characters(value.text);
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof View || value instanceof Range || value instanceof Lazy) return value;
  if (value instanceof Undefined) return [];
  return value instanceof Thing ? value.items() : undefined;
}

/** The items of a value. @throws {TemplateError} If it has none. */
export function iterate(value: Value): Iterable<Value> {
  return itemsOf(value) ?? fail(`'${typeOf(value)}' object is not iterable`);
}

/** All items as a list. */
export function listOf(value: Value): Value[] {
  const items: Value[] = [];
  for (const item of iterate(value)) {
    items.push(item);
    checkItems(items.length);
  }
  return items;
}

/** The text of a str or Markup; undefined for other values. */
export function textOf(value: Value | undefined): string | undefined {
  return typeof value === "string" ? value : value instanceof Markup ? value.text : undefined;
}

/** An int or a bool as a bigint; undefined for other values. */
export function integerOf(value: Value | undefined): bigint | undefined {
  return typeof value === "bigint" ? value : typeof value === "boolean" ? BigInt(value) : undefined;
}

/** `value`, or a fallback if it is undefined; `??` would also replace None. */
export function orElse(value: Value | undefined, otherwise: () => Value): Value {
  return value === undefined ? otherwise() : value;
}

/** Throws. */
export function fail(message: string): never {
  throw new TemplateError(message);
}

/** A template's own exception. */
export function raise(message: string): never {
  throw new RaisedByTemplate(message);
}

/** Levels of lists and objects that data may have. */
const MAX_DEPTH = 500;

/**
 * Converts a JavaScript value as Python would parse its JSON. Pass a Map to keep the order of keys
 * that look like numbers.
 * @throws {TypeError} If the value is not plain data or is nested deeper than MAX_DEPTH.
 */
export function fromJs(value: unknown, depth = 0): Value {
  if (value === null || value === undefined) return null;
  switch (typeof value) {
    case "string":
    case "boolean":
    case "bigint":
      return value;
    case "number":
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value;
    case "object": {
      if (depth > MAX_DEPTH) throw dataError(`more than ${MAX_DEPTH} levels`);
      if (Array.isArray(value)) return value.map((item) => fromJs(item, depth + 1));
      const entries: Iterable<[unknown, unknown]> = value instanceof Map
        ? value
        : Object.entries(value);
      return new Dict(
        [...entries].filter(([, item]) => item !== undefined)
          .map(([key, item]) => [fromJs(key, depth + 1), fromJs(item, depth + 1)]),
      );
    }
  }
  throw dataError(`a ${typeof value}`);
}

function dataError(got: string): TypeError {
  return new TypeError(`Cannot apply a chat template: expected plain data, got ${got}`);
}

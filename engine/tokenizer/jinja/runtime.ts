/**
 * State of a template that runs: slots of names, written text, loops, macros and namespaces.
 *
 * @module
 */
import { TemplateError } from "./errors.ts";
import { isEqual } from "./compare.ts";
import { quote, repr } from "./repr.ts";
import { checkItems, checkText } from "./text.ts";
import {
  Callable,
  Dict,
  fail,
  iterate,
  type Kwargs,
  orElse,
  sizeOf,
  textOf,
  Thing,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/**
 * Limit of steps, before the addition for the size of the input. A long chat takes about 10,000.
 */
const MAX_STEPS = 3_000_000;

/** Step budget: bounds the memory that a template takes until its deadline. */
export class Budget {
  #left: number;

  /** @param size characters of the conversation. */
  constructor(size: number) {
    this.#left = MAX_STEPS + 100 * size;
  }

  /** One step. */
  take(): void {
    if (--this.#left < 0) throw new TemplateError("it does not come to an end");
  }

  /** One step that made a value: its characters and items are memory. */
  takeFor(value: Value): Value {
    const text = textOf(value);
    const items = value instanceof Tuple ? value.items : value;
    if (text !== undefined) {
      checkText(text.length);
      this.#left -= text.length / 100;
    } else if (Array.isArray(items)) {
      checkItems(items.length);
      this.#left -= items.length / 5;
    } else if (value instanceof Dict) this.#left -= value.size;
    this.take();
    return value;
  }
}

/** Variables of a template: its input and its top-level assignments. */
export class Context {
  readonly assigned = new Map<string, Value>();

  constructor(readonly variables: ReadonlyMap<string, Value>, readonly budget: Budget) {}

  resolve(name: string): Value | undefined {
    return this.assigned.has(name) ? this.assigned.get(name) : this.variables.get(name);
  }

  /** A context with further variables, for a scoped block. */
  derive(further: Iterable<readonly [string, Value]>): Context {
    return new Context(new Map([...this.variables, ...this.assigned, ...further]), this.budget);
  }
}

/**
 * The slots of a template, of a call of a macro or of a pass of a recursive loop; the outer ones
 * are seen as they are now.
 */
export class Frame {
  readonly #slots = new Map<string, Value | undefined>();

  constructor(readonly context: Context, readonly parent: Frame | null = null) {}

  /** A slot's value; undefined where it has none. */
  get(slot: string): Value | undefined {
    if (this.#slots.has(slot)) return this.#slots.get(slot);
    return this.parent?.get(slot);
  }

  set(slot: string, value: Value | undefined): void {
    this.#slots.set(slot, value);
  }
}

/** Text that is written. */
export class Output {
  text = "";

  write(part: string): void {
    this.text += part;
    checkText(this.text.length);
  }
}

/** `loop` */
export class Loop extends Thing {
  override readonly typeName = "LoopContext";
  override readonly isCallable = true;
  readonly #iterator: Iterator<Value>;
  #size: number | undefined;
  #index0 = -1;
  /** Prefetched items, for `last`, `nextitem` and `length`. */
  #ahead: Value[] = [];
  #before: Value | undefined;
  #current: Value | undefined;
  #changed: readonly Value[] | undefined;

  /**
   * @param source the iterated value, for its length; undefined for a generator.
   * @param recurse renders the loop's body for other items, one level deeper; null where the loop
   *   is not recursive.
   */
  constructor(
    items: Iterable<Value>,
    source: Value | undefined,
    readonly depth0: number,
    readonly recurse: ((items: Value) => string) | null,
  ) {
    super();
    this.#iterator = items[Symbol.iterator]();
    this.#size = source === undefined ? undefined : sizeOf(source);
  }

  /** The next item; undefined at the end. */
  next(): Value | undefined {
    const item = this.#ahead.length > 0 ? this.#ahead.shift() : this.#take();
    if (item === undefined) return undefined;
    this.#index0++;
    this.#before = this.#current;
    this.#current = item;
    return item;
  }

  #take(): Value | undefined {
    const { done, value } = this.#iterator.next();
    return done ? undefined : value;
  }

  #peek(): Value | undefined {
    if (this.#ahead.length === 0) {
      const item = this.#take();
      if (item !== undefined) this.#ahead.push(item);
    }
    return this.#ahead[0];
  }

  get #length(): number {
    if (this.#size === undefined) {
      for (let item; (item = this.#take()) !== undefined;) this.#ahead.push(item);
      this.#size = this.#index0 + 1 + this.#ahead.length;
    }
    return this.#size;
  }

  override attribute(name: string): Value | undefined {
    switch (name) {
      case "index":
        return BigInt(this.#index0 + 1);
      case "index0":
        return BigInt(this.#index0);
      case "revindex":
        return BigInt(this.#length - this.#index0);
      case "revindex0":
        return BigInt(this.#length - this.#index0 - 1);
      case "first":
        return this.#index0 === 0;
      case "last":
        return this.#peek() === undefined;
      case "length":
        return BigInt(this.#length);
      case "depth":
        return BigInt(this.depth0 + 1);
      case "depth0":
        return BigInt(this.depth0);
      case "previtem":
        return orElse(this.#before, () => new Undefined("there is no previous item"));
      case "nextitem":
        return orElse(this.#peek(), () => new Undefined("there is no next item"));
      case "cycle":
        return new Callable(
          name,
          (args) =>
            args.length === 0
              ? fail("no items for cycling given")
              : args[this.#index0 % args.length],
        );
      case "changed":
        return new Callable(name, (args) => {
          const last = this.#changed && new Tuple(this.#changed);
          if (last && isEqual(last, new Tuple(args))) return false;
          this.#changed = args;
          return true;
        });
    }
  }

  override call(args: readonly Value[]): Value {
    if (!this.recurse) return fail("The loop must have the 'recursive' marker to be called");
    return this.recurse(orElse(args[0], () => fail("loop() takes what it walks over")));
  }

  override size(): number {
    return this.#length;
  }

  /** The rest of the items, each with the loop. */
  override *items(): Generator<Value> {
    for (let item; (item = this.next()) !== undefined;) yield new Tuple([item, this]);
  }

  override repr(): string {
    return `<LoopContext ${this.#index0 + 1}/${this.#length}>`;
  }
}

/** Signature of a macro. */
export interface MacroShape {
  /** Null for the body of a call block. */
  readonly name: string | null;
  readonly parameters: readonly string[];
  /** The body reads these without having them as parameters. */
  readonly takesCaller: boolean;
  readonly takesKwargs: boolean;
  readonly takesVarargs: boolean;
}

/** A macro, or `caller`. */
export class Macro extends Thing {
  override readonly typeName = "Macro";
  override readonly isCallable = true;

  constructor(
    readonly shape: MacroShape,
    readonly run: (values: ReadonlyMap<string, Value>) => string,
  ) {
    super();
  }

  override attribute(name: string): Value | undefined {
    const { parameters, takesCaller, takesKwargs, takesVarargs } = this.shape;
    switch (name) {
      case "name":
        return this.shape.name;
      case "arguments":
        return new Tuple(parameters);
      case "caller":
        return takesCaller;
      case "catch_kwargs":
        return takesKwargs;
      case "catch_varargs":
        return takesVarargs;
    }
  }

  override call(args: readonly Value[], kwargs: Kwargs): Value {
    const { parameters, takesCaller, takesKwargs, takesVarargs } = this.shape;
    const name = this.shape.name === null ? "caller" : `macro ${quote(this.shape.name)}`;
    const values = new Map<string, Value>();
    const named = new Map(kwargs);
    for (const [i, parameter] of parameters.entries()) {
      const value = i < args.length ? args[i] : named.get(parameter);
      if (i >= args.length) named.delete(parameter);
      if (value !== undefined) values.set(parameter, value);
    }
    if (takesCaller && !parameters.includes("caller")) {
      values.set("caller", named.get("caller") ?? new Undefined("No caller defined")); // nor None
      named.delete("caller");
    }
    if (takesKwargs) values.set("kwargs", new Dict(named));
    else for (const key of named.keys()) fail(`${name} takes no keyword argument ${quote(key)}`);
    if (takesVarargs) values.set("varargs", new Tuple(args.slice(parameters.length)));
    else if (args.length > parameters.length) {
      fail(`${name} takes not more than ${parameters.length} argument(s)`);
    }
    return this.run(values);
  }

  override repr(): string {
    return `<Macro ${this.shape.name === null ? "anonymous" : quote(this.shape.name)}>`;
  }
}

/** `namespace()`: attributes that a template may set. */
export class Namespace extends Thing {
  override readonly typeName = "TemplateNamespace";
  readonly #values = new Dict();

  constructor(entries: Iterable<readonly [Value, Value]>) {
    super();
    for (const [name, value] of entries) this.set(name, value);
  }

  set(name: Value, value: Value): void {
    if (textOf(name)?.startsWith("_")) fail("a namespace takes no attribute that begins with _");
    this.#values.set(name, value);
  }

  override attribute(name: string): Value | undefined {
    return this.#values.get(name);
  }

  override repr(): string {
    return `<Namespace ${repr(this.#values)}>`;
  }
}

/** `dict(mapping or pairs, **kwargs)` */
export function dictOf(name: string, args: readonly Value[], kwargs: Kwargs): Dict {
  if (args.length > 1) fail(`${name} expected at most 1 argument, got ${args.length}`);
  const [source] = args;
  const entries = source === undefined
    ? []
    : source instanceof Dict
    ? source.entries()
    : [...iterate(source)].map((pair) => unpack(pair, 2) as [Value, Value]);
  return new Dict([...entries, ...kwargs]);
}

/** Items of a value; throws if their number differs. */
export function unpack(value: Value, count: number): Value[] {
  const items: Value[] = [];
  for (const item of iterate(value)) {
    if (items.length === count) fail(`too many values to unpack (expected ${count})`);
    items.push(item);
  }
  if (items.length < count) {
    fail(`not enough values to unpack (expected ${count}, got ${items.length})`);
  }
  return items;
}

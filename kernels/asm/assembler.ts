/**
 * WebAssembly assembler in TypeScript: modules, functions, variables, loops and conditions.
 *
 * Closures emit the bodies of loops and conditions, so that a kernel reads like its loops.
 * `value.ts` has the arithmetic, `instructions.ts` the other operations. Encodings: WebAssembly
 * specification, core 2.0.
 *
 * @module
 */
import {
  type Code,
  codeOf,
  condition,
  type Effect,
  exactType,
  type Func,
  type Int,
  Local,
  memoryArgument,
  type Operand,
  placed,
  type Result,
  simd,
  type TypeOf,
  type Types,
  unsignedLeb,
  Value,
  type ValueType,
} from "./instructions.ts";
import { type LocalNames, moduleText } from "./text.ts";

export * from "./instructions.ts";

/** Variables by name. */
type Locals<P extends Types> = { readonly [N in keyof P]: Local<TypeOf<P[N]>> };

/** Byte of each type in the binary format. */
const TYPE_CODE: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

const STORE_CODE: Readonly<Record<ValueType, readonly number[]>> = {
  i32: [0x36],
  i64: [0x3e], // the lower half: memory has no other integers
  f32: [0x38],
  f64: [0x39],
  v128: simd(11),
};
const [BLOCK_VOID, END] = [0x40, 0x0b];
/** Maximum size of a memory in pages of 64 KiB, by the type of addresses; 64-bit: V8's limit. */
export const MAX_PAGES: Readonly<Record<Int, number>> = { i32: 2 ** 16, i64: 2 ** 18 };

/** The memory that a module imports. */
export interface MemoryType {
  /** Whether threads share the memory. */
  readonly shared?: boolean;
  /**
   * Minimum size of the memory, 64 KiB each. An engine that checks the bounds of every access
   * (Deno's V8) checks the constant offset too if it exceeds this size.
   */
  readonly pages?: number;
  /** Type of its addresses; default 32 bits. */
  readonly address?: Int;
}

/**
 * A growable byte array. JavaScript arrays of numbers would take ten times the memory for a plan's
 * code.
 */
class Bytes {
  #bytes = new Uint8Array(64);
  #length = 0;

  push(...pieces: readonly ArrayLike<number>[]): this {
    for (const piece of pieces) {
      const length = this.#length + piece.length;
      if (length > this.#bytes.length) {
        const grown = new Uint8Array(2 * length);
        grown.set(this.written);
        this.#bytes = grown;
      }
      this.#bytes.set(piece, this.#length);
      this.#length = length;
    }
    return this;
  }

  /** A view of the bytes so far. */
  get written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Builder of one function's body. */
export class FunctionBuilder {
  readonly #locals: Local<ValueType>[] = [];
  readonly #names: string[] = [];
  readonly #code = new Bytes();

  /** @param address type of addresses, and of "int". */
  constructor(readonly address: Int) {}

  /** Declares a variable, initialised to zero. Its name appears only in the module's text. */
  local<T extends ValueType | "int">(type: T, name: string): Local<TypeOf<T>> {
    const exact = exactType(type, this.address);
    const local = new Local(exact, this.#locals.length, (code) => this.#emit(code));
    this.#locals.push(local);
    this.#names.push(name);
    return local;
  }

  /** A constant address or count. */
  int(value: number): Value<Int> {
    return new Value(this.address, codeOf(this.address, value));
  }

  /** Declares named variables: `const { row, end } = f.locals(ints("row", "end"))`. */
  locals<P extends Types>(types: P): Locals<P> {
    const entries = Object.entries(types);
    return Object.fromEntries(entries.map(([n, type]) => [n, this.local(type, n)])) as Locals<P>;
  }

  /** Declares `length` variables: `name0`, `name1` … */
  array<T extends ValueType | "int">(
    type: T,
    name: string,
    length: number,
  ): Local<TypeOf<T>>[] {
    return Array.from({ length }, (_, i) => this.local(type, `${name}${i}`));
  }

  /** Names of the parameters, then of the variables, in order. */
  get names(): readonly string[] {
    return this.#names;
  }

  /** Emits code that leaves no value: a call, or another effect. */
  do(code: Effect): void {
    this.#emit(code.code);
  }

  /** Stores a value; of an integer, the lower 32 bits. */
  store(address: Value<Int>, value: Value<ValueType>, offset = 0): void {
    const [{ code }, small] = placed(address, offset);
    this.#emit(code, value.code, STORE_CODE[value.type], memoryArgument(small));
  }

  /** Stores the lower 16 bits. */
  store16(address: Value<Int>, value: Value<Int>, offset = 0): void {
    const [{ code }, small] = placed(address, offset);
    this.#emit(code, codeOf("i32", value), [0x3b], memoryArgument(small, 1));
  }

  /** Stores one 32-bit lane of a vector. */
  storeLane(address: Value<Int>, value: Value<"v128">, lane: number, offset = 0): void {
    const [{ code }, small] = placed(address, offset);
    this.#emit(code, value.code, simd(90), [...memoryArgument(small), lane]);
  }

  if(test: Value<Int>, then: () => void, otherwise?: () => void): void {
    this.#emit(condition(test), [0x04, BLOCK_VOID]);
    then();
    if (otherwise) {
      this.#emit([0x05]);
      otherwise();
    }
    this.#emit([END]);
  }

  /** Tests the condition before the loop and at its end: one jump per iteration. */
  while(test: Value<Int>, body: () => void): void {
    this.if(test, () => {
      this.#emit([0x03, BLOCK_VOID]);
      body();
      this.#emit(condition(test), [0x0d, 0], [END]);
    });
  }

  /** `for (i = from; i < to; i += step)`, unsigned. */
  for<I extends Int>(
    i: Local<I>,
    from: Operand<I>,
    to: Operand<I>,
    step: number,
    body: () => void,
  ): void {
    i.set(from);
    this.while(i.lt(to), () => {
      body();
      i.advance(step);
    });
  }

  /** Encodes the code-section entry; the first `params` variables are parameters. */
  toBytes(params: number, result: readonly number[]): Uint8Array {
    this.#emit(result, [END]);
    const types = this.#locals.slice(params).map(({ type }) => TYPE_CODE[type]);
    const locals = [...unsignedLeb(types.length), ...types.flatMap((type) => [1, type])];
    const code = this.#code.written;
    return new Bytes().push(unsignedLeb(locals.length + code.length), locals, code).written.slice();
  }

  #emit(...pieces: readonly (readonly number[])[]): void {
    this.#code.push(...pieces);
  }
}

/** A mutable global of a module: an address or a count. */
export interface Global {
  readonly get: Value<Int>;
  readonly set: (value: Operand<Int>) => Effect;
}

/** Builder of a module over one imported memory, `env.memory`; a shared one has a maximum. */
export class ModuleBuilder {
  readonly #signatures: number[][] = [];
  readonly #imports: number[][];
  readonly #globals: number[][] = [];
  readonly #exports: number[][] = [];
  readonly #bodies: (Uint8Array | null)[] = [];
  readonly #names: (readonly string[])[] = [];

  /** Type of addresses, and of "int". */
  readonly address: Int;

  constructor({ shared = false, pages = 0, address = "i32" }: MemoryType = {}) {
    this.address = address;
    const least = unsignedLeb(pages);
    const most = shared ? unsignedLeb(MAX_PAGES[address]) : [];
    const flags = (shared ? 3 : 0) | (address === "i64" ? 4 : 0);
    this.#imports = [[...name("env"), ...name("memory"), 2, flags, ...least, ...most]];
  }

  /**
   * Imports the host's function `env.<field>`.
   * @throws {TypeError} If a function was defined before: the format puts imports first.
   */
  import<const P extends Types, R extends Result>(
    field: string,
    params: P,
    result: R,
  ): Func<P, R> {
    if (this.#bodies.length > 0) {
      throw new TypeError(`Cannot import "${field}": expected imports before functions`);
    }
    const func = this.#declare(params, result);
    this.#imports.push([...name("env"), ...name(field), 0, ...unsignedLeb(func.index)]);
    return func;
  }

  /**
   * Defines a function with named parameters, in order. `build` emits the body and returns the
   * result, if any: `m.define(words("a", "b"), "i32", (f, { a, b }) => a.plus(b))`.
   */
  define<const P extends Types, R extends Result>(
    params: P,
    result: R,
    build: (f: FunctionBuilder, params: Locals<P>) => R extends "void" ? void : Code<R>,
  ): Func<P, R> {
    const func = this.#declare(params, result);
    const slot = this.#bodies.push(null) - 1; // reserved first: `build` may define functions too
    const f = new FunctionBuilder(this.address);
    const locals = f.locals(params);
    const written = build(f, locals);
    const returned = written ? codeOf(exactType(result as ValueType, this.address), written) : [];
    this.#bodies[slot] = f.toBytes(Object.keys(params).length, returned);
    this.#names[func.index] = f.names;
    return func;
  }

  export(field: string, func: Func<Types, Result>): void {
    this.#exports.push([...name(field), 0, ...unsignedLeb(func.index)]);
  }

  #thread: Global | undefined;

  /** Index of the thread that runs the module; `run` sets it. */
  get thread(): Global {
    return this.#thread ??= this.global();
  }

  #unprepared: Global | undefined;

  /**
   * 1 until this thread has prepared the current entry. `run` sets it before each entry; a kernel
   * that prepares something once for all of its items (matmul packs x) clears it.
   */
  get unprepared(): Global {
    return this.#unprepared ??= this.global();
  }

  /** Declares a global, initialised to zero; every thread has a separate one. */
  global(): Global {
    const { address } = this;
    const zero = [TYPE_CODE[address], 1, ...codeOf(address, 0), END];
    const index = unsignedLeb(this.#globals.push(zero) - 1);
    return {
      get: new Value(address, [0x23, ...index]),
      set: (value) => ({ type: "void", code: [...codeOf(address, value), 0x24, ...index] }),
    };
  }

  /** Parameter and variable names of each function, by index; imports have none. */
  get names(): LocalNames {
    return this.#names;
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const first = this.#signatures.length - this.#bodies.length;
    const types = this.#bodies.map((_, i) => unsignedLeb(first + i));
    const module = new Bytes().push([0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0]); // "\0asm", version 1
    const section = (id: number, entries: readonly ArrayLike<number>[]) => {
      const content = new Bytes().push(unsignedLeb(entries.length), ...entries).written;
      module.push([id], unsignedLeb(content.length), content);
    };
    section(1, this.#signatures);
    section(2, this.#imports);
    section(3, types);
    if (this.#globals.length > 0) section(6, this.#globals);
    section(7, this.#exports);
    section(10, this.#bodies.map((body) => body!));
    return module.written.slice();
  }

  /** The module in text form, with the names of its variables. */
  toText(): string {
    return moduleText(this.toBytes(), this.names);
  }

  /** Gives function i type i: a repeated type costs a few bytes and saves a lookup. */
  #declare<P extends Types, R extends Result>(params: P, result: R): Func<P, R> {
    const from = Object.values(params).map((type) => TYPE_CODE[exactType(type, this.address)]);
    const to = result === "void" ? [] : [TYPE_CODE[exactType(result, this.address)]];
    const index = this.#signatures.push([0x60, from.length, ...from, to.length, ...to]) - 1;
    return { index, params, result, address: this.address };
  }
}

function name(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsignedLeb(bytes.length), ...bytes];
}

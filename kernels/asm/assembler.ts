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
  codeOf,
  type Effect,
  type Func,
  Local,
  memoryArgument,
  type Operand,
  type Result,
  simd,
  type Types,
  unsignedLeb,
  Value,
  type ValueType,
} from "./instructions.ts";
import { type LocalNames, moduleText } from "./text.ts";

export * from "./instructions.ts";

/** Variables by name. */
type Locals<P extends Types> = { readonly [N in keyof P]: Local<P[N]> };

/** Byte of each type in the binary format. */
const TYPE_CODE: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

const STORE_CODE: Readonly<Record<ValueType, readonly number[]>> = {
  i32: [0x36],
  f32: [0x38],
  f64: [0x39],
  v128: simd(11),
};
const [BLOCK_VOID, END] = [0x40, 0x0b];
/** Maximum size of a memory with 32-bit addresses, in pages of 64 KiB. */
const MAX_PAGES = 65536;

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

  /** Declares a variable, initialised to zero. Its name appears only in the module's text. */
  local<T extends ValueType>(type: T, name: string): Local<T> {
    const local = new Local(type, this.#locals.length, (code) => this.#emit(code));
    this.#locals.push(local);
    this.#names.push(name);
    return local;
  }

  /** Declares named variables: `const { row, end } = f.locals(ints("row", "end"))`. */
  locals<P extends Types>(types: P): Locals<P> {
    const entries = Object.entries(types);
    return Object.fromEntries(entries.map(([n, type]) => [n, this.local(type, n)])) as Locals<P>;
  }

  /** Declares `length` variables: `name0`, `name1` … */
  array<T extends ValueType>(type: T, name: string, length: number): Local<T>[] {
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

  store(address: Operand<"i32">, value: Value<ValueType>, offset = 0): void {
    this.#emit(codeOf("i32", address), value.code, STORE_CODE[value.type], memoryArgument(offset));
  }

  /** Stores the lower 16 bits. */
  store16(address: Operand<"i32">, value: Value<"i32">, offset = 0): void {
    this.#emit(codeOf("i32", address), value.code, [0x3b], memoryArgument(offset, 1));
  }

  /** Stores one 32-bit lane of a vector. */
  storeLane(address: Operand<"i32">, value: Value<"v128">, lane: number, offset = 0): void {
    const argument = [...memoryArgument(offset), lane];
    this.#emit(codeOf("i32", address), value.code, simd(90), argument);
  }

  if(condition: Value<"i32">, then: () => void, otherwise?: () => void): void {
    this.#emit(condition.code, [0x04, BLOCK_VOID]);
    then();
    if (otherwise) {
      this.#emit([0x05]);
      otherwise();
    }
    this.#emit([END]);
  }

  /** Tests the condition before the loop and at its end: one jump per iteration. */
  while(condition: Value<"i32">, body: () => void): void {
    this.if(condition, () => {
      this.#emit([0x03, BLOCK_VOID]);
      body();
      this.#emit(condition.code, [0x0d, 0], [END]);
    });
  }

  /** `for (i = from; i < to; i += step)`, unsigned. */
  for(
    i: Local<"i32">,
    from: Operand<"i32">,
    to: Operand<"i32">,
    step: number,
    body: () => void,
  ): void {
    i.set(from);
    this.while(i.lt(to), () => {
      body();
      i.advance(step);
    });
  }

  /** Encodes the code-section entry; the first `params` variables are the parameters. */
  toBytes(params: number, result: Value<ValueType> | void): Uint8Array {
    this.#emit(result?.code ?? [], [END]);
    const types = this.#locals.slice(params).map(({ type }) => TYPE_CODE[type]);
    const locals = [...unsignedLeb(types.length), ...types.flatMap((type) => [1, type])];
    const code = this.#code.written;
    return new Bytes().push(unsignedLeb(locals.length + code.length), locals, code).written.slice();
  }

  #emit(...pieces: readonly (readonly number[])[]): void {
    this.#code.push(...pieces);
  }
}

/** A mutable i32 global of a module. */
export interface Global {
  readonly get: Value<"i32">;
  readonly set: (value: Operand<"i32">) => Effect;
}

/** Builder of a module over one imported memory, `env.memory`; a shared one has a maximum. */
export class ModuleBuilder {
  readonly #signatures: number[][] = [];
  readonly #imports: number[][];
  readonly #globals: number[][] = [];
  readonly #exports: number[][] = [];
  readonly #bodies: (Uint8Array | null)[] = [];
  readonly #names: (readonly string[])[] = [];

  /**
   * @param shared whether threads share the memory.
   * @param pages minimum size of the memory, 64 KiB each. An engine that checks the bounds of every
   * access (Deno's V8) checks the constant offset too if it exceeds this size.
   */
  constructor(readonly shared = false, pages = 0) {
    const least = unsignedLeb(pages);
    const limits = shared ? [3, ...least, ...unsignedLeb(MAX_PAGES)] : [0, ...least];
    this.#imports = [[...name("env"), ...name("memory"), 2, ...limits]];
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
   * result, if any: `m.define(ints("a", "b"), "i32", (f, { a, b }) => a.plus(b))`.
   */
  define<const P extends Types, R extends Result>(
    params: P,
    result: R,
    build: (f: FunctionBuilder, params: Locals<P>) => R extends ValueType ? Value<R> : void,
  ): Func<P, R> {
    const func = this.#declare(params, result);
    const slot = this.#bodies.push(null) - 1; // reserved first: `build` may define functions too
    const f = new FunctionBuilder();
    const locals = f.locals(params);
    const written = build(f, locals);
    this.#bodies[slot] = f.toBytes(Object.keys(params).length, written);
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
    const index = unsignedLeb(this.#globals.push([TYPE_CODE.i32, 1, 0x41, 0, END]) - 1);
    return {
      get: new Value("i32", [0x23, ...index]),
      set: (value) => ({ type: "void", code: [...codeOf("i32", value), 0x24, ...index] }),
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
    const from = Object.values(params).map((type) => TYPE_CODE[type]);
    const to = result === "void" ? [] : [TYPE_CODE[result as ValueType]];
    const index = this.#signatures.push([0x60, from.length, ...from, to.length, ...to]) - 1;
    return { index, params, result };
  }
}

function name(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsignedLeb(bytes.length), ...bytes];
}

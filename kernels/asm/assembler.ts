/**
 * WebAssembly put together in TypeScript, so that a kernel reads like the loop that it is:
 * functions with variables, loops and conditions, and a module of them. Their operations are in
 * `instructions.ts`.
 *
 * The encodings are those of the WebAssembly specification, core 2.0.
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

type Locals<P> = { readonly [I in keyof P]: P[I] extends ValueType ? Local<P[I]> : never };

/** How the binary format spells a type. */
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
/** Pages of 64 KiB that a 32-bit address reaches. */
const MAX_PAGES = 65536;

/**
 * Bytes that are written one behind the other: as arrays of numbers, a plan's code would take ten
 * times the place.
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

  /** Those so far, where they lie. */
  get written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** The body of a function while it is written. */
export class FunctionBuilder {
  readonly #locals: Local<ValueType>[] = [];
  readonly #names: string[] = [];
  readonly #params: number;
  readonly #code = new Bytes();

  /** @param params names and types of the parameters, in order. */
  constructor(params: readonly (readonly [name: string, type: ValueType])[]) {
    for (const [name, type] of params) this.local(type, name);
    this.#params = params.length;
  }

  /** A new variable, which starts at zero. Its name is for the module's text alone. */
  local<T extends ValueType>(type: T, name = `_${this.#locals.length}`): Local<T> {
    const local = new Local(type, this.#locals.length, (code) => this.#emit(code));
    this.#locals.push(local);
    this.#names.push(name);
    return local;
  }

  /** New variables by name: `const { row, end } = f.locals(ints("row", "end"))`. */
  locals<P extends Types>(types: P): Locals<P> {
    const entries = Object.entries(types);
    return Object.fromEntries(entries.map(([n, type]) => [n, this.local(type, n)])) as Locals<P>;
  }

  /** New variables by number. */
  array<T extends ValueType>(type: T, name: string, length: number): Local<T>[] {
    return Array.from({ length }, (_, i) => this.local(type, `${name}${i}`));
  }

  /** The parameters and variables so far, in order. */
  get all(): readonly Local<ValueType>[] {
    return this.#locals;
  }

  get names(): readonly string[] {
    return this.#names;
  }

  set<T extends ValueType>(local: Local<T>, value: Operand<T>): void {
    local.set(value);
  }

  /** Calls for the effect alone. */
  do(code: Effect): void {
    this.#emit(code.code);
  }

  store(address: Operand<"i32">, value: Value<ValueType>, offset = 0): void {
    this.#emit(codeOf("i32", address), value.code, STORE_CODE[value.type], memoryArgument(offset));
  }

  /** Stores one F32 or I32 of four. */
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

  /** The test stands at the end of the loop, with a copy in front of it: one jump a turn. */
  while(condition: Value<"i32">, body: () => void): void {
    this.if(condition, () => {
      this.#emit([0x03, BLOCK_VOID]);
      body();
      this.#emit(condition.code, [0x0d, 0], [END]);
    });
  }

  /** i = from, from + step … below `to`, all unsigned. */
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

  /** The function's entry of the code section. */
  toBytes(result: Value<ValueType> | void): Uint8Array {
    this.#emit(result?.code ?? [], [END]);
    const types = this.#locals.slice(this.#params).map(({ type }) => TYPE_CODE[type]);
    const locals = [...unsignedLeb(types.length), ...types.flatMap((type) => [1, type])];
    const code = this.#code.written;
    return new Bytes().push(unsignedLeb(locals.length + code.length), locals, code).written.slice();
  }

  #emit(...pieces: readonly (readonly number[])[]): void {
    this.#code.push(...pieces);
  }
}

/** A variable of a module. */
export interface Global {
  readonly get: Value<"i32">;
  readonly set: (value: Operand<"i32">) => Effect;
}

type Build<R extends Result, P extends readonly unknown[]> = (
  f: FunctionBuilder,
  ...params: P
) => R extends ValueType ? Value<R> : void;

/**
 * A module over one memory, which it imports as `env.memory`; one that threads share is of another
 * type, and has a maximum.
 */
export class ModuleBuilder {
  readonly #signatures: number[][] = [];
  readonly #imports: number[][];
  readonly #globals: number[][] = [];
  readonly #exports: number[][] = [];
  readonly #bodies: (Uint8Array | null)[] = [];
  readonly #names: (readonly string[])[] = [];

  /**
   * @param shared whether threads share the memory.
   * @param pages that the memory has at least. Where an engine tests every access (Deno's does), it
   * tests the offset too if that is beyond them.
   */
  constructor(readonly shared = false, pages = 0) {
    const least = unsignedLeb(pages);
    const limits = shared ? [3, ...least, ...unsignedLeb(MAX_PAGES)] : [0, ...least];
    this.#imports = [[...name("env"), ...name("memory"), 2, ...limits]];
  }

  /** A function of the host, as `env.<field>`. Imports come before all definitions. */
  import<const P extends Types | readonly ValueType[], R extends Result>(
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
   * A function of named parameters, in their order. `build` writes the body and returns the result,
   * if there is one: `m.define(ints("a", "b"), "i32", (f, { a, b }) => a.plus(b))`.
   */
  define<const P extends Types, R extends Result>(
    params: P,
    result: R,
    build: Build<R, [params: Locals<P>]>,
  ): Func<P, R>;
  define<const P extends readonly ValueType[], R extends Result>(
    params: P,
    result: R,
    build: Build<R, Locals<P>>,
  ): Func<P, R>;
  define<P extends Types | readonly ValueType[], R extends Result>(
    params: P,
    result: R,
    build: unknown,
  ): Func<P, R> {
    const func = this.#declare(params, result);
    const place = this.#bodies.push(null) - 1; // it may define others
    const positional = Array.isArray(params);
    const f = new FunctionBuilder(
      positional ? params.map((type, i) => [`_${i}`, type]) : Object.entries(params),
    );
    const all = f.all.map((local, i) => [f.names[i], local] as const);
    const args = positional ? all.map(([, local]) => local) : [Object.fromEntries(all)];
    const written = build as (f: FunctionBuilder, ...args: unknown[]) => Value<ValueType> | void;
    this.#bodies[place] = f.toBytes(written(f, ...args));
    this.#names[func.index] = f.names;
    return func;
  }

  export(field: string, func: Func<Types | readonly ValueType[], Result>): void {
    this.#exports.push([...name(field), 0, ...unsignedLeb(func.index)]);
  }

  #thread: Global | undefined;

  /** The number of the thread that runs the module, which whoever runs it sets. */
  get thread(): Global {
    return this.#thread ??= this.global();
  }

  #unprepared: Global | undefined;

  /**
   * Not zero while a thread has done nothing of an entry yet; a kernel that prepares something for
   * all of its items clears it.
   */
  get unprepared(): Global {
    return this.#unprepared ??= this.global();
  }

  /** A variable of the module, which each thread has for itself; it starts at zero. */
  global(): Global {
    const index = unsignedLeb(this.#globals.push([TYPE_CODE.i32, 1, 0x41, 0, END]) - 1);
    return {
      get: new Value("i32", [0x23, ...index]),
      set: (value) => ({ type: "void", code: [...codeOf("i32", value), 0x24, ...index] }),
    };
  }

  /** Names of the parameters and variables of each function, by index; none of imported ones. */
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

  /** The same as text, for people who debug. */
  toText(): string {
    return moduleText(this.toBytes(), this.names);
  }

  /** Function i has type i: equal types are few bytes, and this way there is nothing to look up. */
  #declare<P extends Types | readonly ValueType[], R extends Result>(
    params: P,
    result: R,
  ): Func<P, R> {
    const from = Object.values<ValueType>(params).map((type) => TYPE_CODE[type]);
    const to = result === "void" ? [] : [TYPE_CODE[result as ValueType]];
    const index = this.#signatures.push([0x60, from.length, ...from, to.length, ...to]) - 1;
    return { index, params, result };
  }
}

function name(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsignedLeb(bytes.length), ...bytes];
}

/**
 * WebAssembly assembler: modules of functions with variables, loops and conditions, written in
 * TypeScript, so that a kernel reads like its loops. `value.ts` has the arithmetic,
 * `instructions.ts` the other operations.
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

/** Variables, by name. */
type Locals<P extends Types> = { readonly [N in keyof P]: Local<P[N]> };

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
 * A growing array of bytes: as arrays of numbers, a plan's code would take ten times the memory.
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

/** The body of a function while it is written. */
export class FunctionBuilder {
  readonly #locals: Local<ValueType>[] = [];
  readonly #names: string[] = [];
  readonly #code = new Bytes();

  /** A new variable, which starts at zero. Its name is for the module's text alone. */
  local<T extends ValueType>(type: T, name: string): Local<T> {
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

  /** Names of the variables, in order; the parameters come first. */
  get names(): readonly string[] {
    return this.#names;
  }

  /** Emits a call or another effect. */
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

  /** The condition is tested before the loop and at its end: one jump an iteration. */
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

  /** The function's entry of the code section; the first `params` variables are its parameters. */
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

/** A variable of a module. */
export interface Global {
  readonly get: Value<"i32">;
  readonly set: (value: Operand<"i32">) => Effect;
}

/** A module over one memory, which it imports as `env.memory`; a shared one has a maximum. */
export class ModuleBuilder {
  readonly #signatures: number[][] = [];
  readonly #imports: number[][];
  readonly #globals: number[][] = [];
  readonly #exports: number[][] = [];
  readonly #bodies: (Uint8Array | null)[] = [];
  readonly #names: (readonly string[])[] = [];

  /**
   * @param shared whether threads share the memory.
   * @param pages the fewest that the memory has. An engine that tests every access (Deno's does)
   * also tests the offset if that is beyond them.
   */
  constructor(readonly shared = false, pages = 0) {
    const least = unsignedLeb(pages);
    const limits = shared ? [3, ...least, ...unsignedLeb(MAX_PAGES)] : [0, ...least];
    this.#imports = [[...name("env"), ...name("memory"), 2, ...limits]];
  }

  /** A function of the host, as `env.<field>`. Imports come before all definitions. */
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
   * A function of named parameters, in their order. `build` writes the body and returns the result,
   * if there is one: `m.define(ints("a", "b"), "i32", (f, { a, b }) => a.plus(b))`.
   */
  define<const P extends Types, R extends Result>(
    params: P,
    result: R,
    build: (f: FunctionBuilder, params: Locals<P>) => R extends ValueType ? Value<R> : void,
  ): Func<P, R> {
    const func = this.#declare(params, result);
    const place = this.#bodies.push(null) - 1; // it may define others
    const f = new FunctionBuilder();
    const locals = f.locals(params);
    const written = build(f, locals);
    this.#bodies[place] = f.toBytes(Object.keys(params).length, written);
    this.#names[func.index] = f.names;
    return func;
  }

  export(field: string, func: Func<Types, Result>): void {
    this.#exports.push([...name(field), 0, ...unsignedLeb(func.index)]);
  }

  #thread: Global | undefined;

  /** The number of the thread that runs the module; `run` sets it. */
  get thread(): Global {
    return this.#thread ??= this.global();
  }

  #unprepared: Global | undefined;

  /**
   * 1 while a thread has done no item of an entry; a kernel that prepares something for all of its
   * items clears it.
   */
  get unprepared(): Global {
    return this.#unprepared ??= this.global();
  }

  /** A variable of the module, one per thread; it starts at zero. */
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

  /** The module as text, with the names of its variables. */
  toText(): string {
    return moduleText(this.toBytes(), this.names);
  }

  /** Function i has type i: equal types cost few bytes, and none is looked up. */
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

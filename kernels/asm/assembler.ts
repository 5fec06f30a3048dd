/**
 * WebAssembly put together in TypeScript, so that a kernel reads like the loop that it is: functions with variables, loops and
 * conditions, and a module of them. Their operations are in `instructions.ts`.
 *
 * The encodings are those of the WebAssembly specification, core 2.0.
 *
 * @module
 */
import {
  codeOf,
  type Func,
  i32,
  type Local,
  memoryArgument,
  type Operand,
  type Result,
  simd,
  TYPE_CODE,
  unsignedLeb,
  type Value,
  type ValueType,
} from "./instructions.ts";
import { moduleText } from "./text.ts";

export * from "./instructions.ts";

type Locals<P extends readonly ValueType[]> = { [I in keyof P]: Local<P[I]> };

const STORE_CODE: Readonly<Record<ValueType, readonly number[]>> = {
  i32: [0x36],
  f32: [0x38],
  f64: [0x39],
  v128: simd(11),
};
const [BLOCK_VOID, END] = [0x40, 0x0b];
/** Pages of 64 KiB that a 32-bit address reaches. */
const MAX_PAGES = 65536;

/** Bytes that are written one behind the other: as arrays of numbers, a plan's code would take ten times the place. */
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
  readonly #types: ValueType[];
  readonly #params: number;
  readonly #code = new Bytes();

  constructor(params: readonly ValueType[]) {
    this.#types = [...params];
    this.#params = params.length;
  }

  /** A new variable, which starts at zero. */
  local<T extends ValueType>(type: T): Local<T> {
    return variable(type, this.#types.push(type) - 1);
  }

  set<T extends ValueType>(local: Local<T>, value: Operand<T>): void {
    this.#emit(codeOf(local.type, value), [0x21, ...unsignedLeb(local.index)]);
  }

  /** Calls for the effect alone. */
  do(code: Value<"void">): void {
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
    this.set(i, from);
    this.while(i32.ltU(i, to), () => {
      body();
      this.set(i, i32.add(i, step));
    });
  }

  /** The function's entry of the code section. */
  toBytes(result: Value<Result> | void): Uint8Array {
    this.#emit(result?.code ?? [], [END]);
    const types = this.#types.slice(this.#params);
    const locals = [...unsignedLeb(types.length), ...types.flatMap((type) => [1, TYPE_CODE[type]])];
    const code = this.#code.written;
    return new Bytes().push(unsignedLeb(locals.length + code.length), locals, code).written.slice();
  }

  #emit(...pieces: readonly (readonly number[])[]): void {
    this.#code.push(...pieces);
  }
}

function variable<T extends ValueType>(type: T, index: number): Local<T> {
  return { type, index, code: [0x20, ...unsignedLeb(index)] };
}

/** A variable of a module. */
export interface Global {
  readonly get: Value<"i32">;
  readonly set: (value: Operand<"i32">) => Value<"void">;
}

/** A module over one memory, which it imports as `env.memory`; one that threads share is of another type, and has a maximum. */
export class ModuleBuilder {
  readonly #signatures: number[][] = [];
  readonly #imports: number[][];
  readonly #globals: number[][] = [];
  readonly #exports: number[][] = [];
  readonly #bodies: (Uint8Array | null)[] = [];

  /**
   * @param shared whether threads share the memory.
   * @param pages that the memory has at least. Where an engine tests every access (Deno's does), it tests the offset too if that
   * is beyond them.
   */
  constructor(readonly shared = false, pages = 0) {
    const least = unsignedLeb(pages);
    const limits = shared ? [3, ...least, ...unsignedLeb(MAX_PAGES)] : [0, ...least];
    this.#imports = [[...name("env"), ...name("memory"), 2, ...limits]];
  }

  /** A function of the host, as `env.<field>`. Imports come before all definitions. */
  import<const P extends readonly ValueType[], R extends Result>(
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

  /** `build` writes the body and gives back the result, if there is one. */
  define<const P extends readonly ValueType[], R extends Result>(
    params: P,
    result: R,
    build: (
      f: FunctionBuilder,
      ...params: Locals<P>
    ) => R extends ValueType ? Value<R> : void,
  ): Func<P, R> {
    const func = this.#declare(params, result);
    const place = this.#bodies.push(null) - 1; // it may define others
    const f = new FunctionBuilder(params);
    const locals = params.map((type, index) => variable(type, index)) as unknown as Locals<P>;
    this.#bodies[place] = f.toBytes(build(f, ...locals));
    return func;
  }

  export(field: string, func: Func<readonly ValueType[], Result>): void {
    this.#exports.push([...name(field), 0, ...unsignedLeb(func.index)]);
  }

  #thread: Global | undefined;

  /** The number of the thread that runs the module, which whoever runs it sets. */
  get thread(): Global {
    return this.#thread ??= this.global();
  }

  #unprepared: Global | undefined;

  /** Not zero while a thread has done nothing of an entry yet; a kernel that prepares something for all of its items clears it. */
  get unprepared(): Global {
    return this.#unprepared ??= this.global();
  }

  /** A variable of the module, which each thread has for itself; it starts at zero. */
  global(): Global {
    const index = unsignedLeb(this.#globals.push([TYPE_CODE.i32, 1, 0x41, 0, END]) - 1);
    return {
      get: { type: "i32", code: [0x23, ...index] },
      set: (value) => ({ type: "void", code: [...codeOf("i32", value), 0x24, ...index] }),
    };
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
    return moduleText(this.toBytes());
  }

  /** Function i has type i: equal types are few bytes, and this way there is nothing to look up. */
  #declare<P extends readonly ValueType[], R extends Result>(params: P, result: R): Func<P, R> {
    const from = params.map((type) => TYPE_CODE[type]);
    const to = result === "void" ? [] : [TYPE_CODE[result as ValueType]];
    const index = this.#signatures.push([0x60, from.length, ...from, to.length, ...to]) - 1;
    return { index, params, result };
  }
}

function name(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsignedLeb(bytes.length), ...bytes];
}

/**
 * Values and variables of the WASM assembler; their methods are its arithmetic:
 * `first.set(item.div(G).times(TILE))`.
 *
 * A `Value` is an expression, not a result: its code is emitted at every use. To compute something
 * once, set a `Local`. I32 methods are unsigned where WebAssembly has both kinds (the suffix `S` is
 * signed), because most I32 are addresses, which exceed 2 GiB. V128 methods work on four F32.
 *
 * @module
 */

/** Types of values. The operation decides whether a `v128` is four F32, four I32 or two F64. */
export type ValueType = "i32" | "f32" | "f64" | "v128";

/** The type of a function's result. */
export type Result = ValueType | "void";

/**
 * A value or a constant. An i32 constant may be signed or unsigned; a v128 constant is one F32 in
 * all four lanes.
 */
export type Operand<T extends ValueType> = Value<T> | number;

/** Result of a comparison: 1 or 0; of vectors, all ones or all zeros per lane. */
export type Comparison<T extends ValueType> = Value<T extends "v128" ? "v128" : "i32">;

/** Code that leaves no value: a call, or another effect. */
export interface Effect {
  readonly type: "void";
  readonly code: readonly number[];
}

/** LEB128 of an unsigned number below 2³². */
export function unsignedLeb(value: number): number[] {
  const bytes = [];
  do {
    const low = value & 0x7f;
    value >>>= 7;
    bytes.push(value === 0 ? low : low | 0x80);
  } while (value !== 0);
  return bytes;
}

/** LEB128 of a number's lowest 32 bits, as a signed integer. */
export function signedLeb(value: number): number[] {
  const bytes = [];
  for (value |= 0;; value >>= 7) {
    // Bit 6 of the last byte is sign-extended.
    if (value >= -64 && value < 64) return [...bytes, value & 0x7f];
    bytes.push((value & 0x7f) | 0x80);
  }
}

/** Encoding of a SIMD operation: prefix and number. */
export const simd = (op: number): number[] => [0xfd, ...unsignedLeb(op)];

const SPLAT_F32 = simd(19);

function constant(type: ValueType, value: number): number[] {
  const view = new DataView(new ArrayBuffer(8));
  switch (type) {
    case "i32":
      return [0x41, ...signedLeb(value)];
    case "f32":
      view.setFloat32(0, value, true);
      return [0x43, ...new Uint8Array(view.buffer, 0, 4)];
    case "f64":
      view.setFloat64(0, value, true);
      return [0x44, ...new Uint8Array(view.buffer)];
    case "v128":
      return [...constant("f32", value), ...SPLAT_F32];
  }
}

/** Code of a value or of a constant. */
export function codeOf(type: ValueType, operand: Value<ValueType> | number): readonly number[] {
  return typeof operand === "number" ? constant(type, operand) : operand.code;
}

type Codes<T extends ValueType = ValueType> = Readonly<Record<T, readonly number[]>>;

const PLUS: Codes = { i32: [0x6a], f32: [0x92], f64: [0xa0], v128: simd(228) };
const MINUS: Codes = { i32: [0x6b], f32: [0x93], f64: [0xa1], v128: simd(229) };
const TIMES: Codes = { i32: [0x6c], f32: [0x94], f64: [0xa2], v128: simd(230) };
const DIV: Codes = { i32: [0x6e], f32: [0x95], f64: [0xa3], v128: simd(231) };
const EQ: Codes = { i32: [0x46], f32: [0x5b], f64: [0x61], v128: simd(65) };
const NE: Codes = { i32: [0x47], f32: [0x5c], f64: [0x62], v128: simd(66) };
const LT: Codes = { i32: [0x49], f32: [0x5d], f64: [0x63], v128: simd(67) };
const GT: Codes = { i32: [0x4b], f32: [0x5e], f64: [0x64], v128: simd(68) };
const AND: Codes<"i32" | "v128"> = { i32: [0x71], v128: simd(78) };
const OR: Codes<"i32" | "v128"> = { i32: [0x72], v128: simd(80) };
const XOR: Codes<"i32" | "v128"> = { i32: [0x73], v128: simd(81) };
const SELECT = 0x1b;

/** An expression of type T. */
export class Value<T extends ValueType> {
  constructor(readonly type: T, readonly code: readonly number[]) {}

  plus(b: Operand<T>): Value<T> {
    return this.#binary(b, PLUS[this.type]);
  }
  minus(b: Operand<T>): Value<T> {
    return this.#binary(b, MINUS[this.type]);
  }
  times(b: Operand<T>): Value<T> {
    return this.#binary(b, TIMES[this.type]);
  }
  div(b: Operand<T>): Value<T> {
    return this.#binary(b, DIV[this.type]);
  }
  rem(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return this.#binary(b, [0x70]);
  }

  eq(b: Operand<T>): Comparison<T> {
    return this.#compare(b, EQ[this.type]);
  }
  ne(b: Operand<T>): Comparison<T> {
    return this.#compare(b, NE[this.type]);
  }
  lt(b: Operand<T>): Comparison<T> {
    return this.#compare(b, LT[this.type]);
  }
  gt(b: Operand<T>): Comparison<T> {
    return this.#compare(b, GT[this.type]);
  }
  le(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return this.#binary(b, [0x4d]);
  }
  ge(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return this.#binary(b, [0x4f]);
  }
  gtS(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return this.#binary(b, [0x4a]);
  }
  geS(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return this.#binary(b, [0x4e]);
  }
  /** 1 if the number is 0. */
  eqz(this: Value<"i32">): Value<"i32"> {
    return new Value("i32", [...this.code, 0x45]);
  }

  and(this: Value<"i32">, b: Operand<"i32">): Value<"i32">;
  and(this: Value<"v128">, b: Value<"v128">): Value<"v128">;
  and(this: Value<"i32" | "v128">, b: Operand<"i32" | "v128">): Value<"i32" | "v128"> {
    return this.#binary(b, AND[this.type]);
  }
  or(this: Value<"i32">, b: Operand<"i32">): Value<"i32">;
  or(this: Value<"v128">, b: Value<"v128">): Value<"v128">;
  or(this: Value<"i32" | "v128">, b: Operand<"i32" | "v128">): Value<"i32" | "v128"> {
    return this.#binary(b, OR[this.type]);
  }
  xor(this: Value<"i32">, b: Operand<"i32">): Value<"i32">;
  xor(this: Value<"v128">, b: Value<"v128">): Value<"v128">;
  xor(this: Value<"i32" | "v128">, b: Operand<"i32" | "v128">): Value<"i32" | "v128"> {
    return this.#binary(b, XOR[this.type]);
  }
  shl(this: Value<"i32">, bits: Operand<"i32">): Value<"i32"> {
    return this.#binary(bits, [0x74]);
  }
  shrS(this: Value<"i32">, bits: Operand<"i32">): Value<"i32"> {
    return this.#binary(bits, [0x75]);
  }
  shr(this: Value<"i32">, bits: Operand<"i32">): Value<"i32"> {
    return this.#binary(bits, [0x76]);
  }

  /** Minimum, by `select`: each operand's code is emitted twice. */
  min(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return select(this, b, this.lt(b));
  }
  max(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return select(this, b, this.gt(b));
  }
  minS(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return select(b, this, this.gtS(b));
  }
  maxS(this: Value<"i32">, b: Operand<"i32">): Value<"i32"> {
    return select(b, this, new Value("i32", codeOf("i32", b)).gtS(this));
  }
  /** Per lane: b < a ? b : a. A NaN in `a` stays; a NaN in `b` is ignored. */
  pmin(this: Value<"v128">, b: Operand<"v128">): Value<"v128"> {
    return this.#binary(b, simd(234));
  }
  /** Per lane: a < b ? b : a. A NaN in `a` stays; a NaN in `b` is ignored. */
  pmax(this: Value<"v128">, b: Operand<"v128">): Value<"v128"> {
    return this.#binary(b, simd(235));
  }

  #binary(b: Operand<T>, op: readonly number[]): Value<T> {
    return new Value(this.type, [...this.code, ...codeOf(this.type, b), ...op]);
  }
  #compare(b: Operand<T>, op: readonly number[]): Comparison<T> {
    const { code } = this.#binary(b, op);
    return new Value(this.type === "v128" ? "v128" : "i32", code) as Comparison<T>;
  }
}

/** `condition ? a : b`; both operands are evaluated. */
export function select(
  a: Operand<"i32">,
  b: Operand<"i32">,
  condition: Value<"i32">,
): Value<"i32"> {
  return new Value("i32", [...codeOf("i32", a), ...codeOf("i32", b), ...condition.code, SELECT]);
}

/** A variable of a function. */
export class Local<T extends ValueType> extends Value<T> {
  readonly #emit: (code: readonly number[]) => void;

  constructor(type: T, readonly index: number, emit: (code: readonly number[]) => void) {
    super(type, [0x20, ...unsignedLeb(index)]);
    this.#emit = emit;
  }

  set(value: Operand<T>): void {
    this.#emit([...codeOf(this.type, value), 0x21, ...unsignedLeb(this.index)]);
  }

  /** Adds to a pointer or a counter. */
  advance(this: Local<"i32">, by: Operand<"i32">): void {
    this.set(this.plus(by));
  }
  atMost(this: Local<"i32">, limit: Operand<"i32">): void {
    this.set(this.min(limit));
  }
  atLeast(this: Local<"i32">, limit: Operand<"i32">): void {
    this.set(this.max(limit));
  }
  /** Clamps a signed number to least … most; if least > most, the result is `most`. */
  clampS(this: Local<"i32">, least: Operand<"i32">, most: Operand<"i32">): void {
    this.set(this.maxS(least));
    this.set(this.minS(most));
  }
}

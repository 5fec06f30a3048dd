/**
 * Values and variables of the WASM assembler; their methods are its arithmetic:
 * `first.set(item.div(G).times(TILE))`.
 *
 * A `Value` is an expression, not a result: its code is emitted at every use. To compute something
 * once, set a `Local`. I32 methods are unsigned where WebAssembly has both kinds (the suffix `S` is
 * signed), because most are addresses, which exceed 2 GiB. V128 methods work on four F32.
 *
 * `Int` is the type of addresses and counts: I32, or I64 over a memory of 64-bit addresses. An I32
 * is extended by zeros where it meets an I64, and an I64 loses its upper half where only an I32 is
 * possible (a lane, a shift's count).
 *
 * @module
 */

/** Types of values. The operation decides whether a `v128` is four F32, four I32 or two F64. */
export type ValueType = "i32" | "i64" | "f32" | "f64" | "v128";

/** The type of addresses and counts: as wide as an address of the module's memory. */
export type Int = "i32" | "i64";

/** The type of a function's result. */
export type Result = ValueType | "int" | "void";

/**
 * A value or a constant. An integer constant may be signed or unsigned; a v128 constant is one F32
 * in all four lanes.
 */
export type Operand<T extends ValueType> = Value<T> | number;

/** Result of a comparison: 1 or 0; of vectors, all ones or all zeros per lane. */
export type Comparison<T extends ValueType> = Value<T extends "v128" ? "v128" : "i32">;

/** Code that leaves no value: a call, or another effect. */
export interface Effect {
  readonly type: "void";
  readonly code: readonly number[];
}

/** LEB128 of an unsigned number below 2⁵³. */
export function unsignedLeb(value: number): number[] {
  const bytes = [];
  for (;; value = Math.floor(value / 128)) {
    if (value < 128) return [...bytes, value];
    bytes.push(value % 128 | 0x80);
  }
}

/** LEB128 of a signed integer below 2⁵³ in size. */
export function signedLeb(value: number): number[] {
  const bytes = [];
  for (;; value = Math.floor(value / 128)) {
    // Bit 6 of the last byte is sign-extended.
    if (value >= -64 && value < 64) return [...bytes, value & 0x7f];
    bytes.push((value & 0x7f) | 0x80); // the lowest bits survive `&`, whatever the size
  }
}

/** Encoding of a SIMD operation: prefix and number. */
export const simd = (op: number): number[] => [0xfd, ...unsignedLeb(op)];

const SPLAT_F32 = simd(19);

function constant(type: ValueType, value: number): number[] {
  const view = new DataView(new ArrayBuffer(8));
  switch (type) {
    case "i32":
      return [0x41, ...signedLeb(value | 0)];
    case "i64":
      return [0x42, ...signedLeb(value)];
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

const [EXTEND, WRAP] = [0xad, 0xa7];

/** Code of a value or of a constant. An integer gets the width of `type`. */
export function codeOf(type: ValueType, operand: Value<ValueType> | number): readonly number[] {
  if (typeof operand === "number") return constant(type, operand);
  if (type === "i64" && operand.type === "i32") return [...operand.code, EXTEND];
  if (type === "i32" && operand.type === "i64") return [...operand.code, WRAP];
  return operand.code;
}

/** The type of an operation on two integers; otherwise the type of `a`. */
function common<T extends ValueType>(a: Value<T>, b: Operand<T>): T {
  return typeof b !== "number" && b.type === "i64" ? b.type : a.type;
}

type Codes<T extends ValueType = ValueType> = Readonly<Record<T, readonly number[]>>;

const PLUS: Codes = { i32: [0x6a], i64: [0x7c], f32: [0x92], f64: [0xa0], v128: simd(228) };
const MINUS: Codes = { i32: [0x6b], i64: [0x7d], f32: [0x93], f64: [0xa1], v128: simd(229) };
const TIMES: Codes = { i32: [0x6c], i64: [0x7e], f32: [0x94], f64: [0xa2], v128: simd(230) };
const DIV: Codes = { i32: [0x6e], i64: [0x80], f32: [0x95], f64: [0xa3], v128: simd(231) };
const EQ: Codes = { i32: [0x46], i64: [0x51], f32: [0x5b], f64: [0x61], v128: simd(65) };
const NE: Codes = { i32: [0x47], i64: [0x52], f32: [0x5c], f64: [0x62], v128: simd(66) };
const LT: Codes = { i32: [0x49], i64: [0x54], f32: [0x5d], f64: [0x63], v128: simd(67) };
const GT: Codes = { i32: [0x4b], i64: [0x56], f32: [0x5e], f64: [0x64], v128: simd(68) };
const AND: Codes<Int | "v128"> = { i32: [0x71], i64: [0x83], v128: simd(78) };
const OR: Codes<Int | "v128"> = { i32: [0x72], i64: [0x84], v128: simd(80) };
const XOR: Codes<Int | "v128"> = { i32: [0x73], i64: [0x85], v128: simd(81) };
/** Operations of integers alone. */
const INT: Readonly<Record<Int, Readonly<Record<IntOperation, number>>>> = {
  i32: { rem: 0x70, le: 0x4d, ge: 0x4f, gtS: 0x4a, geS: 0x4e, shl: 0x74, shrS: 0x75, shr: 0x76 },
  i64: { rem: 0x82, le: 0x58, ge: 0x5a, gtS: 0x55, geS: 0x59, shl: 0x86, shrS: 0x87, shr: 0x88 },
};
type IntOperation = "rem" | "le" | "ge" | "gtS" | "geS" | "shl" | "shrS" | "shr";
const EQZ: Readonly<Record<Int, number>> = { i32: 0x45, i64: 0x50 };
const SELECT = 0x1b;

/** An expression of type T. */
export class Value<T extends ValueType> {
  constructor(readonly type: T, readonly code: readonly number[]) {}

  plus(b: Operand<T>): Value<T> {
    return this.#binary(b, PLUS);
  }
  minus(b: Operand<T>): Value<T> {
    return this.#binary(b, MINUS);
  }
  times(b: Operand<T>): Value<T> {
    return this.#binary(b, TIMES);
  }
  div(b: Operand<T>): Value<T> {
    return this.#binary(b, DIV);
  }
  rem<I extends Int>(this: Value<I>, b: Operand<I>): Value<I> {
    return this.#integer(b, "rem");
  }

  eq(b: Operand<T>): Comparison<T> {
    return this.#compare(b, EQ);
  }
  ne(b: Operand<T>): Comparison<T> {
    return this.#compare(b, NE);
  }
  lt(b: Operand<T>): Comparison<T> {
    return this.#compare(b, LT);
  }
  gt(b: Operand<T>): Comparison<T> {
    return this.#compare(b, GT);
  }
  le<I extends Int>(this: Value<I>, b: Operand<I>): Value<"i32"> {
    return bit(this.#integer(b, "le"));
  }
  ge<I extends Int>(this: Value<I>, b: Operand<I>): Value<"i32"> {
    return bit(this.#integer(b, "ge"));
  }
  gtS<I extends Int>(this: Value<I>, b: Operand<I>): Value<"i32"> {
    return bit(this.#integer(b, "gtS"));
  }
  geS<I extends Int>(this: Value<I>, b: Operand<I>): Value<"i32"> {
    return bit(this.#integer(b, "geS"));
  }
  /** 1 if the number is 0. */
  eqz(this: Value<Int>): Value<"i32"> {
    return new Value("i32", [...this.code, EQZ[this.type]]);
  }

  and<B extends Int | "v128">(this: Value<B>, b: Operand<B>): Value<B> {
    return this.#binary(b, AND);
  }
  or<B extends Int | "v128">(this: Value<B>, b: Operand<B>): Value<B> {
    return this.#binary(b, OR);
  }
  xor<B extends Int | "v128">(this: Value<B>, b: Operand<B>): Value<B> {
    return this.#binary(b, XOR);
  }
  shl<I extends Int>(this: Value<I>, bits: Operand<I>): Value<I> {
    return this.#integer(bits, "shl");
  }
  shrS<I extends Int>(this: Value<I>, bits: Operand<I>): Value<I> {
    return this.#integer(bits, "shrS");
  }
  shr<I extends Int>(this: Value<I>, bits: Operand<I>): Value<I> {
    return this.#integer(bits, "shr");
  }

  /** Minimum, by `select`: each operand's code is emitted twice. */
  min<I extends Int>(this: Value<I>, b: Operand<I>): Value<I> {
    return select(this, b, this.lt(b));
  }
  max<I extends Int>(this: Value<I>, b: Operand<I>): Value<I> {
    return select(this, b, this.gt(b));
  }
  minS<I extends Int>(this: Value<I>, b: Operand<I>): Value<I> {
    return select(b, this, this.gtS(b));
  }
  maxS<I extends Int>(this: Value<I>, b: Operand<I>): Value<I> {
    return select(b, this, new Value(this.type, codeOf(this.type, b)).gtS(this));
  }
  /** Per lane: b < a ? b : a. A NaN in `a` stays; a NaN in `b` is ignored. */
  pmin(this: Value<"v128">, b: Operand<"v128">): Value<"v128"> {
    return new Value("v128", [...this.code, ...codeOf("v128", b), ...simd(234)]);
  }
  /** Per lane: a < b ? b : a. A NaN in `a` stays; a NaN in `b` is ignored. */
  pmax(this: Value<"v128">, b: Operand<"v128">): Value<"v128"> {
    return new Value("v128", [...this.code, ...codeOf("v128", b), ...simd(235)]);
  }

  #binary(b: Operand<T>, ops: Codes<T>): Value<T> {
    const type = common(this, b);
    return new Value(type, [...codeOf(type, this), ...codeOf(type, b), ...ops[type]]);
  }
  #compare(b: Operand<T>, ops: Codes<T>): Comparison<T> {
    const { type, code } = this.#binary(b, ops);
    return new Value(type === "v128" ? "v128" : "i32", code) as Comparison<T>;
  }
  #integer<I extends Int>(this: Value<I>, b: Operand<I>, name: IntOperation): Value<I> {
    const type = common(this, b);
    return new Value(type, [...codeOf(type, this), ...codeOf(type, b), INT[type][name]]);
  }
}

/** The result of a comparison. */
function bit({ code }: Value<Int>): Value<"i32"> {
  return new Value("i32", code);
}

/** The lower 32 bits of an integer. */
export function lower(value: Value<Int>): Value<"i32"> {
  return new Value("i32", codeOf("i32", value));
}

/** 1 if an integer is not 0, for a condition: an I32 stays as it is. */
export function condition(value: Value<Int>): readonly number[] {
  return value.type === "i32" ? value.code : value.ne(0).code;
}

/** `condition ? a : b`; both operands are evaluated. */
export function select<I extends Int>(
  a: Operand<I>,
  b: Value<I>,
  isA: Value<Int>,
): Value<I>;
export function select<I extends Int>(
  a: Value<I>,
  b: Operand<I>,
  isA: Value<Int>,
): Value<I>;
export function select<I extends Int>(a: Operand<I>, b: Operand<I>, isA: Value<Int>): Value<Int> {
  const isWide = (operand: Operand<Int>) => typeof operand !== "number" && operand.type === "i64";
  const type = isWide(a) || isWide(b) ? "i64" : "i32";
  return new Value<Int>(type, [...codeOf(type, a), ...codeOf(type, b), ...condition(isA), SELECT]);
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
  advance<I extends Int>(this: Local<I>, by: Operand<I>): void {
    this.set(this.plus(by));
  }
  atMost<I extends Int>(this: Local<I>, limit: Operand<I>): void {
    this.set(this.min(limit));
  }
  atLeast<I extends Int>(this: Local<I>, limit: Operand<I>): void {
    this.set(this.max(limit));
  }
  /** Clamps a signed number to least … most; if least > most, the result is `most`. */
  clampS<I extends Int>(this: Local<I>, least: Operand<I>, most: Operand<I>): void {
    this.set(this.maxS(least));
    this.set(this.minS(most));
  }
}

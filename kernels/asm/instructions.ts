/**
 * WebAssembly instructions beyond the methods of `Value`: loads, conversions, lanes, masks, calls.
 *
 * Names and encodings follow the WebAssembly specification (core 2.0 and relaxed SIMD).
 *
 * @module
 */
import { codeOf, type Effect, type Operand, select, simd, unsignedLeb, Value } from "./value.ts";
import type { Int, Result, ValueType } from "./value.ts";

export * from "./value.ts";

/** Operands of a type; of an `Int`, an operation on I32 takes the lower half. */
type Taken<T extends ValueType> = Operand<T extends "i32" ? Int : T>;

/** An operation on operands of type `from` with a result of type `to`, and its encoding. */
function operation<T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) {
  return {
    unary: (a: Taken<T>): Value<R> => new Value(to, [...codeOf(from, a), ...op]),
    binary: (a: Taken<T>, b: Taken<T>): Value<R> =>
      new Value(to, [...codeOf(from, a), ...codeOf(from, b), ...op]),
  };
}

const unary = <T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) =>
  operation(from, to, ...op).unary;
const binary = <T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) =>
  operation(from, to, ...op).binary;

/**
 * Alignment hint (log₂ of bytes) and offset. Every address but that of a single F16 is a multiple
 * of 4 bytes; vectors are not aligned further, since rows may have any length.
 */
export const memoryArgument = (offset: number, hint = 2): number[] => [
  hint,
  ...unsignedLeb(offset),
];

/** Constant offsets of accesses are smaller; the rest is added to the address. */
export const MAX_OFFSET = 65536;

/**
 * The address and the constant offset of an access. Without bounds checks (`join.ts`), memory spans
 * all addresses of 32 bits, to which sums wrap around; a large constant offset would leave it.
 */
export function placed(address: Value<Int>, offset: number): [Value<Int>, number] {
  const small = offset % MAX_OFFSET;
  return [small === offset ? address : address.plus(offset - small), small];
}

const load = <T extends ValueType>(type: T, ...op: number[]) =>
(
  address: Value<Int>,
  offset = 0,
): Value<T> => {
  const [{ code }, small] = placed(address, offset);
  return new Value(type, [...code, ...op, ...memoryArgument(small)]);
};

const shift = (op: number) => (a: Value<"v128">, bits: Operand<Int>): Value<"v128"> =>
  new Value("v128", [...a.code, ...codeOf("i32", bits), ...simd(op)]);

export const i32 = {
  const: (value: number): Value<"i32"> => new Value("i32", codeOf("i32", value)),
  load: load("i32", 0x28),
  /** Loads 16 bits, extended by zeros. */
  load16U: (address: Value<Int>, offset = 0): Value<"i32"> => {
    const [{ code }, small] = placed(address, offset);
    return new Value("i32", [...code, 0x2f, ...memoryArgument(small, 1)]);
  },
  truncF32U: unary("f32", "i32", 0xa9),
  reinterpretF32: unary("f32", "i32", 0xbc),
  select,
} as const;

/** Loads an address or a count, as wide as the address. */
export const loadInt = (address: Value<Int>, offset = 0): Value<Int> =>
  load(address.type, address.type === "i64" ? 0x29 : 0x28)(address, offset);

export const f32 = {
  const: (value: number): Value<"f32"> => new Value("f32", codeOf("f32", value)),
  load: load("f32", 0x2a),
  abs: unary("f32", "f32", 0x8b),
  sqrt: unary("f32", "f32", 0x91),
  convertI32S: unary("i32", "f32", 0xb2),
  demoteF64: unary("f64", "f32", 0xb6),
  reinterpretI32: unary("i32", "f32", 0xbe),
} as const;

export const f64 = {
  const: (value: number): Value<"f64"> => new Value("f64", codeOf("f64", value)),
  load: load("f64", 0x2b),
  neg: unary("f64", "f64", 0x9a),
  min: binary("f64", "f64", 0xa4),
  max: binary("f64", "f64", 0xa5),
  convertI32S: unary("i32", "f64", 0xb7),
  convertI32U: unary("i32", "f64", 0xb8),
  promoteF32: unary("f32", "f64", 0xbb),
} as const;

/** Loads one lane of a vector and keeps the others. */
const loadLane =
  (op: number, hint: number) =>
  (address: Value<Int>, vector: Value<"v128">, lane: number, offset = 0): Value<"v128"> => {
    const [{ code }, small] = placed(address, offset);
    const argument = [...memoryArgument(small, hint), lane];
    return new Value("v128", [...code, ...vector.code, ...simd(op), ...argument]);
  };

type VectorOperand = Operand<"v128">;

/** An operation on three vectors. */
const ternary =
  (op: number) => (...operands: readonly [VectorOperand, VectorOperand, VectorOperand]) =>
    new Value("v128", [...operands.flatMap((v) => codeOf("v128", v)), ...simd(op)]);

export const v128 = {
  /** A constant of four I32 lanes. */
  const: (lanes: readonly number[]): Value<"v128"> =>
    new Value("v128", [...simd(12), ...new Uint8Array(Int32Array.from(lanes).buffer)]),
  load: load("v128", ...simd(0)),
  /** Loads four 16-bit lanes and extends them to 32 bits. */
  load16x4U: load("v128", ...simd(4)),
  load32Splat: load("v128", ...simd(9)),
  load64Splat: load("v128", ...simd(10)),
  /** Loads two 32-bit lanes; the upper two are zeros. */
  load64Zero: load("v128", ...simd(93)),
  load16Lane: loadLane(85, 1),
  load32Lane: loadLane(86, 2),
  /** Selects four 32-bit lanes: 0 … 3 are the lanes of `a`, 4 … 7 those of `b`. */
  shuffle: (a: Value<"v128">, b: Value<"v128">, lanes: readonly number[]): Value<"v128"> =>
    new Value("v128", [
      ...a.code,
      ...b.code,
      ...simd(13),
      ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)),
    ]),
  /** Selects 16 bytes: 0 … 15 are the bytes of `a`, 16 … 31 those of `b`. */
  shuffleBytes: (a: Value<"v128">, b: Value<"v128">, bytes: readonly number[]): Value<"v128"> =>
    new Value("v128", [...a.code, ...b.code, ...simd(13), ...bytes]),
  /** a & ~b. */
  andNot: binary("v128", "v128", ...simd(79)),
  /** Bitwise select: bits of `a` where the mask is 1, of `b` where it is 0. */
  select: ternary(82),
  /** 1 if any bit is set. */
  anyTrue: unary("v128", "i32", ...simd(83)),
} as const;

export const i8x16 = {
  /** Selects bytes of `a` by the bytes of `b`; 0 for an index of 16 and more. */
  swizzle: binary("v128", "v128", ...simd(14)),
  eq: binary("v128", "v128", ...simd(35)),
  /** One bit per byte: its sign. */
  bitmask: unary("v128", "i32", ...simd(100)),
  /** Narrows sixteen I16 to unsigned bytes, with saturation. */
  narrowI16x8U: binary("v128", "v128", ...simd(102)),
  /** Narrows sixteen I16 to signed bytes, with saturation. */
  narrowI16x8S: binary("v128", "v128", ...simd(101)),
} as const;

export const i16x8 = {
  shl: shift(139),
  shrS: shift(140),
  shrU: shift(141),
  eq: binary("v128", "v128", ...simd(45)),
  gtS: binary("v128", "v128", ...simd(49)),
  maxS: binary("v128", "v128", ...simd(152)),
  extendLowI8x16S: unary("v128", "v128", ...simd(135)),
  extendHighI8x16S: unary("v128", "v128", ...simd(136)),
  add: binary("v128", "v128", ...simd(142)),
  mul: binary("v128", "v128", ...simd(149)),
  /**
   * Products of signed bytes of `a` and bytes of `b` in 0 … 127, summed in neighbouring pairs; the
   * sums must fit 16 bits.
   */
  relaxedDotI8x16I7x16S: binary("v128", "v128", ...simd(0x112)),
  /** Narrows eight I32 to signed 16-bit integers, with saturation. */
  narrowI32x4S: binary("v128", "v128", ...simd(133)),
  /** Narrows eight I32 to unsigned 16-bit integers, with saturation. */
  narrowI32x4U: binary("v128", "v128", ...simd(134)),
} as const;

export const i32x4 = {
  splat: unary("i32", "v128", ...simd(17)),
  eq: binary("v128", "v128", ...simd(55)),
  gtS: binary("v128", "v128", ...simd(59)),
  gtU: binary("v128", "v128", ...simd(60)),
  geU: binary("v128", "v128", ...simd(64)),
  extendLowI16x8S: unary("v128", "v128", ...simd(167)),
  extendHighI16x8S: unary("v128", "v128", ...simd(168)),
  extendLowI16x8U: unary("v128", "v128", ...simd(169)),
  extendHighI16x8U: unary("v128", "v128", ...simd(170)),
  /** One bit per lane: its sign. */
  bitmask: unary("v128", "i32", ...simd(164)),
  /** Truncates four F32 to signed integers; NaN is 0. */
  truncSatF32x4S: unary("v128", "v128", ...simd(248)),
  shl: shift(171),
  shrS: shift(172),
  shrU: shift(173),
  /** Sums of neighbouring pairs of eight signed 16-bit integers. */
  extaddPairwiseI16x8S: unary("v128", "v128", ...simd(126)),
  /** As `i16x8.relaxedDotI8x16I7x16S`, summed in fours and added to `c`. */
  relaxedDotI8x16I7x16AddS: ternary(0x113),
  /** Products of eight signed 16-bit integers, summed in neighbouring pairs. */
  dotI16x8S: binary("v128", "v128", ...simd(186)),
  add: binary("v128", "v128", ...simd(174)),
  sub: binary("v128", "v128", ...simd(177)),
  minU: binary("v128", "v128", ...simd(183)),
  maxU: binary("v128", "v128", ...simd(185)),
  extractLane: (a: Value<"v128">, lane: number): Value<"i32"> =>
    new Value("i32", [...a.code, ...simd(27), lane]),
} as const;

export const f32x4 = {
  splat: unary("f32", "v128", ...simd(19)),
  /** Converts four signed I32 to F32. */
  convertI32x4S: unary("v128", "v128", ...simd(250)),
  /** Converts four unsigned I32 to F32. */
  convertI32x4U: unary("v128", "v128", ...simd(251)),
  abs: unary("v128", "v128", ...simd(224)),
  sqrt: unary("v128", "v128", ...simd(227)),
  floor: unary("v128", "v128", ...simd(104)),
  /** Maximum; NaN if one of the operands is. */
  max: binary("v128", "v128", ...simd(233)),
  /** a · b + c, rounded once or twice: whichever is faster on the processor. */
  relaxedMadd: ternary(0x105),
  demoteF64x2: unary("v128", "v128", ...simd(94)),
  extractLane: (a: Value<"v128">, lane: number): Value<"f32"> =>
    new Value("f32", [...a.code, ...simd(31), lane]),
  replaceLane: (a: Value<"v128">, lane: number, value: Value<"f32">): Value<"v128"> =>
    new Value("v128", [...a.code, ...value.code, ...simd(32), lane]),
} as const;

export const i64x2 = {
  extendLowI32x4S: unary("v128", "v128", ...simd(199)),
  extendHighI32x4S: unary("v128", "v128", ...simd(200)),
  extendLowI32x4U: unary("v128", "v128", ...simd(201)),
  extendHighI32x4U: unary("v128", "v128", ...simd(202)),
} as const;

export const f64x2 = {
  splat: unary("f64", "v128", ...simd(20)),
  promoteLowF32x4: unary("v128", "v128", ...simd(95)),
  add: binary("v128", "v128", ...simd(240)),
  div: binary("v128", "v128", ...simd(243)),
  extractLane: (a: Value<"v128">, lane: number): Value<"f64"> =>
    new Value("f64", [...a.code, ...simd(33), lane]),
} as const;

/** Types of named parameters or variables, in order; "int" is as wide as an address. */
export type Types = Readonly<Record<string, ValueType | "int">>;

/** The type of a variable's values. */
export type TypeOf<T extends ValueType | "int"> = T extends "int" ? Int : T & ValueType;

/** The type of a variable's values where an address has this type. */
export function exactType<T extends ValueType | "int">(type: T, address: Int): TypeOf<T> {
  return (type === "int" ? address : type) as TypeOf<T>;
}

/** Names of parameters or variables that are addresses or counts. */
export type Ints<N extends string> = Readonly<Record<N, "int">>;
/** Names of parameters or variables of 32 bits, whatever the width of addresses. */
export type Words<N extends string> = Readonly<Record<N, "i32">>;
/** Names of v128 parameters or variables. */
export type Vectors<N extends string> = Readonly<Record<N, "v128">>;

export function ints<N extends string>(...names: readonly N[]): Ints<N> {
  return allOf("int", names);
}

export function words<N extends string>(...names: readonly N[]): Words<N> {
  return allOf("i32", names);
}

export function vectors<N extends string>(...names: readonly N[]): Vectors<N> {
  return allOf("v128", names);
}

function allOf<T extends ValueType | "int", N extends string>(type: T, names: readonly N[]) {
  return Object.fromEntries(names.map((name) => [name, type])) as Record<N, T>;
}

/** A function of the module, as `call` needs it. */
export interface Func<P extends Types, R extends Result = "void"> {
  readonly index: number;
  readonly params: P;
  readonly result: R;
  /** Type of addresses, and of "int". */
  readonly address: Int;
}

/** Arguments of a call, by name. */
export type Operands<P extends Types> = { readonly [N in keyof P]: Operand<TypeOf<P[N]>> };

/** Code of a call: a value, or an effect if the function returns nothing. */
export type Code<R extends Result> = R extends "void" ? Effect
  : Value<TypeOf<R & (ValueType | "int")>>;

/** Calls `func` with named arguments. */
export function call<P extends Types, R extends Result>(
  { index, params, result, address }: Func<P, R>,
  args: Operands<P>,
): Code<R> {
  const code = Object.entries(params).flatMap(([name, type]) =>
    codeOf(exactType(type, address), args[name])
  );
  code.push(0x10, ...unsignedLeb(index));
  const value = result === "void"
    ? { type: result, code }
    : new Value(exactType(result, address), code);
  return value as Code<R>;
}

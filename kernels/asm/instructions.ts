/**
 * The operations of WebAssembly that the kernels are written in, as values that can be put together.
 *
 * A `Value` is code that leaves a number where it is used, as often as it is used: it names a computation and not a result.
 * What must be computed once goes into a `Local`. The operations are named as in the WebAssembly specification (core 2.0 and
 * relaxed SIMD), which is also the source of the encodings; only those that a kernel uses are here.
 *
 * @module
 */

/** The types of numbers. A `v128` is four F32, four I32 or two F64, as the operation has it. */
export type ValueType = "i32" | "f32" | "f64" | "v128";

/** What a function gives back. */
export type Result = ValueType | "void";

/** Code that leaves a number of type T, or that leaves nothing. */
export interface Value<T extends Result> {
  readonly type: T;
  readonly code: readonly number[];
}

/** A variable of a function. */
export interface Local<T extends ValueType> extends Value<T> {
  readonly index: number;
}

/** Where a number is wanted, a constant may stand; one of I32 may be written signed or unsigned. */
export type Operand<T extends ValueType> = T extends "v128" ? Value<T> : Value<T> | number;

/** A function that can be called. */
export interface Func<P extends readonly ValueType[], R extends Result> {
  readonly index: number;
  readonly params: P;
  readonly result: R;
}

/** Arguments of a call. */
export type Operands<P extends readonly ValueType[]> = { [I in keyof P]: Operand<P[I]> };

/** How the binary format spells a type. */
export const TYPE_CODE: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

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

/** LEB128 of a number's lowest 32 bits, read as signed. */
export function signedLeb(value: number): number[] {
  const bytes = [];
  for (value |= 0;; value >>= 7) {
    // The last byte's bit 6 is the sign of all that is left out.
    if (value >= -64 && value < 64) return [...bytes, value & 0x7f];
    bytes.push((value & 0x7f) | 0x80);
  }
}

function constant<T extends ValueType>(type: T, value: number): number[] {
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
    default:
      throw new TypeError(`Cannot encode a constant: expected a scalar type, got ${type}`);
  }
}

/** Code of a value or of a constant. */
export function codeOf(type: ValueType, operand: Value<ValueType> | number): readonly number[] {
  return typeof operand === "number" ? constant(type, operand) : operand.code;
}

/** An operation of equal operands: their type, the result's, and its encoding. */
function operation<T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) {
  return {
    unary: (a: Operand<T>): Value<R> => ({ type: to, code: [...codeOf(from, a), ...op] }),
    binary: (a: Operand<T>, b: Operand<T>): Value<R> => ({
      type: to,
      code: [...codeOf(from, a), ...codeOf(from, b), ...op],
    }),
  };
}

const unary = <T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) =>
  operation(from, to, ...op).unary;
const binary = <T extends ValueType, R extends ValueType>(from: T, to: R, ...op: number[]) =>
  operation(from, to, ...op).binary;

/** The SIMD operations share a prefix. */
export const simd = (op: number): number[] => [0xfd, ...unsignedLeb(op)];

/** The hint 2² bytes is true of every address here but of a lone F16's, also of a vector's: rows may have any length. */
export const memoryArgument = (offset: number, hint = 2): number[] => [
  hint,
  ...unsignedLeb(offset),
];

const load =
  <T extends ValueType>(type: T, ...op: number[]) =>
  (address: Operand<"i32">, offset = 0): Value<T> => ({
    type,
    code: [...codeOf("i32", address), ...op, ...memoryArgument(offset)],
  });

const shift = (op: number) => (a: Value<"v128">, bits: Operand<"i32">): Value<"v128"> => ({
  type: "v128",
  code: [...a.code, ...codeOf("i32", bits), ...simd(op)],
});

/** 32-bit integers, addresses among them: hence the unsigned comparisons, for memory goes beyond 2 GiB. */
export const i32 = {
  const: (value: number): Value<"i32"> => ({ type: "i32", code: constant("i32", value) }),
  load: load("i32", 0x28),
  eqz: unary("i32", "i32", 0x45),
  eq: binary("i32", "i32", 0x46),
  ne: binary("i32", "i32", 0x47),
  ltU: binary("i32", "i32", 0x49),
  gtS: binary("i32", "i32", 0x4a),
  gtU: binary("i32", "i32", 0x4b),
  leU: binary("i32", "i32", 0x4d),
  geS: binary("i32", "i32", 0x4e),
  geU: binary("i32", "i32", 0x4f),
  add: binary("i32", "i32", 0x6a),
  sub: binary("i32", "i32", 0x6b),
  mul: binary("i32", "i32", 0x6c),
  divU: binary("i32", "i32", 0x6e),
  remU: binary("i32", "i32", 0x70),
  and: binary("i32", "i32", 0x71),
  or: binary("i32", "i32", 0x72),
  xor: binary("i32", "i32", 0x73),
  shl: binary("i32", "i32", 0x74),
  shrS: binary("i32", "i32", 0x75),
  shrU: binary("i32", "i32", 0x76),
  rotl: binary("i32", "i32", 0x77),
  truncF32U: unary("f32", "i32", 0xa9),
  reinterpretF32: unary("f32", "i32", 0xbc),
  /** The first where the condition is not 0, else the second; both are computed. */
  select: (a: Operand<"i32">, b: Operand<"i32">, condition: Value<"i32">): Value<"i32"> => ({
    type: "i32",
    code: [...codeOf("i32", a), ...codeOf("i32", b), ...condition.code, 0x1b],
  }),
} as const;

export const f32 = {
  const: (value: number): Value<"f32"> => ({ type: "f32", code: constant("f32", value) }),
  load: load("f32", 0x2a),
  eq: binary("f32", "i32", 0x5b),
  ne: binary("f32", "i32", 0x5c),
  lt: binary("f32", "i32", 0x5d),
  gt: binary("f32", "i32", 0x5e),
  abs: unary("f32", "f32", 0x8b),
  sqrt: unary("f32", "f32", 0x91),
  add: binary("f32", "f32", 0x92),
  sub: binary("f32", "f32", 0x93),
  mul: binary("f32", "f32", 0x94),
  div: binary("f32", "f32", 0x95),
  demoteF64: unary("f64", "f32", 0xb6),
  reinterpretI32: unary("i32", "f32", 0xbe),
} as const;

export const f64 = {
  load: load("f64", 0x2b),
  gt: binary("f64", "i32", 0x64),
  neg: unary("f64", "f64", 0x9a),
  add: binary("f64", "f64", 0xa0),
  sub: binary("f64", "f64", 0xa1),
  mul: binary("f64", "f64", 0xa2),
  div: binary("f64", "f64", 0xa3),
  max: binary("f64", "f64", 0xa5),
  convertI32S: unary("i32", "f64", 0xb7),
  convertI32U: unary("i32", "f64", 0xb8),
  promoteF32: unary("f32", "f64", 0xbb),
} as const;

/** Loads one lane of a vector that keeps the others. */
const loadLane =
  (op: number, hint: number) =>
  (address: Operand<"i32">, vector: Value<"v128">, lane: number, offset = 0): Value<"v128"> => {
    const argument = [...memoryArgument(offset, hint), lane];
    return {
      type: "v128",
      code: [...codeOf("i32", address), ...vector.code, ...simd(op), ...argument],
    };
  };

/** An operation of three vectors. */
const ternary =
  (op: number) => (a: Value<"v128">, b: Value<"v128">, c: Value<"v128">): Value<"v128"> => ({
    type: "v128",
    code: [...a.code, ...b.code, ...c.code, ...simd(op)],
  });

export const v128 = {
  /** Four I32. */
  const: (lanes: readonly number[]): Value<"v128"> => ({
    type: "v128",
    code: [...simd(12), ...new Uint8Array(Int32Array.from(lanes).buffer)],
  }),
  load: load("v128", ...simd(0)),
  load32Splat: load("v128", ...simd(9)),
  /** Two lanes, and zeros. */
  load64Zero: load("v128", ...simd(93)),
  load16Lane: loadLane(85, 1),
  load32Lane: loadLane(86, 2),
  /** Four lanes of 32 bits, out of eight: those of `b` count from 4. */
  shuffle: (a: Value<"v128">, b: Value<"v128">, lanes: readonly number[]): Value<"v128"> => ({
    type: "v128",
    code: [
      ...a.code,
      ...b.code,
      ...simd(13),
      ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)),
    ],
  }),
  and: binary("v128", "v128", ...simd(78)),
  /** Bits of `a` that `b` has not. */
  andNot: binary("v128", "v128", ...simd(79)),
  or: binary("v128", "v128", ...simd(80)),
  xor: binary("v128", "v128", ...simd(81)),
  /** Bits of `a` where the mask has ones, of `b` where it has zeros. */
  select: ternary(82),
  /** 1 when a bit is set. */
  anyTrue: unary("v128", "i32", ...simd(83)),
} as const;

export const i16x8 = {
  eq: binary("v128", "v128", ...simd(45)),
  gtS: binary("v128", "v128", ...simd(49)),
  maxS: binary("v128", "v128", ...simd(152)),
  add: binary("v128", "v128", ...simd(142)),
  /** Eight I32, as unsigned numbers of 16 bits. */
  narrowI32x4U: binary("v128", "v128", ...simd(134)),
} as const;

export const i32x4 = {
  splat: unary("i32", "v128", ...simd(17)),
  eq: binary("v128", "v128", ...simd(55)),
  gtS: binary("v128", "v128", ...simd(59)),
  gtU: binary("v128", "v128", ...simd(60)),
  geU: binary("v128", "v128", ...simd(64)),
  extendLowI16x8U: unary("v128", "v128", ...simd(169)),
  extendHighI16x8U: unary("v128", "v128", ...simd(170)),
  /** A bit for each lane: its sign. */
  bitmask: unary("v128", "i32", ...simd(164)),
  shl: shift(171),
  shrS: shift(172),
  shrU: shift(173),
  add: binary("v128", "v128", ...simd(174)),
  sub: binary("v128", "v128", ...simd(177)),
  minU: binary("v128", "v128", ...simd(183)),
  maxU: binary("v128", "v128", ...simd(185)),
  extractLane: (a: Value<"v128">, lane: number): Value<"i32"> => ({
    type: "i32",
    code: [...a.code, ...simd(27), lane],
  }),
} as const;

export const f32x4 = {
  splat: unary("f32", "v128", ...simd(19)),
  /** The numbers of four unsigned I32. */
  convertI32x4U: unary("v128", "v128", ...simd(251)),
  lt: binary("v128", "v128", ...simd(67)),
  gt: binary("v128", "v128", ...simd(68)),
  abs: unary("v128", "v128", ...simd(224)),
  neg: unary("v128", "v128", ...simd(225)),
  add: binary("v128", "v128", ...simd(228)),
  sub: binary("v128", "v128", ...simd(229)),
  mul: binary("v128", "v128", ...simd(230)),
  div: binary("v128", "v128", ...simd(231)),
  /** b where b < a, else a: a NaN in `a` stays, one in `b` does not count. */
  pmin: binary("v128", "v128", ...simd(234)),
  /** b where a < b, else a: a NaN in `a` stays, one in `b` does not count. */
  pmax: binary("v128", "v128", ...simd(235)),
  /** a · b + c, rounded once or twice as the processor likes it. */
  relaxedMadd: ternary(0x105),
  demoteF64x2: unary("v128", "v128", ...simd(94)),
  extractLane: (a: Value<"v128">, lane: number): Value<"f32"> => ({
    type: "f32",
    code: [...a.code, ...simd(31), lane],
  }),
  replaceLane: (a: Value<"v128">, lane: number, value: Value<"f32">): Value<"v128"> => ({
    type: "v128",
    code: [...a.code, ...value.code, ...simd(32), lane],
  }),
} as const;

export const i64x2 = {
  extendLowI32x4S: unary("v128", "v128", ...simd(199)),
  extendHighI32x4S: unary("v128", "v128", ...simd(200)),
} as const;

export const f64x2 = {
  splat: unary("f64", "v128", ...simd(20)),
  promoteLowF32x4: unary("v128", "v128", ...simd(95)),
  add: binary("v128", "v128", ...simd(240)),
  div: binary("v128", "v128", ...simd(243)),
  extractLane: (a: Value<"v128">, lane: number): Value<"f64"> => ({
    type: "f64",
    code: [...a.code, ...simd(33), lane],
  }),
} as const;

/** What `func` gives for these arguments. */
export function call<P extends readonly ValueType[], R extends Result>(
  func: Func<P, R>,
  ...args: Operands<P>
): Value<R> {
  const code = func.params.flatMap((type, i) => codeOf(type, args[i]));
  return { type: func.result, code: [...code, 0x10, ...unsignedLeb(func.index)] };
}

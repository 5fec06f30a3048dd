/**
 * WASM code that quantises rows of F32 to Q4_K, Q5_K and Q6_K, 256 numbers at a time.
 *
 * The operations are those of `k_encode.ts`, in F32 and in the same order, so that the bytes are
 * equal. A search is sequential in a group, so four groups are searched at once, one in each lane:
 *
 *     row      │ group 0: x0 x1 … x31 │ group 1: … │ … │ group 7 │
 *     scratch  │ x0 of groups 0 … 3 │ x1 of groups 0 … 3 │ … │ x31 of groups 4 … 7 │
 *
 * @module
 */
import { call, f32, f32x4, i16x8, i32, i32x4, i8x16, ints } from "../asm/assembler.ts";
import { v128, vectors } from "../asm/assembler.ts";
import type { Func, FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { spread, VECTOR_BYTES } from "../asm/lanes.ts";
import { f16Low } from "./f16.ts";
import { ENCODE_SCRATCH, ENCODER, type RowEncoder } from "./format.ts";
import { FACTORS_6, LEAST_EXTREME, ROUNDER, type Search, SEARCH_4, SEARCH_5 } from "./k_encode.ts";
import { packBytes, storeHalf } from "./wasm_encode.ts";
import { transposed } from "./wasm_pack.ts";

/** Bytes of scratch, from these offsets on. */
const PLACES = {
  /** The numbers, drawn above: 64 vectors. */
  numbers: 0,
  /** Weights and codes of a search: 32 vectors each. */
  weights: 1024,
  codes: 1536,
  /** State of a search: `STATE`. */
  state: 2048,
  /** Results of the searches: scales, then minima. */
  scales: 2304,
  minima: 2368,
} as const;

/** Vectors of a search's state. */
const STATE = ["low", "high", "sumW", "sumX", "scale", "min", "best"] as const;

type State = { readonly [N in typeof STATE[number]]: Place };

/** A vector in scratch. */
interface Place {
  readonly get: Value<"v128">;
  set(v: Value<"v128">): void;
}

function placeAt(f: FunctionBuilder, base: Value<Int>, offset: number): Place {
  return { get: v128.load(base, offset), set: (v) => f.store(base, v, offset) };
}

function stateAt(f: FunctionBuilder, scratch: Value<Int>): State {
  const places = STATE.map((name, i) => [
    name,
    placeAt(f, scratch, PLACES.state + VECTOR_BYTES * i),
  ]);
  return Object.fromEntries(places) as State;
}

const ZERO = f32x4.splat(f32.const(0));

/** The nearest integer, ties to even, within `least` … `most`. */
function code(v: Value<"v128">, least: number, most: number): Value<"v128"> {
  return v.plus(ROUNDER).minus(ROUNDER).pmax(least).pmin(most);
}

/** Parameters of a search of four groups: addresses of its numbers, and of the scratch. */
const SEARCHED = ints("x", "scratch");

/** One candidate of a search; `factor` is the numerator of its scale. */
type Candidate = Func<typeof SEARCHED & { readonly factor: "v128" }>;

/** Defines a candidate of the scales and minima of 32 numbers. */
function defineCandidate(m: ModuleBuilder, most: number): Candidate {
  return m.define({ ...SEARCHED, ...vectors("factor") }, "void", (f, { x, scratch, factor }) => {
    const state = stateAt(f, scratch);
    const { min, inverse, w, v, l, better } = f.locals(
      vectors("min", "inverse", "w", "v", "l", "better"),
    );
    const { sumL, sumL2, sumXL, error } = f.locals(vectors("sumL", "sumL2", "sumXL", "error"));
    const { determinant, scale } = f.locals(vectors("determinant", "scale"));
    min.set(state.min.get);
    inverse.set(factor.div(state.high.get.minus(min)));
    for (let i = 0; i < 32; i++) {
      v.set(v128.load(x, VECTOR_BYTES * i));
      l.set(code(inverse.times(v.minus(min)), 0, most));
      f.store(scratch, l, PLACES.codes + VECTOR_BYTES * i);
      w.set(v128.load(scratch, PLACES.weights + VECTOR_BYTES * i).times(l));
      sumL.set(sumL.plus(w));
      sumL2.set(sumL2.plus(w.times(l)));
      sumXL.set(sumXL.plus(w.times(v)));
    }
    determinant.set(state.sumW.get.times(sumL2).minus(sumL.times(sumL)));
    min.set(sumL2.times(state.sumX.get).minus(sumL.times(sumXL)).div(determinant));
    better.set(min.gt(0));
    scale.set(state.sumW.get.times(sumXL).minus(state.sumX.get.times(sumL)).div(determinant));
    scale.set(v128.select(sumXL.div(sumL2), scale, better));
    min.set(v128.andNot(min, better));
    addError(f, { x, scratch, scale, min, error });
    better.set(error.lt(state.best.get).and(determinant.gt(0)));
    for (const [name, found] of [["scale", scale], ["min", min], ["best", error]] as const) {
      state[name].set(v128.select(found, state[name].get, better));
    }
  });
}

/** Adds up the weighted squared error of the codes in scratch. */
function addError(f: FunctionBuilder, { x, scratch, scale, min, error }: {
  readonly x: Local<Int>;
  readonly scratch: Local<Int>;
  readonly scale: Local<"v128">;
  readonly min: Local<"v128">;
  readonly error: Local<"v128">;
}): void {
  const diff = f.local("v128", "diff");
  for (let i = 0; i < 32; i++) {
    const codes = v128.load(scratch, PLACES.codes + VECTOR_BYTES * i);
    diff.set(scale.times(codes).plus(min).minus(v128.load(x, VECTOR_BYTES * i)));
    const weight = v128.load(scratch, PLACES.weights + VECTOR_BYTES * i);
    error.set(error.plus(weight.times(diff.times(diff))));
  }
}

/** Defines the start of a search: weights, sums, and the scale of the whole range. */
function defineStart(m: ModuleBuilder, most: number): Func<typeof SEARCHED> {
  return m.define(SEARCHED, "void", (f, { x, scratch }) => {
    const state = stateAt(f, scratch);
    const { v, w, rms, low, high, inverse, scale, error } = f.locals(
      vectors("v", "w", "rms", "low", "high", "inverse", "scale", "error"),
    );
    const { sumW, sumX } = f.locals(vectors("sumW", "sumX"));
    const each = (body: (i: number) => void) => {
      for (let i = 0; i < 32; i++) {
        v.set(v128.load(x, VECTOR_BYTES * i));
        body(i);
      }
    };
    each(() => rms.set(rms.plus(v.times(v))));
    rms.set(f32x4.sqrt(rms.div(32)));
    low.set(v128.load(x));
    high.set(low);
    each((i) => {
      low.set(low.pmin(v));
      high.set(high.pmax(v));
      w.set(rms.plus(f32x4.abs(v)));
      f.store(scratch, w, PLACES.weights + VECTOR_BYTES * i);
      sumW.set(sumW.plus(w));
      sumX.set(sumX.plus(w.times(v)));
    });
    low.set(low.pmin(0));
    inverse.set(f32x4.splat(f32.const(most)).div(high.minus(low)));
    each((i) => {
      const codes = code(inverse.times(v.minus(low)), 0, most);
      f.store(scratch, codes, PLACES.codes + VECTOR_BYTES * i);
    });
    scale.set(f32x4.splat(f32.const(1)).div(inverse));
    addError(f, { x, scratch, scale, min: low, error });
    const found = { low, high, sumW, sumX, scale, min: low, best: error };
    for (const name of STATE) state[name].set(found[name]);
  });
}

/** Defines the search of four groups of 32: scales and minima of set `at` / 16. */
function defineSearch(m: ModuleBuilder, search: Search): Func<typeof SEARCHED & { at: "int" }> {
  const [start, candidate] = [defineStart(m, search.most), defineCandidate(m, search.most)];
  return m.define({ ...SEARCHED, ...ints("at") }, "void", (f, { x, scratch, at }) => {
    const isFlat = f.local("v128", "isFlat");
    f.do(call(start, { x, scratch }));
    for (const factor of search.factors) f.do(call(candidate, { x, scratch, factor }));
    const { low, high, scale, min } = stateAt(f, scratch);
    isFlat.set(high.get.eq(low.get));
    at.set(at.plus(scratch));
    f.store(at, v128.andNot(scale.get, isFlat), PLACES.scales);
    f.store(at, ZERO.minus(v128.select(low.get, min.get, isFlat)), PLACES.minima);
  });
}

/** Moves 256 numbers to scratch, `size` numbers of four groups at a time. */
function transpose(
  f: FunctionBuilder,
  { from, scratch }: { readonly from: Local<Int>; readonly scratch: Local<Int> },
  size: number,
): void {
  const rows = f.array("v128", "row", 4);
  for (let first = 0; first < 256; first += 4 * size) {
    for (let j = 0; j < size; j += 4) {
      for (const [lane, row] of rows.entries()) {
        row.set(v128.load(from, 4 * (first + lane * size + j)));
      }
      for (const [i, v] of transposed(f, rows, 4).entries()) {
        f.store(scratch, v, PLACES.numbers + 4 * first + VECTOR_BYTES * (j + i));
      }
    }
  }
}

/** The F16 at byte `offset`, as F32 in all lanes. */
function halfAt(to: Local<Int>, offset: number): Value<"v128"> {
  return f16Low(i32x4.splat(i32.load16U(to, offset)));
}

/** Rounds scales to 0 … 63 of the largest, and stores it as F16, divided by 63. */
function roundScales(
  f: FunctionBuilder,
  to: Local<Int>,
  found: readonly Local<"v128">[],
  offset: number,
): void {
  const { most, d, inverse } = f.locals(vectors("most", "d", "inverse"));
  most.set(found[0].pmax(found[1]));
  most.set(most.pmax(v128.shuffle(most, most, [2, 3, 0, 1])));
  most.set(most.pmax(v128.shuffle(most, most, [1, 0, 3, 2])).pmax(0));
  inverse.set(f32x4.splat(f32.const(63)).div(most));
  for (const v of found) v.set(code(inverse.times(v), 0, 63).and(most.gt(0)));
  d.set(most.div(63));
  storeHalf(f, to, d, offset);
}

/** Stores scales and minima of eight groups, as Q4_K packs them. */
function storeScales(
  f: FunctionBuilder,
  to: Local<Int>,
  scales: readonly Local<"v128">[],
  mins: readonly Local<"v128">[],
): void {
  const bytes = f.array("v128", "bytes", 4);
  for (const [i, v] of [...scales, ...mins].entries()) bytes[i].set(i32x4.truncSatF32x4S(v));
  const [s, s4, m, m4] = bytes;
  const high = (v: Value<"v128">) => i32x4.shl(i32x4.shrU(v, 4), 6);
  const low = (v: Value<"v128">) => v.and(i32x4.splat(15));
  const last = low(s4).or(i32x4.shl(low(m4), 4));
  const pairs = i16x8.narrowI32x4S(s.or(high(s4)), m.or(high(m4)));
  m.set(i8x16.narrowI16x8U(pairs, i16x8.narrowI32x4S(last, last)));
  for (let lane = 0; lane < 3; lane++) f.storeLane(to, m, lane, 4 + 4 * lane);
}

/** Bytes of the codes of 16 numbers: (x + min) / scale, 0 if the scale is 0. */
function codeBytes(
  f: FunctionBuilder,
  numbers: readonly Value<"v128">[],
  { scale, min }: { readonly scale: Local<"v128">; readonly min?: Local<"v128"> },
  [least, most]: readonly [number, number],
): Value<"v128"> {
  const four = f.array("v128", "code", 4);
  for (const [i, x] of numbers.entries()) {
    const codes = code((min ? x.plus(min) : x).div(scale), least, most).minus(least);
    four[i].set(i32x4.truncSatF32x4S(codes.and(scale.ne(0))));
  }
  return packBytes(four);
}

/** Lower nibbles of bytes, and their fifth or higher bits. */
const nibbles = (v: Value<"v128">) => v.and(i32x4.splat(0x0f0f0f0f));
const above = (v: Value<"v128">) => nibbles(i16x8.shrU(v, 4));

/** Defines the quantisation of Q4_K, or of Q5_K if the search has 5 bits. */
function rangedEncoder(search: Search, bytes: number): (m: ModuleBuilder) => RowEncoder {
  return (m) => {
    const find = defineSearch(m, search);
    return m.define(ENCODER, "void", (f, { to, from, count, scratch }) => {
      const end = f.local("int", "end");
      const [scales, mins] = [f.array("v128", "scale", 2), f.array("v128", "min", 2)];
      end.set(from.plus(count.times(4)));
      f.for(from, from, end, 4 * 256, () => {
        transpose(f, { from, scratch }, 32);
        for (let set = 0; set < 2; set++) {
          f.do(call(find, { x: scratch.plus(512 * set), scratch, at: 16 * set }));
        }
        for (let set = 0; set < 2; set++) {
          scales[set].set(v128.load(scratch, PLACES.scales + 16 * set));
          mins[set].set(v128.load(scratch, PLACES.minima + 16 * set));
        }
        roundScales(f, to, scales, 0);
        roundScales(f, to, mins, 2);
        storeScales(f, to, scales, mins);
        for (const v of scales) v.set(v.times(halfAt(to, 0)));
        for (const v of mins) v.set(v.times(halfAt(to, 2)));
        storeRanged(f, { to, from, scales, mins }, search.most);
        to.advance(bytes);
      });
    });
  };
}

/** Stores the codes of eight groups: nibbles, after the fifth bits if there are any. */
function storeRanged(
  f: FunctionBuilder,
  { to, from, scales, mins }: {
    readonly to: Local<Int>;
    readonly from: Local<Int>;
    readonly scales: readonly Local<"v128">[];
    readonly mins: readonly Local<"v128">[];
  },
  most: number,
): void {
  const { scale, min, low, high } = f.locals(vectors("scale", "min", "low", "high"));
  const fifths = f.array("v128", "fifths", 2);
  const hasFifths = most > 15;
  for (const fifth of fifths) fifth.set(ZERO);
  for (let group = 0; group < 8; group++) {
    scale.set(spread(scales[group >> 2], group & 3));
    min.set(spread(mins[group >> 2], group & 3));
    for (const [part, fifth] of fifths.entries()) {
      const first = 4 * (32 * group + 16 * part);
      const numbers = [0, 1, 2, 3].map((i) => v128.load(from, first + VECTOR_BYTES * i));
      high.set(codeBytes(f, numbers, { scale, min }, [0, most]));
      if (hasFifths) fifth.set(fifth.or(i16x8.shl(above(high), group)));
      low.set(nibbles(high));
      const offset = (hasFifths ? 48 : 16) + 32 * (group >> 1) + 16 * part;
      if (group % 2) low.set(v128.load(to, offset).or(i16x8.shl(low, 4)));
      f.store(to, low, offset);
    }
  }
  if (hasFifths) {
    for (const [part, fifth] of fifths.entries()) {
      f.store(to, fifth, 16 + 16 * part);
    }
  }
}

/** Defines a candidate of Q6_K's scales of 16 numbers; `sums` of the first one set the state. */
function defineCentred(m: ModuleBuilder, isFirst: boolean): Candidate {
  return m.define({ ...SEARCHED, ...vectors("factor") }, "void", (f, { x, scratch, factor }) => {
    const state = stateAt(f, scratch);
    const { v, l, w, inverse, sumXL, sumL2 } = f.locals(
      vectors("v", "l", "w", "inverse", "sumXL", "sumL2"),
    );
    const { scale, better } = f.locals(vectors("scale", "better"));
    inverse.set(factor.div(state.high.get));
    for (let i = 0; i < 16; i++) {
      v.set(v128.load(x, VECTOR_BYTES * i));
      l.set(code(inverse.times(v), -32, 31));
      w.set(v.times(v));
      sumXL.set(sumXL.plus(w.times(v).times(l)));
      sumL2.set(sumL2.plus(w.times(l).times(l)));
    }
    scale.set(sumXL.div(sumL2));
    if (isFirst) {
      scale.set(scale.and(sumL2.ne(0)));
      state.scale.set(scale);
      state.best.set(scale.times(sumXL));
      return;
    }
    better.set(sumXL.times(sumXL).gt(state.best.get.times(sumL2)).and(sumL2.gt(0)));
    state.best.set(v128.select(scale.times(sumXL), state.best.get, better));
    state.scale.set(v128.select(scale, state.scale.get, better));
  });
}

/** Defines the search of four groups of 16: scales of set `at` / 16. */
function defineCentredSearch(m: ModuleBuilder): Func<typeof SEARCHED & { at: "int" }> {
  const [first, candidate] = [defineCentred(m, true), defineCentred(m, false)];
  return m.define({ ...SEARCHED, ...ints("at") }, "void", (f, { x, scratch, at }) => {
    const { v, extreme } = f.locals(vectors("v", "extreme"));
    const { high, scale } = stateAt(f, scratch);
    for (let i = 0; i < 16; i++) {
      v.set(v128.load(x, VECTOR_BYTES * i));
      extreme.set(v128.select(v, extreme, f32x4.abs(v).gt(f32x4.abs(extreme))));
    }
    high.set(extreme);
    f.do(call(first, { x, scratch, factor: -32 }));
    for (const factor of FACTORS_6) f.do(call(candidate, { x, scratch, factor }));
    const isZero = f32x4.abs(extreme).lt(LEAST_EXTREME);
    f.store(at.plus(scratch), v128.andNot(scale.get, isZero), PLACES.scales);
  });
}

/** Defines the quantisation of Q6_K. */
function defineQ6K(m: ModuleBuilder): RowEncoder {
  const find = defineCentredSearch(m);
  return m.define(ENCODER, "void", (f, { to, from, count, scratch }) => {
    const end = f.local("int", "end");
    const scales = f.array("v128", "scale", 4);
    const { d, inverse } = f.locals(vectors("d", "inverse"));
    const extreme = f.local("f32", "extreme");
    end.set(from.plus(count.times(4)));
    f.for(from, from, end, 4 * 256, () => {
      transpose(f, { from, scratch }, 16);
      extreme.set(0);
      for (const [set, found] of scales.entries()) {
        f.do(call(find, { x: scratch.plus(256 * set), scratch, at: 16 * set }));
        found.set(v128.load(scratch, PLACES.scales + 16 * set));
        for (let lane = 0; lane < 4; lane++) {
          const scale = f32x4.extractLane(found, lane);
          f.if(f32.abs(scale).gt(f32.abs(extreme)), () => extreme.set(scale));
        }
      }
      inverse.set(f32x4.splat(f32.const(-128).div(extreme)));
      d.set(f32x4.splat(f32.const(1)).div(inverse));
      f.if(f32.abs(extreme).lt(LEAST_EXTREME), () => {
        for (const v of [inverse, d]) v.set(ZERO);
      });
      storeHalf(f, to, d, 208);
      for (const v of scales) v.set(code(inverse.times(v), -128, 127));
      storeCentred(f, { to, from, scales });
      to.advance(210);
    });
  });
}

/** Stores scales and codes of sixteen groups. */
function storeCentred(f: FunctionBuilder, { to, from, scales }: {
  readonly to: Local<Int>;
  readonly from: Local<Int>;
  readonly scales: readonly Local<"v128">[];
}): void {
  const bytes = f.array("v128", "bytes", 4);
  const scale = f.local("v128", "groupScale");
  for (const [i, v] of scales.entries()) bytes[i].set(i32x4.truncSatF32x4S(v));
  f.store(to, packBytes(bytes), 192);
  for (const v of scales) v.set(v.times(halfAt(to, 208)));
  for (const [half, part] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
    for (const [i, four] of bytes.entries()) {
      const group = 8 * half + 2 * i + part;
      scale.set(spread(scales[group >> 2], group & 3));
      const numbers = [0, 1, 2, 3].map((k) => v128.load(from, 64 * group + VECTOR_BYTES * k));
      four.set(codeBytes(f, numbers, { scale }, [-32, 31]));
    }
    const [a, b, c, e] = bytes;
    const place = 64 * half + 16 * part;
    f.store(to, nibbles(a).or(i16x8.shl(nibbles(c), 4)), place);
    f.store(to, nibbles(b).or(i16x8.shl(nibbles(e), 4)), place + 32);
    const high = [a, b, c, e].map((v, i) => i16x8.shl(above(v), 2 * i));
    f.store(to, high.reduce((all, bits) => all.or(bits)), 128 + 32 * half + 16 * part);
  }
}

export const encodeQ4_K = rangedEncoder(SEARCH_4, 144);
export const encodeQ5_K = rangedEncoder(SEARCH_5, 176);
export const encodeQ6_K = defineQ6K;

if (PLACES.minima + 2 * VECTOR_BYTES > ENCODE_SCRATCH) throw new RangeError("scratch is too small");

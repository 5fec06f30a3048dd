/**
 * Pairs of vectors that V8 joins into one of 256 bits, under `--experimental-wasm-revectorize`.
 *
 * V8 starts at two stores to neighbouring addresses and follows their operands. It joins two equal
 * operations, and two loads of neighbouring addresses if no bounds check is between them. In Deno
 * each access with a variable address has a check (an engine with guard pages has none). With
 * checks, therefore:
 *
 *     stores   at a constant address, which is checked when the module is compiled, in a branch
 *              that is never taken; the results are stored as vectors of 128 bits
 *     loads    of one vector, both halves of which are extended: that is one operation of 256 bits
 *
 *     a = c0 c1 c2 c3        low  = c0 c1 c4 c5    the even I32 of both vectors' halves,
 *     b = c4 c5 c6 c7        high = c2 c3 c6 c7    extended to I64
 *
 * Without checks (`--no-wasm-bounds-checks`) a pair of F32 loads is one load. Every form computes
 * the same on an engine that joins nothing, but more slowly than code for 128 bits. Source: V8,
 * src/compiler/turboshaft/wasm-revec-reducer.cc.
 *
 * @module
 */
import { i64x2, v128 } from "./assembler.ts";
import type { FunctionBuilder, Int, Local, Value } from "./assembler.ts";

/** Bits of the vectors that kernels are written for; "unchecked": without bounds checks. */
export type Simd = "128" | "256" | "256, unchecked";

/** Address of the stores that are never executed; no allocation may be there. */
export const SEED_ADDRESS = 1280;
/** Bytes from there on: the maximum of `joinSeeds`. */
export const SEED_BYTES = 512;

/** A pair of vectors: eight neighbouring columns. */
export type Pair = readonly [low: Local<"v128">, high: Local<"v128">];

/** Loads of pairs in one function. */
export interface PairLoads {
  /** Loads eight columns, in the order that `restore` reverses. */
  load(pair: Pair, at: Local<Int>, offset: number): void;
  /** Lanes of a pair that make up columns 0 … 3 and 4 … 7; null if they are in order. */
  readonly restore: readonly [low: readonly number[], high: readonly number[]] | null;
}

/** Loads of eight F32. */
export function f32PairLoads(f: FunctionBuilder, simd: Simd): PairLoads {
  if (simd !== "256") {
    return {
      load: ([low, high], at, offset) => {
        low.set(v128.load(at, offset));
        high.set(v128.load(at, offset + 16));
      },
      restore: null,
    };
  }
  const evens = f.local("v128", "evens");
  const even = (a: Value<"v128">, b: Value<"v128">) => v128.shuffle(a, b, [0, 2, 4, 6]);
  return {
    load: ([a, b], at, offset) => {
      a.set(v128.load(at, offset));
      b.set(v128.load(at, offset + 16));
      evens.set(even(i64x2.extendLowI32x4U(a), i64x2.extendLowI32x4U(b)));
      b.set(even(i64x2.extendHighI32x4U(a), i64x2.extendHighI32x4U(b)));
      a.set(evens);
    },
    restore: [[0, 1, 4, 5], [2, 3, 6, 7]],
  };
}

/** Puts the columns of a pair in order. */
function restorePair(
  f: FunctionBuilder,
  [low, high]: Pair,
  { restore }: Pick<PairLoads, "restore">,
): void {
  if (!restore) return;
  const first = f.local("v128", "first");
  first.set(v128.shuffle(low, high, restore[0]));
  high.set(v128.shuffle(low, high, restore[1]));
  low.set(first);
}

/**
 * Emits stores of neighbouring vectors that are never executed, for V8 to start from.
 * @param any some variable.
 */
function joinSeeds(
  f: FunctionBuilder,
  any: Local<Int>,
  vectors: readonly Value<"v128">[],
): void {
  // Trick: V8 finds that the condition is 0 only after it has joined, and then drops the stores.
  // The higher address first: a pair in the other order counts as no gain.
  f.if(any.and(0), () => {
    for (const [i, vector] of [...vectors.entries()].reverse()) {
      f.store(f.int(SEED_ADDRESS), vector, 16 * i);
    }
  });
}

/**
 * Emits what makes V8 join pairs of neighbouring vectors, and puts their columns in order.
 * @param any some variable.
 */
export function joinPairs(
  f: FunctionBuilder,
  any: Local<Int>,
  vectors: readonly Local<"v128">[],
  pairs: Pick<PairLoads, "restore">,
): void {
  joinSeeds(f, any, vectors);
  for (let i = 0; i < vectors.length; i += 2) {
    restorePair(f, [vectors[i], vectors[i + 1]], pairs);
  }
}

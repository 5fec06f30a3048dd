/**
 * Decode attention over one tile of 64 keys in WASM; `wasm.ts` calls it per tile and kv head.
 *
 *     scores       x = q · kᵀ      q [R, D], k [64, D]    tiles of 2 queries × 4 keys
 *     weights      w = 2^(x − max)                        one query at a time
 *     accumulate   w · v           v [64, D]              tiles of 4 queries × 8 columns
 *
 * R = H/G query heads share the keys and values of a kv head.
 *
 * @module
 */
import { call, f32x4, type Func, i32, i32x4, type Ints, ints } from "../../asm/assembler.ts";
import { v128, type Value, vectors } from "../../asm/assembler.ts";
import type { Effect, FunctionBuilder, Int, Local, ModuleBuilder } from "../../asm/assembler.ts";
import { eachFour, firstLanes, spread, storeLanes, sumF32 } from "../../asm/lanes.ts";
import type { MultiplyAdd, VectorMath } from "../../asm/math.ts";
import type { AttentionOptions, AttentionShape } from "./mod.ts";

/** The constants that the WASM form is specialised on. */
export interface AttentionWasm extends AttentionShape {
  /** Maximum number of rows of a run. */
  readonly T: number;
  readonly options: AttentionOptions;
}

/** Keys per tile: its keys and values fit the L1 cache. */
export const TILE = 64;
/** Bytes of a query's state, F32: scores [64], max, sum of weights, and two spare words. */
export const STATE_BYTES = 4 * TILE + 16;
export const [MAX, SUM] = [4 * TILE, 4 * TILE + 4];
const UNUSED = 4 * TILE + 8;
/** Initial max, less than any score. */
export const LOWEST = -3e38;

/** First key that a query sees of keys 0 … seen − 1: max(0, seen − window). */
export function firstKey(seen: Local<Int>, window: number | undefined): Value<Int> {
  if (window === undefined) return i32.const(0);
  return i32.select(seen.minus(window), 0, seen.gt(window));
}

type TileParams = Ints<"sums" | "q" | "k" | "v" | "state" | "first" | "last">;

/**
 * Attends to keys first … last − 1: q [R, D], k and v [S, D] → sums [R, D] and state [R].
 */
export function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
): Func<TileParams> {
  const { H, G, D } = shape;
  const R = H / G;
  const [scoreTwo, scoreOne] = [2, 1].map((queries) => scoresWasm(m, math, D, queries));
  const weigh = weighWasm(m, math, shape);
  const addFour = addFourWasm(m, math, D);
  const addOne = addOneWasm(m, math, D);
  const params = ints("sums", "q", "k", "v", "state", "first", "last");
  return m.define(params, "void", (f, { sums, q, k, v, state, first, last }) => {
    const { query, at, keys } = f.locals(ints("query", "at", "keys"));
    /**
     * Runs `code` for `count` queries at a time while that many are left; advances each pointer by
     * its bytes per query.
     */
    const each = (count: number, code: Effect, pointers: readonly [Local<Int>, number][]) => {
      f.while(query.plus(count).le(R), () => {
        f.do(code);
        query.advance(count);
        for (const [pointer, bytes] of pointers) pointer.advance(count * bytes);
      });
    };
    keys.set(last.minus(first));
    for (const row of [k, v]) row.advance(first.times(4 * D));

    // Scores.
    at.set(state);
    each(2, call(scoreTwo, { q, k, state: at, keys }), [[q, 4 * D], [at, STATE_BYTES]]);
    each(1, call(scoreOne, { q, k, state: at, keys }), [[q, 4 * D], [at, STATE_BYTES]]);

    // Weights.
    at.set(state);
    f.for(query, 0, R, 1, () => {
      f.do(call(weigh, { state: at, keys }));
      at.advance(STATE_BYTES);
    });

    // Accumulate.
    query.set(0);
    const rows = { sums, state, v, keys };
    each(QUERIES, call(addFour, rows), [[sums, 4 * D], [state, STATE_BYTES]]);
    each(1, call(addOne, rows), [[sums, 4 * D], [state, STATE_BYTES]]);
  });
}

/** Keys of a score tile. */
const KEYS = 4;

/**
 * Dot products of `queries` queries with the keys of a tile. Scores after the last key are garbage;
 * `weighWasm` masks them.
 */
function scoresWasm(
  m: ModuleBuilder,
  { madd }: VectorMath,
  D: number,
  queries: number,
): Func<Ints<"q" | "k" | "state" | "keys">> {
  return m.define(ints("q", "k", "state", "keys"), "void", (f, { q, k, state, keys }) => {
    const { key, lastKey } = f.locals(ints("key", "lastKey"));
    const rows = f.array("int", "row", KEYS);
    const query = f.array("v128", "query", queries);
    const four = f.local("v128", "four");
    const sums = query.map((_, i) => f.array("v128", `sum${i}_`, KEYS));
    lastKey.set(k.plus(keys.minus(1).times(4 * D)));
    f.for(key, 0, keys, KEYS, () => {
      // Missing keys repeat the last one.
      for (const row of rows) {
        row.set(k.min(lastKey));
        k.advance(4 * D);
      }
      for (const sum of sums.flat()) sum.set(0);
      // Unrolled over D: a constant offset costs less than advancing a pointer.
      for (let d = 0; d < D; d += 4) {
        const lanes = Math.min(4, D - d);
        for (const [i, numbers] of query.entries()) {
          numbers.set(firstLanes(v128.load(q, 4 * (i * D + d)), lanes));
        }
        for (const [j, row] of rows.entries()) {
          four.set(firstLanes(v128.load(row, 4 * d), lanes));
          for (const [i, numbers] of query.entries()) {
            sums[i][j].set(madd(numbers, four, sums[i][j]));
          }
        }
      }
      for (const [i, sum] of sums.entries()) {
        f.store(state.plus(key.shl(2)), sumEach(f, sum), i * STATE_BYTES);
      }
    });
  });
}

/** Sums across the lanes of four vectors, as one vector. */
function sumEach(f: FunctionBuilder, [a, b, c, d]: readonly Local<"v128">[]): Value<"v128"> {
  const { ab, cd } = f.locals(vectors("ab", "cd"));
  const zipped = (x: Local<"v128">, y: Local<"v128">) =>
    v128.shuffle(x, y, [0, 4, 1, 5]).plus(v128.shuffle(x, y, [2, 6, 3, 7]));
  ab.set(zipped(a, b));
  cd.set(zipped(c, d));
  return v128.shuffle(ab, cd, [0, 1, 4, 5]).plus(v128.shuffle(ab, cd, [2, 3, 6, 7]));
}

/** Vectors of scores per iteration. */
const UNROLL = 4;

/**
 * Softmax of one query's scores without the division: weights in place, max and sum. A NaN score is
 * never the max; its weight is NaN.
 */
function weighWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
): Func<Ints<"state" | "keys">> {
  return m.define(ints("state", "keys"), "void", (f, { state, keys }) => {
    const { at, end } = f.locals(ints("at", "end"));
    const { max, index } = f.locals(vectors("max", "index"));
    const scores = f.array("v128", "score", UNROLL);
    const sums = f.array("v128", "sum", UNROLL);
    // Whole iterations: the state has room after the last key, and scores there are masked.
    const each = (body: (score: Local<"v128">, offset: number, i: number) => void) => {
      end.set(state.plus(keys.shl(2)));
      f.for(at, state, end, 16 * UNROLL, () => {
        for (const [i, score] of scores.entries()) body(score, 16 * i, i);
      });
    };
    const scaleAll = (masked: boolean) => {
      each((score, offset) => {
        score.set(v128.load(at, offset));
        scaleScore(score, math, shape);
        if (masked) {
          const inside = i32x4.gtS(i32x4.splat(keys), index);
          score.set(v128.select(score, f32x4.splat(-Infinity), inside));
          index.set(i32x4.add(index, i32x4.splat(4)));
        }
        f.store(at, score, offset);
        max.set(max.pmax(score));
      });
    };
    // Scale, mask, max.
    max.set(LOWEST);
    index.set(v128.const([0, 1, 2, 3]));
    f.if(keys.eq(TILE), () => scaleAll(false), () => scaleAll(true));
    max.set(max.pmax(v128.shuffle(max, max, [2, 3, 0, 1])));
    max.set(max.pmax(v128.shuffle(max, max, [1, 0, 3, 2])));
    f.store(state, f32x4.extractLane(max, 0), MAX);
    // Exponentials and their sum.
    each((score, offset, i) => {
      score.set(math.exp2(f, v128.load(at, offset).minus(max)));
      f.store(at, score, offset);
      sums[i].set(sums[i].plus(score));
    });
    const [sum, ...others] = sums;
    for (const other of others) sum.set(sum.plus(other));
    f.store(state, sumF32(sum), SUM);
  });
}

/** Scales and caps dot products; the results are exponents of 2. */
function scaleScore(
  score: Local<"v128">,
  math: VectorMath,
  { D, options: { scale = 1 / Math.sqrt(D), softCap } }: AttentionWasm,
): void {
  if (softCap) {
    score.set(math.tanh(score.times(scale / softCap)));
    score.set(score.times(softCap * Math.LOG2E));
  } else {
    score.set(score.times(scale * Math.LOG2E));
  }
}

/**
 * Prefetch of a tile's keys and values: loads a word of every cache line, in four parallel streams.
 * Memory serves them faster than the sequential loads of `tileWasm`.
 */
export function prefetchWasm(
  m: ModuleBuilder,
  D: number,
): Func<Ints<"state" | "k" | "v" | "first" | "last">> {
  const LINE = 64;
  const params = ints("state", "k", "v", "first", "last");
  return m.define(params, "void", (f, { state, k, v, first, last }) => {
    const { half, at, seen } = f.locals(ints("half", "at", "seen"));
    half.set(last.minus(first).times(2 * D));
    for (const from of [k, v]) from.advance(first.times(4 * D));
    f.for(at, 0, half, LINE, () => {
      for (const from of [k, v]) {
        const line = from.plus(at);
        seen.set(seen.or(i32.load(line).or(i32.load(line.plus(half)))));
      }
    });
    // Trick: keeps the loads alive; without a use the compiler drops them.
    f.store(state, seen, UNUSED);
  });
}

/** Queries of a value tile. */
const QUERIES = 4;

type AddParams = Ints<"sums" | "state" | "v" | "keys">;
const ADD_PARAMS = ints("sums", "state", "v", "keys");

/**
 * sums = weights · v for four queries, eight columns at a time: sums [4, D], weights [4, keys] in
 * the state, v [keys, D].
 */
function addFourWasm(m: ModuleBuilder, { madd }: VectorMath, D: number): Func<AddParams> {
  const eight = addColumnsWasm(m, madd, D, 2, 4);
  const rest = D % 8 > 0 ? addColumnsWasm(m, madd, D, Math.ceil((D % 8) / 4), D % 4 || 4) : null;
  return m.define(ADD_PARAMS, "void", (f, { sums, state, v, keys }) => {
    const at = f.local("int", "at");
    const columns = { sums: sums.plus(at), state, v: v.plus(at), keys };
    f.for(at, 0, 4 * (D - D % 8), 32, () => f.do(call(eight, columns)));
    if (rest) f.do(call(rest, columns));
  });
}

/** The same for `columns` vectors of columns; the last one has `lanes` valid lanes. */
function addColumnsWasm(
  m: ModuleBuilder,
  madd: MultiplyAdd,
  D: number,
  columns: number,
  lanes: number,
): Func<AddParams> {
  return m.define(ADD_PARAMS, "void", (f, { sums: to, state, v, keys }) => {
    const end = f.local("int", "end");
    const weights = f.array("v128", "weights", QUERIES);
    const weight = f.local("v128", "weight");
    const values = f.array("v128", "value", columns);
    const sums = weights.map((_, q) => f.array("v128", `sum${q}_`, columns));
    const add = (key: number, weightOf: (query: number) => Value<"v128">) => {
      for (const [j, value] of values.entries()) value.set(v128.load(v, 4 * key * D + 16 * j));
      for (const [q, sum] of sums.entries()) {
        weight.set(weightOf(q));
        for (const [j, s] of sum.entries()) s.set(madd(weight, values[j], s));
      }
    };
    // Four keys at a time, then one.
    end.set(state.plus(keys.and(-4).shl(2)));
    f.for(state, state, end, 16, () => {
      for (const [q, four] of weights.entries()) four.set(v128.load(state, q * STATE_BYTES));
      for (let key = 0; key < 4; key++) add(key, (q) => spread(weights[q], key));
      v.advance(4 * 4 * D);
    });
    end.set(state.plus(keys.and(3).shl(2)));
    f.for(state, state, end, 4, () => {
      add(0, (q) => v128.load32Splat(state, q * STATE_BYTES));
      v.advance(4 * D);
    });
    // Store.
    for (const [q, sum] of sums.entries()) {
      for (const [j, s] of sum.entries()) {
        storeLanes(f, to.plus(4 * q * D + 16 * j), s, j < columns - 1 ? 4 : lanes);
      }
    }
  });
}

/** The same for one query, row by row of v: memory serves sequential rows fastest. */
function addOneWasm(m: ModuleBuilder, { madd }: VectorMath, D: number): Func<AddParams> {
  return m.define(ADD_PARAMS, "void", (f, { sums, state, v, keys }) => {
    const { key, at } = f.locals(ints("key", "at"));
    const sum = f.local("v128", "sum");
    eachFour(f, at, D, (lanes) => storeLanes(f, sums.plus(at), f32x4.splat(0), lanes));
    const weights = f.array("v128", "weight", 8);
    const each = (count: number) => {
      const some = weights.slice(0, count);
      f.while(key.plus(count).le(keys), () => {
        for (const [i, weight] of some.entries()) weight.set(v128.load32Splat(state, 4 * i));
        eachFour(f, at, D, (lanes) => {
          sum.set(v128.load(sums.plus(at)));
          for (const [i, weight] of some.entries()) {
            sum.set(madd(weight, v128.load(v.plus(at), i * 4 * D), sum));
          }
          storeLanes(f, sums.plus(at), sum, lanes);
        });
        key.advance(count);
        state.advance(4 * count);
        v.advance(count * 4 * D);
      });
    };
    each(8);
    each(1);
  });
}

/**
 * What attention of one row does with a tile of keys in WASM; `wasm.ts` has who calls it.
 *
 * The queries are those of the heads that share the keys. Scores are sums along a head, two queries by four keys at a time; weights come of
 * them query by query; values are added by the weights four queries by eight columns at a time, as a matrix product is done.
 *
 * @module
 */
import { call, f32x4, type Func, i32, i32x4, v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder, Value } from "../../asm/assembler.ts";
import { eachFour, firstLanes, storeLanes, sumF32 } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import type { AttentionOptions, AttentionShape } from "./mod.ts";

/** The constants that the WASM form is specialised on. */
export interface AttentionWasm extends AttentionShape {
  /** The most rows of a run. */
  readonly T: number;
  readonly options: AttentionOptions;
}

/** Keys whose scores stand side by side: with them, keys and values of a tile stay in the first cache. */
export const TILE = 64;
/** Bytes of what an item keeps of each query: the scores of a tile, the greatest of them, and the total. */
export const QUERY_BYTES = 4 * TILE + 16;
export const [TOP, TOTAL] = [4 * TILE, 4 * TILE + 4];
const UNUSED = 4 * TILE + 8;
/** Less than any score. */
export const LOWEST = -3e38;

/** The first key that a query sees, of those before `seen`. */
export function firstKey(seen: Local<"i32">, window: number | undefined): Value<"i32"> {
  if (window === undefined) return i32.const(0);
  return i32.select(i32.sub(seen, window), 0, i32.gtU(seen, window));
}

/** A tile of keys for the queries that share them: sums, q, k, v, state, the tile's first key, and the end of its keys. */
export function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { H, G, D } = shape;
  const R = H / G;
  const [scoreTwo, scoreOne] = [2, 1].map((height) => scoresWasm(m, math, D, height));
  const weigh = weighWasm(m, math, shape);
  const addSome = addSomeWasm(m, math, D);
  const addOne = addOneWasm(m, math, D);
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, sums, q, k, v, state, first, last) => {
      const [query, at, keys] = [0, 1, 2].map(() => f.local("i32"));
      f.set(keys, i32.sub(last, first));
      for (const place of [k, v]) f.set(place, i32.add(place, i32.mul(first, 4 * D)));

      f.set(at, state);
      const score = (height: number, scores: typeof scoreOne) => {
        f.while(i32.leU(i32.add(query, height), R), () => {
          f.do(call(scores, q, k, at, keys));
          f.set(query, i32.add(query, height));
          f.set(q, i32.add(q, height * 4 * D));
          f.set(at, i32.add(at, height * QUERY_BYTES));
        });
      };
      score(2, scoreTwo);
      score(1, scoreOne);

      f.set(at, state);
      f.for(query, 0, R, 1, () => {
        f.do(call(weigh, at, keys));
        f.set(at, i32.add(at, QUERY_BYTES));
      });

      f.set(query, 0);
      const add = (height: number, adds: typeof addOne) => {
        f.while(i32.leU(i32.add(query, height), R), () => {
          f.do(call(adds, sums, state, v, keys));
          f.set(query, i32.add(query, height));
          f.set(sums, i32.add(sums, height * 4 * D));
          f.set(state, i32.add(state, height * QUERY_BYTES));
        });
      };
      add(QUERIES, addSome);
      add(1, addOne);
    },
  );
}

/** Products of some queries and the keys of a tile: q, k, state, how many keys. What stands behind the last of them means nothing. */
function scoresWasm(
  m: ModuleBuilder,
  math: VectorMath,
  D: number,
  height: number,
): Func<readonly ["i32", "i32", "i32", "i32"], "void"> {
  const KEYS = 4;
  return m.define(["i32", "i32", "i32", "i32"], "void", (f, q, k, state, keys) => {
    const [key, end] = [f.local("i32"), f.local("i32")];
    const places = [0, 1, 2, 3].map(() => f.local("i32"));
    const query = Array.from({ length: height }, () => f.local("v128"));
    const each = f.local("v128");
    const sums = query.map(() => places.map(() => f.local("v128")));
    f.set(end, i32.add(k, i32.mul(i32.sub(keys, 1), 4 * D)));
    f.for(key, 0, keys, KEYS, () => {
      // Behind the last key it is read again.
      for (const place of places) {
        f.set(place, i32.select(k, end, i32.ltU(k, end)));
        f.set(k, i32.add(k, 4 * D));
      }
      for (const sum of sums.flat()) f.set(sum, f32x4.splat(0));
      // Written out: a place and its offset cost less than a sum.
      for (let d = 0; d < D; d += 4) {
        const lanes = Math.min(4, D - d);
        for (const [i, numbers] of query.entries()) {
          f.set(numbers, firstLanes(v128.load(q, 4 * (i * D + d)), lanes));
        }
        for (const [j, place] of places.entries()) {
          f.set(each, firstLanes(v128.load(place, 4 * d), lanes));
          for (const [i, numbers] of query.entries()) {
            f.set(sums[i][j], math.madd(numbers, each, sums[i][j]));
          }
        }
      }
      for (const [i, sum] of sums.entries()) {
        f.store(i32.add(state, i32.shl(key, 2)), sumEach(f, sum), i * QUERY_BYTES);
      }
    });
  });
}

/** Vectors of scores that are done between two tests of the loop. */
const UNROLL = 4;

/** The sums of four vectors, as one. */
function sumEach(f: FunctionBuilder, [a, b, c, d]: readonly Local<"v128">[]): Value<"v128"> {
  const [ab, cd] = [f.local("v128"), f.local("v128")];
  const zipped = (x: Local<"v128">, y: Local<"v128">) =>
    f32x4.add(v128.shuffle(x, y, [0, 4, 1, 5]), v128.shuffle(x, y, [2, 6, 3, 7]));
  f.set(ab, zipped(a, b));
  f.set(cd, zipped(c, d));
  return f32x4.add(v128.shuffle(ab, cd, [0, 1, 4, 5]), v128.shuffle(ab, cd, [2, 3, 6, 7]));
}

/** Makes weights of one query's scores: state, and how many keys. A NaN among the scores does not count as the greatest; it stays one. */
function weighWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { D, options: { scale = 1 / Math.sqrt(D), softCap } }: AttentionWasm,
): Func<readonly ["i32", "i32"], "void"> {
  return m.define(["i32", "i32"], "void", (f, state, keys) => {
    const [at, end] = [f.local("i32"), f.local("i32")];
    const [top, index] = [f.local("v128"), f.local("v128")];
    const vectors = Array.from({ length: UNROLL }, () => f.local("v128"));
    const totals = vectors.map(() => f.local("v128"));
    // Whole turns: there is room behind the last key, and what is there weighs nothing.
    const each = (body: (s: Local<"v128">, offset: number, i: number) => void) => {
      f.set(end, i32.add(state, i32.shl(keys, 2)));
      f.for(at, state, end, 16 * UNROLL, () => {
        for (const [i, s] of vectors.entries()) body(s, 16 * i, i);
      });
    };
    // Scores as exponents of 2.
    const scores = (masked: boolean) => {
      each((s, offset) => {
        f.set(s, v128.load(at, offset));
        if (softCap) {
          f.set(s, call(math.tanh(), f32x4.mul(s, f32x4.splat(scale / softCap))));
          f.set(s, f32x4.mul(s, f32x4.splat(softCap * Math.LOG2E)));
        } else {
          f.set(s, f32x4.mul(s, f32x4.splat(scale * Math.LOG2E)));
        }
        if (masked) {
          const there = i32x4.gtS(i32x4.splat(keys), index);
          f.set(s, v128.select(s, f32x4.splat(-Infinity), there));
          f.set(index, i32x4.add(index, i32x4.splat(4)));
        }
        f.store(at, s, offset);
        f.set(top, f32x4.pmax(top, s));
      });
    };
    f.set(top, f32x4.splat(LOWEST));
    f.set(index, v128.const([0, 1, 2, 3]));
    f.if(i32.eq(keys, TILE), () => scores(false), () => scores(true));
    f.set(top, f32x4.pmax(top, v128.shuffle(top, top, [2, 3, 0, 1])));
    f.set(top, f32x4.pmax(top, v128.shuffle(top, top, [1, 0, 3, 2])));
    f.store(state, f32x4.extractLane(top, 0), TOP);
    each((s, offset, i) => {
      f.set(s, math.exp2(f, f32x4.sub(v128.load(at, offset), top)));
      f.store(at, s, offset);
      f.set(totals[i], f32x4.add(totals[i], s));
    });
    const [total, ...others] = totals;
    for (const other of others) f.set(total, f32x4.add(total, other));
    f.store(state, sumF32(total), TOTAL);
  });
}

/**
 * Has the keys and values of a tile come into the cache, in four streams side by side, which memory answers faster than the one after
 * the other that they are worked with: state, k, v, the first key, and the end of the keys.
 */
export function fetchWasm(
  m: ModuleBuilder,
  D: number,
): Func<readonly ["i32", "i32", "i32", "i32", "i32"], "void"> {
  const LINE = 64;
  return m.define(["i32", "i32", "i32", "i32", "i32"], "void", (f, state, k, v, first, last) => {
    const [half, at, seen] = [0, 1, 2].map(() => f.local("i32"));
    f.set(half, i32.mul(i32.sub(last, first), 2 * D));
    for (const from of [k, v]) f.set(from, i32.add(from, i32.mul(first, 4 * D)));
    f.for(at, 0, half, LINE, () => {
      for (const from of [k, v]) {
        const place = i32.add(from, at);
        f.set(seen, i32.or(seen, i32.or(i32.load(place), i32.load(i32.add(place, half)))));
      }
    });
    f.store(state, seen, UNUSED); // else nobody would have to read it
  });
}

/** Queries that values are added up for at once. */
const QUERIES = 4;

/** Adds values by their weights for some queries, eight columns at a time: sums, state, v, how many keys. */
function addSomeWasm(
  m: ModuleBuilder,
  { madd }: VectorMath,
  D: number,
): Func<readonly ["i32", "i32", "i32", "i32"], "void"> {
  /** Some vectors of columns; the last may have fewer lanes. */
  const columns = (vectors: number, lanes: number) =>
    m.define(["i32", "i32", "i32", "i32"], "void", (f, y, state, v, keys) => {
      const end = f.local("i32");
      const weights = Array.from({ length: QUERIES }, () => f.local("v128"));
      const weight = f.local("v128");
      const values = Array.from({ length: vectors }, () => f.local("v128"));
      const sums = weights.map(() => values.map(() => f.local("v128")));
      const places = sums.flatMap((sum, q) =>
        sum.map((s, j) => ({ s, offset: 4 * q * D + 16 * j, j }))
      );
      const add = (key: number, weightOf: (query: number) => Value<"v128">) => {
        for (const [j, each] of values.entries()) f.set(each, v128.load(v, 4 * key * D + 16 * j));
        for (const [q, sum] of sums.entries()) {
          f.set(weight, weightOf(q));
          for (const [j, s] of sum.entries()) f.set(s, madd(weight, values[j], s));
        }
      };
      f.set(end, i32.add(state, i32.shl(i32.and(keys, -4), 2)));
      f.for(state, state, end, 16, () => {
        for (const [q, w] of weights.entries()) f.set(w, v128.load(state, q * QUERY_BYTES));
        for (let key = 0; key < 4; key++) {
          add(key, (q) => v128.shuffle(weights[q], weights[q], [key, key, key, key]));
        }
        f.set(v, i32.add(v, 4 * 4 * D));
      });
      f.set(end, i32.add(state, i32.shl(i32.and(keys, 3), 2)));
      f.for(state, state, end, 4, () => {
        add(0, (q) => v128.load32Splat(state, q * QUERY_BYTES));
        f.set(v, i32.add(v, 4 * D));
      });
      for (const { s, offset, j } of places) {
        storeLanes(f, i32.add(y, offset), s, j < vectors - 1 ? 4 : lanes);
      }
    });
  const eight = columns(2, 4);
  const rest = D % 8 > 0 ? columns(Math.ceil((D % 8) / 4), D % 4 || 4) : null;
  return m.define(["i32", "i32", "i32", "i32"], "void", (f, y, state, v, keys) => {
    const at = f.local("i32");
    f.for(at, 0, 4 * (D - D % 8), 32, () => {
      f.do(call(eight, i32.add(y, at), state, i32.add(v, at), keys));
    });
    if (rest) f.do(call(rest, i32.add(y, at), state, i32.add(v, at), keys));
  });
}

/** The same for one query, row after row of values: from memory they come best in their order. */
function addOneWasm(
  m: ModuleBuilder,
  math: VectorMath,
  D: number,
): Func<readonly ["i32", "i32", "i32", "i32"], "void"> {
  return m.define(["i32", "i32", "i32", "i32"], "void", (f, y, state, v, keys) => {
    const [key, at] = [f.local("i32"), f.local("i32")];
    const sum = f.local("v128");
    eachFour(f, at, D, (lanes) => storeLanes(f, i32.add(y, at), f32x4.splat(0), lanes));
    const weights = Array.from({ length: 8 }, () => f.local("v128"));
    const some = (count: number) => {
      f.while(i32.leU(i32.add(key, count), keys), () => {
        for (const [i, w] of weights.slice(0, count).entries()) {
          f.set(w, v128.load32Splat(state, 4 * i));
        }
        eachFour(f, at, D, (lanes) => {
          f.set(sum, v128.load(i32.add(y, at)));
          for (const [i, w] of weights.slice(0, count).entries()) {
            f.set(sum, math.madd(w, v128.load(i32.add(v, at), i * 4 * D), sum));
          }
          storeLanes(f, i32.add(y, at), sum, lanes);
        });
        f.set(key, i32.add(key, count));
        f.set(state, i32.add(state, 4 * count));
        f.set(v, i32.add(v, count * 4 * D));
      });
    };
    some(8);
    some(1);
  });
}

/**
 * Attention of many rows in WASM; `wasm.ts` has who calls it.
 *
 * Eight rows of a head, or four, are worked with at once, each in a lane of its own: their queries are turned so that a number of a
 * key meets all of them, and scores, weights, maxima and totals then stand side by side without a sum along a vector. Scores and sums
 * are matrix products of four keys or four queries by eight, with inputs spread as `matmul/wasm_rows.ts` does it, for its reasons. A
 * value that is not finite reaches all rows of the block in which one sees it.
 *
 * @module
 */
import { call, f32x4, type Func, i32, i32x4, v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { eachFour, storeLanes } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { type AttentionWasm, firstKey, LOWEST, TILE } from "./wasm_tile.ts";

/** Keys, or queries, by eight: what fills the registers. */
const FOUR = 4;
/** Numbers of a head between two tests of the loop. */
const UNROLL = 8;

/** Rows of a block, when runs have T at most. */
export function blockRows(T: number): number {
  return T > 4 ? 8 : 4;
}

/** What an item keeps, in bytes from the start of its thread's scratch. */
interface Layout {
  /** Rows of a block. */
  readonly block: number;
  /** Bytes of a number of each row … */
  readonly line: number;
  /** … and its vectors. */
  readonly vectors: readonly number[];
  /** The greatest scores before this tile, and with it. */
  readonly top: number;
  readonly next: number;
  readonly total: number;
  /** What sums are multiplied by when there is a new maximum. */
  readonly turn: number;
  /** Scores of a tile, then weights: [TILE, block]. */
  readonly scores: number;
  /** Queries, turned: [D, block]. */
  readonly queries: number;
  /** [block, D], rows so many bytes apart. */
  readonly sums: number;
  readonly pitch: number;
  readonly bytes: number;
}

function layoutOf({ T, D }: Pick<AttentionWasm, "T" | "D">): Layout {
  const block = blockRows(T);
  const line = 4 * block;
  const pitch = 16 * Math.ceil(D / 4);
  const queries = (4 + TILE) * line;
  const sums = queries + block * pitch;
  return {
    block,
    line,
    vectors: block > 4 ? [0, 16] : [0],
    top: 0,
    next: line,
    total: 2 * line,
    turn: 3 * line,
    scores: 4 * line,
    queries,
    sums,
    pitch,
    bytes: sums + block * pitch,
  };
}

/** Bytes of scratch that each thread needs. */
export function manyScratch(shape: Pick<AttentionWasm, "T" | "D">): number {
  return layoutOf(shape).bytes;
}

/** The kernel: y, q, k, v and the threads' scratch. A block of rows of one head is an item; the last rows, which see most, come first. */
export function manyWasm(m: ModuleBuilder, math: VectorMath, shape: AttentionWasm): Kernel {
  const { T, H, G, D, S, options: { window } } = shape;
  const layout = layoutOf(shape);
  const { block } = layout;
  const blocks = Math.ceil(T / block);
  const start = startWasm(m, shape, layout);
  const tile = tileWasm(m, math, shape, layout);
  const finish = finishWasm(m, shape, layout);
  return defineKernel(m, 5, (f, [y, q, k, v, scratch], { rows, length, begin, end }) => {
    const [item, head, row, count, seen] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
    const [at, kv, first, last] = [0, 1, 2, 3].map(() => f.local("i32"));
    f.set(scratch, i32.add(scratch, i32.mul(m.thread.get, layout.bytes)));
    f.for(item, begin, end, 1, () => {
      f.set(row, i32.mul(i32.sub(blocks - 1, i32.remU(item, blocks)), block));
      f.if(i32.ltU(row, rows), () => {
        f.set(head, i32.divU(item, blocks));
        f.set(count, i32.sub(rows, row));
        f.set(count, i32.select(count, block, i32.ltU(count, block)));
        f.set(at, i32.mul(i32.add(i32.mul(row, H), head), 4 * D));
        f.set(kv, i32.mul(i32.divU(head, H / G), 4 * S * D));
        // Keys that the block's first row sees, and its last.
        f.set(seen, i32.add(i32.sub(length, rows), i32.add(row, 1)));
        f.set(last, i32.add(seen, i32.sub(count, 1)));
        f.do(call(start, scratch, i32.add(q, at), count));
        f.for(first, firstKey(seen, window), last, TILE, () => {
          f.do(call(tile, scratch, i32.add(k, kv), i32.add(v, kv), first, last, seen));
        });
        f.do(call(finish, i32.add(y, at), scratch, count));
      });
    });
  });
}

/** Turns a block's queries, and starts from no sum and no score: scratch, q, and how many rows there are; the last one stands for those that there are not. */
function startWasm(
  m: ModuleBuilder,
  { H, D, options: { scale = 1 / Math.sqrt(D), softCap } }: AttentionWasm,
  { line, vectors, top, next, total, queries, sums, bytes }: Layout,
): Func<readonly ["i32", "i32", "i32"], "void"> {
  // Scores are exponents of 2; what a cap is applied to has its own scale.
  const factor = softCap ? scale / softCap : scale * Math.LOG2E;
  return m.define(["i32", "i32", "i32"], "void", (f, scratch, q, count) => {
    const [at, end, last] = [0, 1, 2].map(() => f.local("i32"));
    const rows = Array.from({ length: FOUR }, () => f.local("i32"));
    const numbers = rows.map(() => f.local("v128"));
    f.set(last, i32.add(q, i32.mul(i32.sub(count, 1), 4 * H * D)));
    for (const half of vectors) {
      for (const row of rows) {
        f.set(row, i32.select(q, last, i32.ltU(q, last)));
        f.set(q, i32.add(q, 4 * H * D));
      }
      f.set(at, i32.add(scratch, queries + half));
      f.set(end, i32.add(at, sums - queries));
      f.while(i32.ltU(at, end), () => {
        for (const [i, row] of rows.entries()) {
          f.set(numbers[i], f32x4.mul(v128.load(row), f32x4.splat(factor)));
          f.set(row, i32.add(row, 16));
        }
        transpose(f, numbers);
        for (const [i, each] of numbers.entries()) f.store(at, each, i * line);
        f.set(at, i32.add(at, 4 * line));
      });
      for (const place of [top, next]) f.store(scratch, f32x4.splat(LOWEST), place + half);
      f.store(scratch, f32x4.splat(0), total + half);
    }
    f.set(end, i32.add(scratch, bytes));
    f.for(at, i32.add(scratch, sums), end, 16, () => f.store(at, f32x4.splat(0)));
  });
}

/** Four vectors as the rows of a matrix: its columns. */
function transpose(f: FunctionBuilder, [a, b, c, d]: readonly Local<"v128">[]): void {
  const zipped = (x: Local<"v128">, y: Local<"v128">) =>
    [[0, 4, 1, 5], [2, 6, 3, 7]].map((lanes) => {
      const pairs = f.local("v128");
      f.set(pairs, v128.shuffle(x, y, lanes));
      return pairs;
    });
  const [ab01, ab23] = zipped(a, b);
  const [cd01, cd23] = zipped(c, d);
  f.set(a, v128.shuffle(ab01, cd01, [0, 1, 4, 5]));
  f.set(b, v128.shuffle(ab01, cd01, [2, 3, 6, 7]));
  f.set(c, v128.shuffle(ab23, cd23, [0, 1, 4, 5]));
  f.set(d, v128.shuffle(ab23, cd23, [2, 3, 6, 7]));
}

/** One tile of keys for a block: scratch, k, v, the tile's first key, the end of the keys, and how many keys the first row sees. */
function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
  layout: Layout,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const { D, options: { window } } = shape;
  const [plain, masked] = [false, true].map((some) => scoresWasm(m, math, shape, layout, some));
  const weigh = weighWasm(m, math, layout);
  const add = addWasm(m, math, D, layout);
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, scratch, k, v, first, last, seen) => {
      const [keys, from, to, past] = [0, 1, 2, 3].map(() => f.local("i32"));
      f.set(keys, i32.sub(last, first));
      f.set(keys, i32.select(keys, TILE, i32.ltU(keys, TILE)));
      for (const place of [k, v]) f.set(place, i32.add(place, i32.mul(first, 4 * D)));
      // Every row sees keys from … to of the tile; `past` is the first key counted from the end of what the first row sees.
      f.set(past, i32.sub(first, seen));
      f.set(to, i32.sub(0, past));
      f.set(to, i32.select(keys, to, i32.gtS(to, keys)));
      f.set(to, i32.and(i32.select(0, to, i32.gtS(0, to)), -FOUR));
      const scores = (some: typeof plain, begin: Local<"i32">, end: Local<"i32">) =>
        f.do(call(some, scratch, k, begin, end, keys, past));
      if (window !== undefined) {
        const zero = f.local("i32");
        f.set(from, i32.sub(layout.block - 1 - window, past));
        f.set(from, i32.and(i32.add(from, FOUR - 1), -FOUR));
        f.set(from, i32.select(0, from, i32.gtS(0, from)));
        f.set(from, i32.select(to, from, i32.gtS(from, to)));
        scores(masked, zero, from);
      }
      scores(plain, from, to);
      scores(masked, to, keys);
      f.do(call(weigh, scratch, keys));
      f.do(call(add, scratch, v, keys));
    },
  );
}

/**
 * Scores of a block and of some keys of a tile, and their maxima: scratch, k, the keys from … to, how many the tile has, and how far its
 * first one is past what the first row sees. A row's score of a key that it does not see is −∞.
 */
function scoresWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { D, options: { softCap, window } }: AttentionWasm,
  { line, vectors, next, scores, queries }: Layout,
  masked: boolean,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, scratch, k, key, to, keys, past) => {
      const [at, end, places] = [f.local("i32"), f.local("i32"), f.local("i32")];
      const numbers = Array.from({ length: FOUR }, () => f.local("v128"));
      const each = f.local("v128");
      const query = vectors.map(() => f.local("v128"));
      const tops = vectors.map(() => f.local("v128"));
      // Four sums are few: twice as many wait less for each other.
      const chains = Array.from(
        { length: 2 / vectors.length },
        () => numbers.map(() => vectors.map(() => f.local("v128"))),
      );
      const [sums, ...others] = chains;
      const rows = numbers.map(() => f.local("i32"));
      for (const [h, top] of tops.entries()) f.set(top, v128.load(scratch, next + vectors[h]));
      const multiply = (d: number, ofLine: number) => {
        for (const [h, q] of query.entries()) {
          f.set(q, v128.load(at, queries + ofLine + vectors[h]));
        }
        for (const [i, sum] of chains[d % chains.length].entries()) {
          f.set(each, v128.shuffle(numbers[i], numbers[i], [d, d, d, d]));
          for (const [h, s] of sum.entries()) f.set(s, math.madd(each, query[h], s));
        }
      };
      const some = (count: number) => {
        for (let from = 0; from < count; from += 4) {
          for (const [i, row] of rows.entries()) {
            const place = masked ? { row, offset: 0 } : { row: rows[0], offset: 4 * i * D };
            f.set(numbers[i], v128.load(place.row, place.offset + 4 * from));
          }
          for (let d = from; d < Math.min(from + 4, count); d++) multiply(d % 4, d * line);
        }
        for (const row of masked ? rows : [rows[0]]) f.set(row, i32.add(row, 4 * count));
        f.set(at, i32.add(at, count * line));
      };
      f.for(key, key, to, FOUR, () => {
        for (const [i, row] of rows.entries()) {
          if (!masked && i > 0) break;
          // Behind the last key it is read again, which nobody sees.
          const place = i32.add(key, i);
          const last = i32.sub(keys, 1);
          f.set(row, masked ? i32.select(place, last, i32.ltU(place, keys)) : place);
          f.set(row, i32.add(k, i32.mul(row, 4 * D)));
        }
        for (const s of chains.flat(2)) f.set(s, f32x4.splat(0));
        f.set(at, scratch);
        f.set(end, i32.add(scratch, line * (D - D % UNROLL)));
        f.while(i32.ltU(at, end), () => some(UNROLL));
        if (D % UNROLL) some(D % UNROLL);
        f.set(places, i32.add(scratch, i32.mul(key, line)));
        for (const [i, sum] of sums.entries()) {
          for (const [h, s] of sum.entries()) {
            for (const other of others) f.set(s, f32x4.add(s, other[i][h]));
            if (softCap) {
              f.set(s, f32x4.mul(call(math.tanh(), s), f32x4.splat(softCap * Math.LOG2E)));
            }
            if (masked) {
              const seen = seeing(4 * h, i32.add(i32.add(past, key), i), window);
              f.set(s, v128.select(s, f32x4.splat(-Infinity), seen));
            }
            f.store(places, s, scores + i * line + vectors[h]);
            f.set(tops[h], f32x4.pmax(tops[h], s));
          }
        }
      });
      for (const [h, top] of tops.entries()) f.store(scratch, top, next + vectors[h]);
    },
  );
}

/** Which of the four rows from `first` on see a key that is so far past what the block's first row sees. */
function seeing(
  first: number,
  past: Value<"i32">,
  window: number | undefined,
): Value<"v128"> {
  const rows = v128.const([0, 1, 2, 3].map((row) => first + row));
  const before = i32x4.gtS(rows, i32x4.splat(past));
  if (window === undefined) return before;
  return v128.and(before, i32x4.gtS(i32x4.splat(i32.add(past, window + 1)), rows));
}

/** Makes weights of a tile's scores, and totals: scratch, and how many keys. A NaN among the scores does not count as a maximum; it stays one. */
function weighWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { line, vectors, top, next, total, turn, scores }: Layout,
): Func<readonly ["i32", "i32"], "void"> {
  return m.define(["i32", "i32"], "void", (f, scratch, keys) => {
    const [at, end] = [f.local("i32"), f.local("i32")];
    const weight = f.local("v128");
    const tops = vectors.map(() => f.local("v128"));
    const totals = vectors.map(() => f.local("v128"));
    const weigh = (score: Value<"v128">, h: number) =>
      f.set(weight, math.exp2(f, f32x4.sub(score, tops[h])));
    for (const [h, half] of vectors.entries()) {
      f.set(tops[h], v128.load(scratch, next + half));
      weigh(v128.load(scratch, top + half), h);
      f.store(scratch, tops[h], top + half);
      f.store(scratch, weight, turn + half);
      f.set(totals[h], f32x4.mul(v128.load(scratch, total + half), weight));
    }
    f.set(end, i32.add(scratch, i32.mul(keys, line)));
    f.for(at, scratch, end, FOUR * line, () => {
      for (let i = 0; i < FOUR; i++) {
        for (const [h, half] of vectors.entries()) {
          weigh(v128.load(at, scores + i * line + half), h);
          f.store(at, weight, scores + i * line + half);
          f.set(totals[h], f32x4.add(totals[h], weight));
        }
      }
    });
    for (const [h, half] of vectors.entries()) f.store(scratch, totals[h], total + half);
  });
}

/** Adds values by their weights, for four rows and eight columns at a time: scratch, v, and how many keys. */
function addWasm(
  m: ModuleBuilder,
  { madd }: VectorMath,
  D: number,
  { line, vectors: fours, turn, scores, sums: sumsAt, pitch }: Layout,
): Func<readonly ["i32", "i32", "i32"], "void"> {
  /** Some vectors of columns: where four rows' sums are, and what belongs to the four. */
  const columns = (vectors: number) =>
    m.define(["i32", "i32", "i32", "i32"], "void", (f, to, four, v, keys) => {
      const [at, end] = [f.local("i32"), f.local("i32")];
      const weights = Array.from({ length: FOUR }, () => f.local("v128"));
      const weight = f.local("v128");
      const values = Array.from({ length: vectors }, () => f.local("v128"));
      const sums = weights.map(() => values.map(() => f.local("v128")));
      const spread = (v: Local<"v128">, row: number) => v128.shuffle(v, v, [row, row, row, row]);
      const add = (key: number, weightsOf: Local<"v128">) => {
        for (const [j, each] of values.entries()) f.set(each, v128.load(v, 4 * key * D + 16 * j));
        for (const [row, sum] of sums.entries()) {
          f.set(weight, spread(weightsOf, row));
          for (const [j, s] of sum.entries()) f.set(s, madd(weight, values[j], s));
        }
      };
      f.set(weights[0], v128.load(four, turn));
      for (const [row, sum] of sums.entries()) {
        f.set(weight, spread(weights[0], row));
        for (const [j, s] of sum.entries()) {
          f.set(s, f32x4.mul(v128.load(to, row * pitch + 16 * j), weight));
        }
      }
      f.set(at, four);
      const some = (count: number, from: Local<"i32">) => {
        f.for(at, from, end, count * line, () => {
          for (const [key, w] of weights.slice(0, count).entries()) {
            f.set(w, v128.load(at, scores + key * line));
          }
          for (const [key, w] of weights.slice(0, count).entries()) add(key, w);
          f.set(v, i32.add(v, count * 4 * D));
        });
      };
      f.set(end, i32.add(four, i32.mul(i32.and(keys, -FOUR), line)));
      some(FOUR, four);
      f.set(end, i32.add(four, i32.mul(keys, line)));
      some(1, at);
      for (const [row, sum] of sums.entries()) {
        for (const [j, s] of sum.entries()) f.store(to, s, row * pitch + 16 * j);
      }
    });
  const eight = columns(2);
  const rest = D % 8 > 0 ? columns(Math.ceil((D % 8) / 4)) : null;
  return m.define(["i32", "i32", "i32"], "void", (f, scratch, v, keys) => {
    const at = f.local("i32");
    const each = (some: typeof eight) => {
      for (const [h, half] of fours.entries()) {
        const to = i32.add(i32.add(scratch, at), sumsAt + h * FOUR * pitch);
        f.do(call(some, to, i32.add(scratch, half), i32.add(v, at), keys));
      }
    };
    f.for(at, 0, 4 * (D - D % 8), 32, () => each(eight));
    if (rest) each(rest);
  });
}

/** Divides sums by their totals: y, scratch, and how many rows. */
function finishWasm(
  m: ModuleBuilder,
  { H, D }: AttentionWasm,
  { total, sums, pitch }: Layout,
): Func<readonly ["i32", "i32", "i32"], "void"> {
  return m.define(["i32", "i32", "i32"], "void", (f, y, scratch, count) => {
    const [from, row, at] = [f.local("i32"), f.local("i32"), f.local("i32")];
    const factor = f.local("v128");
    f.set(from, scratch);
    f.for(row, 0, count, 1, () => {
      f.set(factor, v128.load32Splat(i32.add(scratch, i32.shl(row, 2)), total));
      f.set(factor, f32x4.div(f32x4.splat(1), factor));
      eachFour(f, at, D, (lanes) => {
        const mean = f32x4.mul(v128.load(i32.add(from, at), sums), factor);
        storeLanes(f, i32.add(y, at), mean, lanes);
      });
      f.set(y, i32.add(y, 4 * H * D));
      f.set(from, i32.add(from, pitch));
    });
  });
}

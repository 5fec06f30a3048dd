/**
 * Prefill attention in WASM: FlashAttention, blocks of 8 rows (4 if T ≤ 4) × tiles of 64 keys.
 *
 * For a block of queries, with running max m, sum s and out o (Dao, FlashAttention-2, 2023):
 *
 *     scores       x = q · kᵀ · scale · log₂e, capped and masked      x [64 keys, 8 rows]
 *                  m' = max(m, x)
 *     weights      w = 2^(x − m'),  r = 2^(m − m')
 *     accumulate   s = r · s + Σ w,  o = r · o + w · v                o [8 rows, D]
 *     finish       y = o / s
 *
 * Queries are transposed, one row per lane: one number of a key multiplies all rows at once, and
 * max and sum need no reduction across lanes. Scores and values are register tiles of 4 × 8, or of
 * 8 × 8 where V8 joins pairs of vectors to 256 bits (`asm/join.ts`), with inputs broadcast by
 * shuffles as in `matmul/wasm_rows.ts`. A non-finite value reaches all rows of
 * a block if one of them sees it. `wasm.ts` calls this kernel if T > 1.
 *
 * @module
 */
import { call, f32x4, type Func, i32, i32x4, type Ints, ints } from "../../asm/assembler.ts";
import { v128, type Value, vectors } from "../../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { joinPairs, type PairLoads } from "../../asm/join.ts";
import { eachFour, spread, storeLanes } from "../../asm/lanes.ts";
import type { MultiplyAdd, VectorMath } from "../../asm/math.ts";
import { kvRowBytes } from "../../formats/kv.ts";
import { kvFormatOfShape } from "../kv_cache/mod.ts";
import { FOUR, type Layout, layoutOf, loadLine, pairsOf } from "./wasm_prefill_layout.ts";
import { addWasm, weighWasm } from "./wasm_prefill_values.ts";
import { type AttentionWasm, firstKey, LOWEST, TILE } from "./wasm_tile.ts";
import { unpackedBytes, unpackWasm } from "./wasm_unpack.ts";

/** Numbers of a head per iteration of the inner loop. */
const UNROLL = 8;

/** Bytes of scratch per thread: the block's, then a tile of an unpacked cache. */
export function prefillScratch(shape: Pick<AttentionWasm, "T" | "D" | "kv">): number {
  return layoutOf(shape, "128").bytes + unpackedBytes(shape);
}

/**
 * The prefill kernel. An item is a block of rows of one head; the last rows, which see the most
 * keys, come first, so that the longest items do not end the run.
 */
export function prefillWasm(m: ModuleBuilder, math: VectorMath, shape: AttentionWasm): Kernel {
  const { T, H, G, D, S, options: { window } } = shape;
  const layout = layoutOf(shape, math.simd);
  const { block } = layout;
  const blocks = Math.ceil(T / block);
  const start = startWasm(m, shape, layout);
  const tile = tileWasm(m, math, shape, layout);
  const finish = finishWasm(m, shape, layout);
  const unpack = unpackWasm(m, shape);
  return defineKernel(m, ["y", "q", "k", "v", "scratch"], (f, params) => {
    const { y, q, k, v, scratch, rows, length, begin, end } = params;
    const { item, head, row, count, seen } = f.locals(
      ints("item", "head", "row", "count", "seen"),
    );
    const { at, kv, first, last } = f.locals(ints("at", "kv", "first", "last"));
    scratch.advance(m.thread.get.times(prefillScratch(shape)));
    f.for(item, begin, end, 1, () => {
      row.set(f.int(blocks - 1).minus(item.rem(blocks)).times(block));
      f.if(row.lt(rows), () => {
        head.set(item.div(blocks));
        count.set(rows.minus(row));
        count.atMost(block);
        at.set(row.times(H).plus(head).times(4 * D));
        kv.set(head.div(H / G).times(S * kvRowBytes(kvFormatOfShape(shape), D)));
        // Number of keys that the block's first row sees, and that its last row sees.
        seen.set(length.minus(rows).plus(row.plus(1)));
        last.set(seen.plus(count.minus(1)));
        f.do(call(start, { scratch, q: q.plus(at), count }));
        f.for(first, firstKey(seen, window), last, TILE, () => {
          const stored = { k: k.plus(kv), v: v.plus(kv), first, last };
          const keys = unpack?.(f, scratch.plus(layout.bytes), stored) ?? stored;
          f.do(call(tile, { scratch, first, last, seen, ...keys }));
        });
        f.do(call(finish, { y: y.plus(at), scratch, count }));
      });
    });
  });
}

/**
 * Transposes the block's queries, and clears max, sum and out. Missing rows repeat the last of
 * `count`.
 */
function startWasm(
  m: ModuleBuilder,
  { H, D, options: { scale = 1 / Math.sqrt(D), softCap } }: AttentionWasm,
  { line, halves, max, newMax, sum, queries, out, bytes }: Layout,
): Func<Ints<"scratch" | "q" | "count">> {
  // Scores are exponents of 2; with a soft cap c, the dot products are divided by c.
  const factor = softCap ? scale / softCap : scale * Math.LOG2E;
  return m.define(ints("scratch", "q", "count"), "void", (f, { scratch, q, count }) => {
    const { at, end, lastRow } = f.locals(ints("at", "end", "lastRow"));
    const rows = f.array("int", "row", FOUR);
    const numbers = f.array("v128", "numbers", FOUR);
    lastRow.set(q.plus(count.minus(1).times(4 * H * D)));
    for (const half of halves) {
      for (const row of rows) {
        row.set(q.min(lastRow));
        q.advance(4 * H * D);
      }
      at.set(scratch.plus(queries + half));
      end.set(at.plus(out - queries));
      f.while(at.lt(end), () => {
        for (const [i, row] of rows.entries()) {
          numbers[i].set(v128.load(row).times(factor));
          row.advance(16);
        }
        transpose(f, numbers);
        for (const [i, column] of numbers.entries()) f.store(at, column, i * line);
        at.advance(4 * line);
      });
      for (const place of [max, newMax]) f.store(scratch, f32x4.splat(LOWEST), place + half);
      f.store(scratch, f32x4.splat(0), sum + half);
    }
    end.set(scratch.plus(bytes));
    f.for(at, scratch.plus(out), end, 16, () => f.store(at, f32x4.splat(0)));
  });
}

/** Transposes a 4×4 matrix in place. */
function transpose(f: FunctionBuilder, [a, b, c, d]: readonly Local<"v128">[]): void {
  const { ab01, ab23, cd01, cd23 } = f.locals(vectors("ab01", "ab23", "cd01", "cd23"));
  ab01.set(v128.shuffle(a, b, [0, 4, 1, 5]));
  ab23.set(v128.shuffle(a, b, [2, 6, 3, 7]));
  cd01.set(v128.shuffle(c, d, [0, 4, 1, 5]));
  cd23.set(v128.shuffle(c, d, [2, 6, 3, 7]));
  a.set(v128.shuffle(ab01, cd01, [0, 1, 4, 5]));
  b.set(v128.shuffle(ab01, cd01, [2, 3, 6, 7]));
  c.set(v128.shuffle(ab23, cd23, [0, 1, 4, 5]));
  d.set(v128.shuffle(ab23, cd23, [2, 3, 6, 7]));
}

type TileParams = Ints<"scratch" | "k" | "v" | "first" | "last" | "seen">;

/**
 * Attends a block to a tile: keys first … last − 1, at most 64, of k, v [S, D]. The block's first
 * row sees keys 0 … seen − 1, each later row one more. Only keys that some rows do not see are
 * masked; offsets from the tile's first key:
 *
 *     0             from                to              keys
 *     │   masked    │    seen by all    │     masked    │
 *     │ (window)    │                   │    (causal)   │
 */
function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  shape: AttentionWasm,
  layout: Layout,
): Func<TileParams> {
  const { D, options: { window } } = shape;
  const [plain, masked] = [false, true].map((mask) => scoresWasm(m, math, shape, layout, mask));
  const weigh = weighWasm(m, math, layout);
  const add = addWasm(m, math, D, layout);
  const params = ints("scratch", "k", "v", "first", "last", "seen");
  return m.define(params, "void", (f, { scratch, k, v, first, last, seen }) => {
    const { keys, from, to, past } = f.locals(ints("keys", "from", "to", "past"));
    const scores = (func: typeof plain, key: Local<Int>, end: Local<Int>) =>
      f.do(call(func, { scratch, k, key, to: end, keys, past }));
    keys.set(last.minus(first));
    keys.atMost(TILE);
    for (const row of [k, v]) row.advance(first.times(4 * D));
    // Keys between the first row's visible range and the tile; negative if the row sees a part of
    // the tile.
    past.set(first.minus(seen));
    to.set(f.int(0).minus(past));
    to.set(to.minS(keys));
    to.set(to.maxS(0).and(-layout.height));
    if (window !== undefined) {
      const zero = f.local("int", "zero");
      from.set(f.int(layout.block - 1 - window).minus(past));
      from.set(from.plus(layout.height - 1).and(-layout.height));
      from.clampS(0, to);
      scores(masked, zero, from);
    }
    scores(plain, from, to);
    scores(masked, to, keys);
    f.do(call(weigh, { scratch, keys }));
    f.do(call(add, { scratch, v, keys }));
  });
}

type ScoreParams = Ints<"scratch" | "k" | "key" | "to" | "keys" | "past">;

/**
 * Scores of keys key … to − 1 of a tile of `keys` keys, and their max. If `masked`, the score of a
 * key that a row does not see is −∞.
 */
function scoresWasm(
  m: ModuleBuilder,
  math: VectorMath,
  { D, options: { softCap, window } }: AttentionWasm,
  layout: Layout,
  masked: boolean,
): Func<ScoreParams> {
  const { line, halves, height, newMax, scores } = layout;
  const params = ints("scratch", "k", "key", "to", "keys", "past");
  return m.define(params, "void", (f, { scratch, k, key, to, keys, past }) => {
    const { at, end, place } = f.locals(ints("at", "end", "place"));
    const numbers = f.array("v128", "numbers", height);
    const number = f.local("v128", "number");
    const pairs = pairsOf(f, math, layout);
    const query = f.array("v128", "query", halves.length);
    const max = f.array("v128", "max", halves.length);
    // Four sums cannot hide a multiply-add's latency: with one vector a line, use two chains.
    const chains = Array.from(
      { length: 2 / halves.length },
      (_, c) => numbers.map((_, i) => f.array("v128", `sum${c}_${i}_`, halves.length)),
    );
    const [sums, ...others] = chains;
    // Masked: a pointer per key, since missing keys repeat the last one. Else: offsets from the
    // first key.
    const rows = f.array("int", "row", height).slice(0, masked ? height : 1);
    const registers = { at, rows, numbers, number, query, pairs, chains };
    const multiply = (count: number) => addProducts(math.madd, D, layout, registers, count);
    /** Finishes the scores of key i for half h of the rows: soft cap, mask, store, max. */
    const finishScore = (score: Local<"v128">, i: number, h: number) => {
      for (const other of others) score.set(score.plus(other[i][h]));
      if (softCap) score.set(math.tanh(score).times(softCap * Math.LOG2E));
      if (masked) {
        const seen = seenBy(4 * h, past.plus(key).plus(i), window);
        score.set(v128.select(score, f32x4.splat(-Infinity), seen));
      }
      f.store(place, score, scores + i * line + halves[h]);
      max[h].set(max[h].pmax(score));
    };

    for (const [h, half] of halves.entries()) max[h].set(v128.load(scratch, newMax + half));
    f.for(key, key, to, height, () => {
      for (const [i, row] of rows.entries()) {
        const index = key.plus(i);
        // Missing keys repeat the last one; their scores are masked.
        row.set(masked ? i32.select(index, keys.minus(1), index.lt(keys)) : index);
        row.set(k.plus(row.times(4 * D)));
      }
      for (const sum of chains.flat(2)) sum.set(0);
      at.set(scratch);
      end.set(scratch.plus(line * (D - D % UNROLL)));
      f.while(at.lt(end), () => multiply(UNROLL));
      if (D % UNROLL) multiply(D % UNROLL);
      if (pairs) joinPairs(f, at, sums.flat(), pairs);
      place.set(scratch.plus(key.times(line)));
      for (const [i, sum] of sums.entries()) {
        for (const [h, score] of sum.entries()) finishScore(score, i, h);
      }
    });
    for (const [h, half] of halves.entries()) f.store(scratch, max[h], newMax + half);
  });
}

/** Variables of the inner loop of `scoresWasm`. */
interface ScoreRegisters {
  /** Address of the scratch plus the offset of the current line of queries. */
  readonly at: Local<Int>;
  /** Pointers to the four keys, or to the first if the others follow it. */
  readonly rows: readonly Local<Int>[];
  /** Four numbers of each key. */
  readonly numbers: readonly Local<"v128">[];
  /** One number of a key, in all lanes. */
  readonly number: Local<"v128">;
  /** A line of the queries. */
  readonly query: readonly Local<"v128">[];
  /** How to load it, if its vectors are joined. */
  readonly pairs: PairLoads | null;
  /** Sums by chain, key and half. */
  readonly chains: readonly (readonly (readonly Local<"v128">[])[])[];
}

/** Adds the products of `count` numbers of each key and query, and advances the pointers. */
function addProducts(
  madd: MultiplyAdd,
  D: number,
  { line, queries }: Layout,
  { at, rows, numbers, number, query, pairs, chains }: ScoreRegisters,
  count: number,
): void {
  for (let d = 0; d < count; d++) {
    if (d % 4 === 0) {
      for (const [i, four] of numbers.entries()) {
        const [row, offset] = rows.length > 1 ? [rows[i], 0] : [rows[0], 4 * i * D];
        four.set(v128.load(row, offset + 4 * d));
      }
    }
    loadLine(query, at, queries + d * line, pairs);
    for (const [i, sum] of chains[d % chains.length].entries()) {
      number.set(spread(numbers[i], d % 4));
      for (const [h, s] of sum.entries()) s.set(madd(number, query[h], s));
    }
  }
  for (const row of rows) row.advance(4 * count);
  at.advance(count * line);
}

/**
 * Mask of the rows first … first + 3 that see a key. `past` is the key's index minus the number of
 * keys that the block's first row sees: row i sees it if i > past (and i < past + window + 1).
 */
function seenBy(first: number, past: Value<Int>, window: number | undefined): Value<"v128"> {
  const rows = v128.const([0, 1, 2, 3].map((row) => first + row));
  const causal = i32x4.gtS(rows, i32x4.splat(past));
  if (window === undefined) return causal;
  return causal.and(i32x4.gtS(i32x4.splat(past.plus(window + 1)), rows));
}

/** y [count, D] = out / sum. */
function finishWasm(
  m: ModuleBuilder,
  { H, D }: AttentionWasm,
  { sum, out, pitch }: Layout,
): Func<Ints<"y" | "scratch" | "count">> {
  return m.define(ints("y", "scratch", "count"), "void", (f, { y, scratch, count }) => {
    const { from, row, at } = f.locals(ints("from", "row", "at"));
    const factor = f.local("v128", "factor");
    from.set(scratch);
    f.for(row, 0, count, 1, () => {
      factor.set(v128.load32Splat(scratch.plus(row.shl(2)), sum));
      factor.set(f32x4.splat(1).div(factor));
      eachFour(f, at, D, (lanes) => {
        storeLanes(f, y.plus(at), v128.load(from.plus(at), out).times(factor), lanes);
      });
      y.advance(4 * H * D);
      from.advance(pitch);
    });
  });
}

/**
 * Weights and weighted values of prefill attention in WASM; `wasm_prefill.ts` has the formulas.
 *
 * @module
 */
import { call, type Func, type Ints, ints, v128 } from "../../asm/assembler.ts";
import type { Int, Local, ModuleBuilder } from "../../asm/assembler.ts";
import { joinPairs } from "../../asm/join.ts";
import { spread } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { FOUR, type Layout, loadLine, pairsOf } from "./wasm_prefill_layout.ts";

/**
 * Softmax step: converts a tile's scores to weights, and updates max, sum and rescale. A NaN score
 * is never the max; its weight is NaN.
 */
export function weighWasm(
  m: ModuleBuilder,
  math: VectorMath,
  layout: Layout,
): Func<Ints<"scratch" | "keys">> {
  const { line, halves, max: maxAt, newMax, sum: sumAt, rescale, scores } = layout;
  return m.define(ints("scratch", "keys"), "void", (f, { scratch, keys }) => {
    const { at, end } = f.locals(ints("at", "end"));
    const pairs = pairsOf(f, math, layout);
    const [weight, max, sum] = ["weight", "max", "sum"].map((name) =>
      f.array("v128", name, halves.length)
    );
    const load = (into: typeof max, at: Local<Int>, offset: number) =>
      loadLine(into, at, offset, pairs);
    const weigh = () => {
      for (const [h, w] of weight.entries()) w.set(math.exp2(f, w.minus(max[h])));
    };
    const store = (to: Local<Int>, line: typeof max, offset: number) => {
      if (pairs) joinPairs(f, at, line, pairs);
      for (const [h, v] of line.entries()) f.store(to, v, offset + halves[h]);
    };
    // Rescale.
    load(max, scratch, newMax);
    load(weight, scratch, maxAt);
    weigh();
    load(sum, scratch, sumAt);
    for (const [h, s] of sum.entries()) s.set(s.times(weight[h]));
    store(scratch, weight, rescale);
    for (const half of halves) f.store(scratch, v128.load(scratch, newMax + half), maxAt + half);
    // Exponentials and their sum.
    end.set(scratch.plus(keys.times(line)));
    f.for(at, scratch, end, FOUR * line, () => {
      for (let i = 0; i < FOUR; i++) {
        load(weight, at, scores + i * line);
        weigh();
        for (const [h, s] of sum.entries()) s.set(s.plus(weight[h]));
        store(at, weight, scores + i * line);
      }
    });
    store(scratch, sum, sumAt);
  });
}

/** out = rescale · out + weights · v, in tiles of 8 columns; v [keys, D]. */
export function addWasm(
  m: ModuleBuilder,
  math: VectorMath,
  D: number,
  layout: Layout,
): Func<Ints<"scratch" | "v" | "keys">> {
  const { out, pitch, block, height } = layout;
  const groups = Array.from({ length: block / height }, (_, i) => i * height);
  const eight = addColumnsWasm(m, math, D, layout, 2);
  const rest = D % 8 > 0 ? addColumnsWasm(m, math, D, layout, Math.ceil((D % 8) / 4)) : null;
  return m.define(ints("scratch", "v", "keys"), "void", (f, { scratch, v, keys }) => {
    const at = f.local("int", "at");
    const each = (columns: typeof eight) => {
      for (const first of groups) {
        const to = scratch.plus(at).plus(out + first * pitch);
        f.do(call(columns, { to, rows: scratch.plus(4 * first), v: v.plus(at), keys }));
      }
    };
    f.for(at, 0, 4 * (D - D % 8), 32, () => each(eight));
    if (rest) each(rest);
  });
}

/**
 * The same for the rows of a tile and `columns` vectors of columns. `to` is their address in `out`,
 * `rows` that of the scratch plus the offset of the rows in a line.
 */
function addColumnsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  D: number,
  layout: Layout,
  columns: number,
): Func<Ints<"to" | "rows" | "v" | "keys">> {
  const { line, height, rescale, scores, pitch } = layout;
  return m.define(ints("to", "rows", "v", "keys"), "void", (f, { to, rows, v, keys }) => {
    const { at, end } = f.locals(ints("at", "end"));
    const pairs = columns === 2 ? pairsOf(f, math, layout) : null;
    // Weights of four rows, by key, then group of rows.
    const weights = Array.from(
      { length: FOUR },
      (_, key) => f.array("v128", `weights${key}_`, height / FOUR),
    );
    const weight = f.local("v128", "weight");
    const values = f.array("v128", "value", columns);
    const sums = Array.from(
      { length: height },
      (_, row) => f.array("v128", `sum${row}_`, columns),
    );
    const loadWeights = (key: number, at: Local<Int>, offset: number) => {
      for (const [g, four] of weights[key].entries()) four.set(v128.load(at, offset + 16 * g));
    };
    const weightOf = (key: number, row: number) => {
      weight.set(spread(weights[key][Math.floor(row / FOUR)], row % FOUR));
      return weight;
    };
    const addKey = (key: number) => {
      loadLine(values, v, 4 * key * D, pairs);
      for (const [row, sum] of sums.entries()) {
        weightOf(key, row);
        for (const [j, s] of sum.entries()) s.set(math.madd(weight, values[j], s));
      }
    };
    const eachKeys = (count: number, from: Local<Int>) => {
      f.for(at, from, end, count * line, () => {
        for (let key = 0; key < count; key++) loadWeights(key, at, scores + key * line);
        for (let key = 0; key < count; key++) addKey(key);
        v.advance(count * 4 * D);
      });
    };
    // Rescale.
    loadWeights(0, rows, rescale);
    for (const [row, sum] of sums.entries()) {
      loadLine(sum, to, row * pitch, pairs);
      weightOf(0, row);
      for (const s of sum) s.set(s.times(weight));
    }
    // Accumulate.
    at.set(rows);
    end.set(rows.plus(keys.and(-FOUR).times(line)));
    eachKeys(FOUR, rows);
    end.set(rows.plus(keys.times(line)));
    eachKeys(1, at);
    // Store.
    if (pairs) joinPairs(f, at, sums.flat(), pairs);
    for (const [row, sum] of sums.entries()) {
      for (const [j, s] of sum.entries()) f.store(to, s, row * pitch + 16 * j);
    }
  });
}

/**
 * Top-k and top-p thresholds in WASM, by bisection over sortable keys (`wasm_keys.ts`).
 *
 *     top-k   the k-th greatest key
 *     top-p   the least key such that greater keys have a mass of at most p · total
 *
 * @module
 */
import {
  call,
  f32,
  f32x4,
  f64,
  f64x2,
  i32,
  i32x4,
  ints,
  v128,
  vectors,
} from "../../asm/assembler.ts";
import type { Func, Int, Ints, Local, ModuleBuilder, Operand, Value } from "../../asm/assembler.ts";
import { REDUCTION } from "./mod.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { sumPairs } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import {
  DRAWN,
  entry,
  GREATEST_KEY,
  GREEDY,
  GROUP,
  LEAST_KEY,
  NO_KEY,
  PART,
  PART_BYTES,
  REFUSED,
  sampleWasmScratch,
  type Scale,
  STATE,
  valueOf,
  valuesOf,
} from "./wasm_keys.ts";

/** Iterations of `search` between compactions of its lists. */
const ROUNDS = 3;

/** Top-k kernel: best key, threshold, and the mode of the draw (`REFUSED`, `GREEDY`, `DRAWN`). */
export function topKWasm(m: ModuleBuilder, scale: Scale, search: Search, V: number): Kernel {
  const lists = ["keys", "maxima", "listKeys", "listMasses", "state"] as const;
  const operands = ["logits", "settings", "seen", ...lists] as const;
  const bytes = sampleWasmScratch(V);
  return defineKernel(m, operands, (f, params) => {
    const { settings, keys, maxima, listKeys, listMasses, state } = params;
    const { bestKey, threshold, at, end, key, count } = f.locals(
      ints("bestKey", "threshold", "at", "end", "key", "count"),
    );
    const topK = f32.load(settings, 4);
    const append = () => {
      f.store(entry(listKeys, count), key);
      f.store(entry(listMasses, count), f32.const(1));
      count.advance(1);
    };
    const eachMaximum = (body: () => void) => {
      f.for(at, maxima, maxima.plus(bytes.maxima), 4, () => {
        key.set(i32.load(at));
        body();
      });
    };
    /** Appends the keys of a group that are at least the threshold. */
    const appendGroup = () => {
      end.set(at.plus(GROUP * 4));
      f.while(at.lt(end), () => {
        key.set(i32.load(at));
        f.if(key.ge(threshold), append);
        at.advance(4);
      });
      at.set(at.minus(GROUP * 4));
    };
    /** The k-th greatest key of the list; it is at least `low`. */
    const kth = (low: Operand<Int>) => {
      const lists = { keys: listKeys, masses: listMasses, count };
      return call(search, { ...lists, low, high: bestKey, limit: truncated(topK).minus(1) });
    };
    const findThreshold = () => {
      // Bound: at least k keys are at least the k-th greatest maximum.
      eachMaximum(append);
      threshold.set(kth(1));
      count.set(0);
      f.for(at, keys, keys.plus(bytes.keys), GROUP * 4, () => {
        f.if(reaches(v128.load(maxima), threshold), appendGroup);
        maxima.advance(16);
      });
      threshold.set(kth(threshold));
    };

    /** Divides all logits by 2⁶⁴ once more. */
    const reduce = () => {
      const parts = { begin: 0, end: Math.ceil(V / PART) };
      f.do(call(scale, { ...params, ...parts, reduction: REDUCTION }));
      bestKey.set(0);
      eachMaximum(() => bestKey.set(key.max(bestKey)));
    };

    eachMaximum(() => bestKey.set(key.max(bestKey)));
    const isInfinite = bestKey.gt(GREATEST_KEY).or(bestKey.lt(LEAST_KEY));
    f.if(isInfinite.and(bestKey.ne(NO_KEY)), reduce);
    f.store(state, bestKey, STATE.bestKey);
    f.store(state, i32.const(DRAWN), STATE.draws);
    f.if(f32.load(settings).eq(0), () => {
      f.store(state, i32.const(GREEDY), STATE.draws);
      threshold.set(bestKey);
    }, () => {
      f.if(topK.gt(0).and(topK.lt(V)), findThreshold);
    });
    f.if(threshold.lt(LEAST_KEY), () => threshold.set(LEAST_KEY));
    f.if(bestKey.eq(NO_KEY), () => f.store(state, i32.const(REFUSED), STATE.draws));
    f.store(state, threshold, STATE.threshold);
  });
}

/** Whether one of four keys is at least `key`. */
function reaches(keys: Value<"v128">, key: Local<Int>): Value<Int> {
  return v128.anyTrue(i32x4.geU(keys, i32x4.splat(key)));
}

function truncated(v: Value<"f32">): Value<"f64"> {
  return f64.convertI32U(i32.truncF32U(v));
}

/** Whether top-p applies: p < 1, and the draw is random. */
function cutsMass(settings: Local<Int>, state: Local<Int>): Value<Int> {
  return f32.load(settings, 8).lt(1).and(i32.load(state, STATE.draws).eq(DRAWN));
}

/**
 * Mass kernel: e^(s − max) of the keys that are at least top-k's threshold, 0 of others, and the
 * sum per part.
 */
export function massWasm(m: ModuleBuilder, math: VectorMath, V: number): Kernel {
  return defineKernel(m, ["settings", "keys", "masses", "parts", "state"], (f, params) => {
    const { settings, keys, masses, parts, state, begin, end } = params;
    const { part, id, last, threshold, bestKey } = f.locals(
      ints("part", "id", "last", "threshold", "bestKey"),
    );
    const { key, mass, max, sum } = f.locals(vectors("key", "mass", "max", "sum"));
    f.if(cutsMass(settings, state), () => {
      threshold.set(i32.load(state, STATE.threshold));
      bestKey.set(i32.load(state, STATE.bestKey));
      max.set(f32x4.splat(valueOf(bestKey)));
      f.for(part, begin, end, 1, () => {
        sum.set(i32x4.splat(0));
        last.set(part.plus(1).times(PART));
        last.atMost(V);
        f.for(id, part.times(PART), last, 4, () => {
          key.set(v128.load(entry(keys, id)));
          mass.set(i32x4.geU(key, i32x4.splat(threshold)));
          f.if(v128.anyTrue(mass), () => {
            mass.set(mass.and(math.exp(valuesOf(key).minus(max))));
            sum.set(f64x2.add(sum, sumPairs(mass)));
          });
          f.store(entry(masses, id), mass);
        });
        f.store(entry(parts, part.shl(2)), sumF64(sum), 8);
      });
    });
  });
}

/**
 * Top-p kernel. Masses have the order of their keys, and are spread more evenly over the range of a
 * bisection: so it searches for the least kept mass, then takes the least key with that mass.
 */
export function topPWasm(m: ModuleBuilder, search: Search, V: number): Kernel {
  const lists = ["listKeys", "listMasses"] as const;
  const operands = ["settings", "keys", "masses", ...lists, "parts", "state"] as const;
  return defineKernel(m, operands, (f, params) => {
    const { settings, keys, masses, listKeys, listMasses, parts, state } = params;
    const { id, lane, count, bits } = f.locals(ints("id", "lane", "count", "bits"));
    const { total, p } = f.locals({ total: "f64", p: "f64" });
    const least = f.local("f32", "least");
    const { key, lowest, kept } = f.locals(vectors("key", "lowest", "kept"));
    const appendFour = () => {
      f.for(lane, id, id.plus(4), 1, () => {
        bits.set(i32.load(entry(masses, lane)));
        f.store(entry(listKeys, count), bits);
        f.store(entry(listMasses, count), bits);
        count.advance(1);
      });
    };
    /** Bits of the least mass such that greater masses sum to at most p · total. */
    const leastMass = () => {
      const [low, high] = [f32x4.splat(least), f32x4.splat(1)].map((v) => i32x4.extractLane(v, 0));
      const lists = { keys: listKeys, masses: listMasses, count };
      return call(search, { ...lists, low, high, limit: p.times(total) });
    };
    const minLanes = (order: readonly number[]) =>
      lowest.set(i32x4.minU(lowest, v128.shuffle(lowest, lowest, order)));

    f.if(cutsMass(settings, state), () => {
      // Sum of all masses.
      f.for(id, 0, PART_BYTES * Math.ceil(V / PART), PART_BYTES, () => {
        total.set(total.plus(f64.load(parts.plus(id), 8)));
      });
      p.set(f64.promoteF32(f32.load(settings, 8)));
      // Lower bound: masses up to the threshold sum to at least (1 − p) · total, so the threshold
      // is at least 1/V of that. Half of it leaves room for rounding.
      const share = f64.const(1).minus(p).times(total.times(0.5 / V));
      least.set(f32.demoteF64(share));
      // List candidate masses.
      f.for(id, 0, V, 4, () => {
        kept.set(v128.load(entry(masses, id)).gt(f32x4.splat(least)));
        f.if(v128.anyTrue(kept), appendFour);
      });
      bits.set(leastMass());
      // Least key of that mass.
      lowest.set(i32x4.splat(-1));
      f.for(id, 0, V, 4, () => {
        const reached = i32x4.geU(v128.load(entry(masses, id)), i32x4.splat(bits));
        key.set(v128.load(entry(keys, id)));
        key.set(key.or(reached.xor(i32x4.splat(-1))));
        lowest.set(i32x4.minU(lowest, key));
      });
      minLanes([2, 3, 0, 1]);
      minLanes([1, 0, 3, 2]);
      f.store(state, i32x4.extractLane(lowest, 0), STATE.threshold);
    });
  });
}

/**
 * Searches `count` keys and their masses (F32) for a threshold in low … high; `limit` bounds the
 * mass of greater keys.
 */
export type Search = Func<
  Ints<"keys" | "masses" | "count" | "low" | "high"> & { readonly limit: "f64" },
  "int"
>;

/**
 * Bisection: the least key in low … high such that greater keys have a mass of at most `limit`.
 * Every third iteration compacts the lists in place:
 *
 *     keys, masses  │ kept │ free │ not yet read │
 *                          ▲ to   ▲ at           ▲ count
 *
 * The mass of a dropped key above the range is added to `beyond`; keys below the range are dropped.
 */
export function searchWasm(m: ModuleBuilder): Search {
  const params = { ...ints("keys", "masses", "count", "low", "high"), limit: "f64" } as const;
  return m.define(params, "int", (f, { keys, masses, count, low, high, limit }) => {
    const { middle, at, to, end, key, round } = f.locals(
      ints("middle", "at", "to", "end", "key", "round"),
    );
    const { above, beyond } = f.locals({ above: "f64", beyond: "f64" });
    const { sum, greater } = f.locals(vectors("sum", "greater"));
    /** Mass of the keys above `middle`. */
    const sumAbove = () => {
      sum.set(i32x4.splat(0));
      to.set(masses);
      f.for(at, keys, end, 16, () => {
        greater.set(i32x4.gtU(v128.load(at), i32x4.splat(middle)));
        greater.set(greater.and(v128.load(to)));
        sum.set(f64x2.add(sum, sumPairs(greater)));
        to.advance(16);
      });
      above.set(beyond.plus(sumF64(sum)));
    };
    /** Drops the keys outside low … high. */
    const compact = () => {
      to.set(0);
      f.for(at, 0, count.shl(2), 4, () => {
        key.set(i32.load(keys.plus(at)));
        const mass = f32.load(masses.plus(at));
        // Trick: copy every entry and advance only if it is kept, so the next one overwrites it: no
        // branch.
        f.store(keys.plus(to), key);
        f.store(masses.plus(to), mass);
        f.if(key.gt(high), () => beyond.set(beyond.plus(f64.promoteF32(mass))));
        // Trick: one unsigned comparison tests both ends of the range.
        const inside = key.minus(low).le(high.minus(low));
        to.advance(inside.shl(2));
      });
      count.set(to.shr(2));
    };

    f.while(low.lt(high), () => {
      // Pad to whole vectors with keys of 0, which are above no key.
      end.set(entry(keys, count));
      f.store(end, i32x4.splat(0));
      middle.set(low.plus(high.minus(low).shr(1)));
      sumAbove();
      f.if(above.gt(limit), () => low.set(middle.plus(1)), () => high.set(middle));
      round.advance(1);
      f.if(round.eq(ROUNDS), () => {
        round.set(0);
        compact();
      });
    });
    return low;
  });
}

function sumF64(v: Local<"v128">): Value<"f64"> {
  return f64x2.extractLane(v, 0).plus(f64x2.extractLane(v, 1));
}

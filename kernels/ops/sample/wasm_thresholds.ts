/**
 * The thresholds of `sample` in WASM: the k-th greatest key, then the least key that top-p keeps.
 *
 * @module
 */
import { call, f32, f32x4, f64, f64x2, type Func, i32, i32x4, v128 } from "../../asm/assembler.ts";
import type { Local, ModuleBuilder, Operand, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { sumPairs } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import {
  DRAWN,
  entry,
  GREEDY,
  GROUP,
  LEAST_KEY,
  minimum,
  NO_KEY,
  PART,
  PART_BYTES,
  REFUSED,
  sampleWasmScratch,
  STATE,
  valueOf,
  valuesOf,
} from "./wasm_keys.ts";

/** The lists of `search` are gone through this often before what fell out of the range is dropped. */
const ROUNDS = 3;

/** The first threshold, and whether there is anything to draw. */
export function topKWasm(m: ModuleBuilder, search: Search, V: number): Kernel {
  return defineKernel(m, 6, (f, [settings, keys, maxima, listKeys, listMasses, state]) => {
    const [bestKey, threshold, at, end, key, count] = [0, 1, 2, 3, 4, 5].map(() => f.local("i32"));
    const { maxima: bytes } = sampleWasmScratch(V);
    const topK = f32.load(settings, 4);
    const append = () => {
      f.store(entry(listKeys, count), key);
      f.store(entry(listMasses, count), f32.const(1));
      f.set(count, i32.add(count, 1));
    };
    const kth = (floor: Operand<"i32">) =>
      call(search, listKeys, listMasses, count, floor, bestKey, f64.sub(truncated(topK), 1));

    f.for(at, maxima, i32.add(maxima, bytes), 4, () => {
      f.set(key, i32.load(at));
      f.set(bestKey, i32.select(key, bestKey, i32.gtU(key, bestKey)));
    });
    f.store(state, bestKey, STATE.bestKey);
    f.store(state, i32.const(DRAWN), STATE.draws);
    f.if(f32.eq(f32.load(settings), 0), () => {
      f.store(state, i32.const(GREEDY), STATE.draws);
      f.set(threshold, bestKey);
    }, () => {
      f.if(i32.and(f32.gt(topK, 0), f32.lt(topK, V)), () => {
        // At least k keys reach the k-th of the greatest ones.
        f.for(at, maxima, i32.add(maxima, bytes), 4, () => {
          f.set(key, i32.load(at));
          append();
        });
        f.set(threshold, kth(1));
        f.set(count, 0);
        f.for(at, keys, i32.add(keys, sampleWasmScratch(V).keys), GROUP * 4, () => {
          f.if(reaches(v128.load(maxima), threshold), () => {
            f.set(end, i32.add(at, GROUP * 4));
            f.while(i32.ltU(at, end), () => {
              f.set(key, i32.load(at));
              f.if(i32.geU(key, threshold), append);
              f.set(at, i32.add(at, 4));
            });
            f.set(at, i32.sub(at, GROUP * 4));
          });
          f.set(maxima, i32.add(maxima, 16));
        });
        f.set(threshold, kth(threshold));
      });
    });
    f.if(i32.ltU(threshold, LEAST_KEY), () => f.set(threshold, LEAST_KEY));
    f.if(i32.eq(bestKey, NO_KEY), () => f.store(state, i32.const(REFUSED), STATE.draws));
    f.store(state, threshold, STATE.threshold);
  });
}

/** Whether one of four keys reaches another. */
function reaches(keys: Value<"v128">, key: Local<"i32">): Value<"i32"> {
  return v128.anyTrue(i32x4.geU(keys, i32x4.splat(key)));
}

function truncated(v: Value<"f32">): Value<"f64"> {
  return f64.convertI32U(i32.truncF32U(v));
}

/** Whether top-p is asked for, of a draw that is one. */
function cutsMass(settings: Local<"i32">, state: Local<"i32">): Value<"i32"> {
  return i32.and(f32.lt(f32.load(settings, 8), 1), i32.eq(i32.load(state, STATE.draws), DRAWN));
}

/** e^(s − max) of what reaches the first threshold, 0 of the rest, and the totals of parts. */
export function massWasm(m: ModuleBuilder, math: VectorMath, V: number): Kernel {
  return defineKernel(m, 5, (f, [settings, keys, masses, parts, state], { begin, end }) => {
    const [part, id, last, threshold] = [0, 1, 2, 3].map(() => f.local("i32"));
    const bestKey = f.local("i32");
    const [key, v, max, total] = [0, 1, 2, 3].map(() => f.local("v128"));
    f.if(cutsMass(settings, state), () => {
      f.set(threshold, i32.load(state, STATE.threshold));
      f.set(bestKey, i32.load(state, STATE.bestKey));
      f.set(max, f32x4.splat(valueOf(bestKey)));
      f.for(part, begin, end, 1, () => {
        f.set(total, i32x4.splat(0));
        f.set(last, i32.mul(i32.add(part, 1), PART));
        f.set(last, minimum(last, V));
        f.for(id, i32.mul(part, PART), last, 4, () => {
          f.set(key, v128.load(entry(keys, id)));
          f.set(v, i32x4.geU(key, i32x4.splat(threshold)));
          f.if(v128.anyTrue(v), () => {
            f.set(v, v128.and(v, call(math.exp(), f32x4.sub(valuesOf(key), max))));
            f.set(total, f64x2.add(total, sumPairs(v)));
          });
          f.store(entry(masses, id), v);
        });
        f.store(entry(parts, i32.shl(part, 2)), sumF64(total), 8);
      });
    });
  });
}

/**
 * The second threshold. Masses order as their keys do, and lie more evenly in the range that is halved: so the least mass that is
 * kept is looked for, and then the least key that has it.
 */
export function topPWasm(m: ModuleBuilder, search: Search, V: number): Kernel {
  return defineKernel(
    m,
    7,
    (f, [settings, keys, masses, listKeys, listMasses, parts, state]) => {
      const [id, lane, count, bits] = [0, 1, 2, 3].map(() => f.local("i32"));
      const [total, p] = [f.local("f64"), f.local("f64")];
      const least = f.local("f32");
      const [key, lowest, kept] = [0, 1, 2].map(() => f.local("v128"));
      f.if(cutsMass(settings, state), () => {
        f.for(id, 0, PART_BYTES * Math.ceil(V / PART), PART_BYTES, () => {
          f.set(total, f64.add(total, f64.load(i32.add(parts, id), 8)));
        });
        f.set(p, f64.promoteF32(f32.load(settings, 8)));
        // What is below the threshold has more than 1 − p in all, so that the threshold has a V-th of it; half of that, to be safe.
        const share = f64.mul(f64.sub(1, p), f64.mul(total, 0.5 / V));
        f.set(least, f32.demoteF64(share));
        f.for(id, 0, V, 4, () => {
          f.set(kept, f32x4.gt(v128.load(entry(masses, id)), f32x4.splat(least)));
          f.if(v128.anyTrue(kept), () => {
            f.for(lane, id, i32.add(id, 4), 1, () => {
              f.set(bits, i32.load(entry(masses, lane)));
              f.store(entry(listKeys, count), bits);
              f.store(entry(listMasses, count), bits);
              f.set(count, i32.add(count, 1));
            });
          });
        });
        const [low, high] = [f32x4.splat(least), f32x4.splat(1)].map((v) =>
          i32x4.extractLane(v, 0)
        );
        f.set(bits, call(search, listKeys, listMasses, count, low, high, f64.mul(p, total)));

        f.set(lowest, i32x4.splat(-1));
        f.for(id, 0, V, 4, () => {
          const reached = i32x4.geU(v128.load(entry(masses, id)), i32x4.splat(bits));
          f.set(key, v128.load(entry(keys, id)));
          f.set(key, v128.or(key, v128.xor(reached, i32x4.splat(-1))));
          f.set(lowest, i32x4.minU(lowest, key));
        });
        f.set(lowest, i32x4.minU(lowest, v128.shuffle(lowest, lowest, [2, 3, 0, 1])));
        f.set(lowest, i32x4.minU(lowest, v128.shuffle(lowest, lowest, [1, 0, 3, 2])));
        f.store(state, i32x4.extractLane(lowest, 0), STATE.threshold);
      });
    },
  );
}

/** Keys, their masses in F32, how many, the least and the greatest key that may be, and a limit. */
export type Search = Func<readonly ["i32", "i32", "i32", "i32", "i32", "f64"], "i32">;

/** The least key of a range such that the keys that are greater have a mass of at most `limit`. Uses its lists up. */
export function searchWasm(m: ModuleBuilder): Search {
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "f64"],
    "i32",
    (f, keys, masses, count, low, high, limit) => {
      const [middle, at, to, end, key, round] = [0, 1, 2, 3, 4, 5].map(() => f.local("i32"));
      const [above, beyond] = [f.local("f64"), f.local("f64")];
      const [sum, greater] = [f.local("v128"), f.local("v128")];
      f.while(i32.ltU(low, high), () => {
        // Whole vectors: a key of 0 is greater than none.
        f.set(end, entry(keys, count));
        f.store(end, i32x4.splat(0));
        f.set(middle, i32.add(low, i32.shrU(i32.sub(high, low), 1)));
        f.set(sum, i32x4.splat(0));
        f.set(to, masses);
        f.for(at, keys, end, 16, () => {
          f.set(greater, i32x4.gtU(v128.load(at), i32x4.splat(middle)));
          f.set(greater, v128.and(greater, v128.load(to)));
          f.set(sum, f64x2.add(sum, sumPairs(greater)));
          f.set(to, i32.add(to, 16));
        });
        f.set(above, f64.add(beyond, sumF64(sum)));
        f.if(f64.gt(above, limit), () => f.set(low, i32.add(middle, 1)), () => f.set(high, middle));
        f.set(round, i32.add(round, 1));
        f.if(i32.eq(round, ROUNDS), () => {
          f.set(round, 0);
          f.set(to, 0);
          f.for(at, 0, i32.shl(count, 2), 4, () => {
            f.set(key, i32.load(i32.add(keys, at)));
            f.store(i32.add(keys, to), key);
            f.store(i32.add(masses, to), f32.load(i32.add(masses, at)));
            f.if(i32.gtU(key, high), () => {
              f.set(beyond, f64.add(beyond, f64.promoteF32(f32.load(i32.add(masses, at)))));
            });
            const inside = i32.leU(i32.sub(key, low), i32.sub(high, low));
            f.set(to, i32.add(to, i32.shl(inside, 2)));
          });
          f.set(count, i32.shrU(to, 2));
        });
      });
      return low;
    },
  );
}

function sumF64(v: Local<"v128">): Value<"f64"> {
  return f64.add(f64x2.extractLane(v, 0), f64x2.extractLane(v, 1));
}

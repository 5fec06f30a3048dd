/**
 * The WASM form of `sample`: thresholds by bisection over the keys of floats.
 *
 * @module
 */
import { NOT_FINITE, ROTATIONS } from "./mod.ts";
import { call, f32, f64, f64x2, type Func, i32, i32x4, i64x2 } from "../wasm/assembler.ts";
import { type ModuleBuilder, type Operand, v128, type Value } from "../wasm/assembler.ts";
import { sumI32 } from "../wasm/lanes.ts";
import type { MathFuncs } from "../wasm/math.ts";

/** Bytes of the scratch of `sampleWasm`: a key for each id, and its probability in F64, both up to a whole vector. */
export function sampleWasmScratch(V: number): { keys: number; masses: number } {
  const ids = Math.ceil(V / 4) * 4;
  return { keys: 4 * ids, masses: 8 * ids };
}

/** Keys order as the numbers do, unsigned. Those of infinities and beyond are never drawn. */
const LEAST_KEY = 0x00800000;

const keyOf = (v: Value<"f32">): Value<"i32"> => {
  const bits = i32.reinterpretF32(v);
  return i32.xor(bits, i32.or(i32.shrS(bits, 31), 0x80000000));
};
const valueOf = (key: Value<"i32">): Value<"f32"> =>
  f32.reinterpretI32(i32.xor(key, i32.or(i32.xor(i32.shrS(key, 31), -1), 0x80000000)));

/**
 * The WASM form: addresses of ids, logits, settings, counter, seen, drawn and of the two parts of the scratch in. The
 * thresholds are found by halving the range of keys, 32 times, with a count or a sum over all ids at each.
 */
export function sampleWasm(
  m: ModuleBuilder,
  math: MathFuncs,
  V: number,
  R: number,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const countFrom = countWasm(m, V);
  const massAbove = massWasm(m, V);
  const gumbel = gumbelWasm(m, math);
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, ids, logits, settings, counter, seen, drawn, keys, masses) => {
      const [id, key, best, bestKey, finite] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
      const [threshold, bit, lowest, draw] = [0, 1, 2, 3].map(() => f.local("i32"));
      const [value, bestValue] = [f.local("f32"), f.local("f32")];
      const [divisor, max, mass, total] = [0, 1, 2, 3].map(() => f.local("f64"));
      const entry = (base: Operand<"i32">, i: Value<"i32">) => i32.add(base, i32.shl(i, 2));
      const [temperature, topK, topP, penalty] = [0, 4, 8, 12].map((at) => f32.load(settings, at));
      /** Walks the bits of a key, the highest first. */
      const eachBit = (body: () => void) => {
        f.set(bit, 0x80000000);
        f.while(bit, () => {
          body();
          f.set(bit, i32.shrU(bit, 1));
        });
      };

      f.set(divisor, f64.max(f64.promoteF32(temperature), 1e-6));
      f.if(f32.eq(temperature, 0), () => f.set(divisor, 1));
      f.set(finite, 1);
      f.for(id, 0, V, 1, () => {
        f.set(value, f32.load(entry(logits, id)));
        const exponent = i32.and(i32.reinterpretF32(value), 0x7f800000);
        f.if(i32.eq(exponent, 0x7f800000), () => f.set(finite, 0));
        f.set(value, f32.demoteF64(f64.div(f64.promoteF32(value), divisor)));
        f.if(i32.load(entry(seen, id)), () => f.set(value, f32.div(value, penalty)));
        f.set(key, keyOf(f32.add(value, 0))); // one key for both zeros
        f.store(entry(keys, id), key);
        f.if(i32.gtU(key, bestKey), () => {
          f.set(bestKey, key);
          f.set(best, id);
        });
      });
      f.set(draw, i32.load(counter, 8));

      f.if(i32.and(finite, f32.gt(temperature, 0)), () => {
        f.if(i32.and(f32.gt(topK, 0), f32.lt(topK, V)), () => {
          // The greatest key that k keys reach is the k-th.
          eachBit(() => {
            f.set(key, i32.or(threshold, bit));
            const enough = i32.geU(call(countFrom, keys, key), i32.truncF32U(topK));
            f.if(enough, () => f.set(threshold, key));
          });
        });
        f.if(f32.lt(topP, 1), () => {
          f.set(max, f64.promoteF32(valueOf(bestKey)));
          f.for(id, 0, V, 1, () => {
            f.set(key, i32.load(entry(keys, id)));
            f.set(mass, 0);
            f.if(i32.geU(key, threshold), () => {
              f.set(mass, call(math.exp, f64.sub(f64.promoteF32(valueOf(key)), max)));
            });
            f.store(i32.add(masses, i32.shl(id, 3)), mass);
            f.set(total, f64.add(total, mass));
          });
          // The least key with no more than p above it.
          eachBit(() => {
            const above = call(massAbove, keys, masses, i32.add(lowest, i32.sub(bit, 1)));
            f.if(f64.gt(above, f64.mul(f64.promoteF32(topP), total)), () => {
              f.set(lowest, i32.add(lowest, bit));
            });
          });
          f.if(i32.gtU(lowest, threshold), () => f.set(threshold, lowest));
        });
        f.if(i32.ltU(threshold, LEAST_KEY), () => f.set(threshold, LEAST_KEY));

        f.set(best, NOT_FINITE);
        f.for(id, 0, V, 1, () => {
          f.set(key, i32.load(entry(keys, id)));
          f.if(i32.geU(key, threshold), () => {
            const noise = call(gumbel, i32.load(counter), i32.load(counter, 4), draw, id);
            f.set(value, f32.demoteF64(f64.add(f64.promoteF32(valueOf(key)), noise)));
            f.if(i32.or(f32.gt(value, bestValue), i32.eq(best, NOT_FINITE)), () => {
              f.set(bestValue, value);
              f.set(best, id);
            });
          });
        });
      });

      f.if(i32.eqz(finite), () => f.set(best, NOT_FINITE));
      f.if(i32.ne(best, NOT_FINITE), () => f.store(entry(seen, best), i32.const(1)));
      f.store(ids, best);
      f.store(entry(drawn, i32.remU(draw, R)), best);
      f.store(counter, i32.add(draw, 1), 8);
    },
  );
}

/** How many of the keys reach `key`, which is not 0: the filling behind the last key is. */
function countWasm(m: ModuleBuilder, V: number): Func<readonly ["i32", "i32"], "i32"> {
  return m.define(["i32", "i32"], "i32", (f, keys, key) => {
    const count = f.local("v128");
    const end = f.local("i32");
    f.set(end, i32.add(keys, sampleWasmScratch(V).keys));
    f.for(keys, keys, end, 16, () => {
      f.set(count, i32x4.sub(count, i32x4.geU(v128.load(keys), i32x4.splat(key))));
    });
    return sumI32(count);
  });
}

/** The mass of the keys that are greater than `key`. */
function massWasm(m: ModuleBuilder, V: number): Func<readonly ["i32", "i32", "i32"], "f64"> {
  return m.define(["i32", "i32", "i32"], "f64", (f, keys, masses, key) => {
    const [low, high, greater] = [0, 1, 2].map(() => f.local("v128"));
    const end = f.local("i32");
    f.set(end, i32.add(keys, sampleWasmScratch(V).keys));
    f.for(keys, keys, end, 16, () => {
      f.set(greater, i32x4.gtU(v128.load(keys), i32x4.splat(key)));
      const [lowMask, highMask] = [i64x2.extendLowI32x4S(greater), i64x2.extendHighI32x4S(greater)];
      f.set(low, f64x2.add(low, v128.and(v128.load(masses), lowMask)));
      f.set(high, f64x2.add(high, v128.and(v128.load(masses, 16), highMask)));
      f.set(masses, i32.add(masses, 32));
    });
    f.set(low, f64x2.add(low, high));
    return f64.add(f64x2.extractLane(low, 0), f64x2.extractLane(low, 1));
  });
}

/** As `gumbel`: seed, draw and id in. */
function gumbelWasm(
  m: ModuleBuilder,
  math: MathFuncs,
): Func<readonly ["i32", "i32", "i32", "i32"], "f64"> {
  return m.define(["i32", "i32", "i32", "i32"], "f64", (f, key0, key1, x, y) => {
    const key2 = f.local("i32");
    f.set(key2, i32.xor(i32.xor(key0, key1), 0x1bd11bda));
    const keys = [key0, key1, key2];
    f.set(x, i32.add(x, key0));
    f.set(y, i32.add(y, key1));
    for (let round = 0; round < 20; round++) {
      f.set(x, i32.add(x, y));
      f.set(y, i32.xor(i32.rotl(y, ROTATIONS[round % 8]), x));
      if (round % 4 === 3) {
        const i = (round + 1) / 4;
        f.set(x, i32.add(x, keys[i % 3]));
        f.set(y, i32.add(i32.add(y, keys[(i + 1) % 3]), i));
      }
    }
    const u = f64.div(f64.add(f64.convertI32U(i32.shrU(x, 9)), 0.5), 2 ** 23);
    return f64.neg(call(math.log, f64.neg(call(math.log, u))));
  });
}

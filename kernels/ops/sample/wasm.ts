/**
 * The WASM form of `sample`: six kernels, of which those over all ids are split into parts.
 *
 * A number's key is an integer that orders as the number does. Both thresholds are found by halving ranges of keys, over those that
 * can matter alone: `scale` leaves the greatest keys of small groups, which bound the k-th key from below. Noise is looked at
 * only where it may win: −log(−log u) < −log(1 − u) is cheap to test, and few ids pass.
 *
 * @module
 */
import type { Operand, WasmEntry, WasmTarget } from "../contract.ts";
import { NOT_FINITE, ROTATIONS, type SampleCall, sampleOperands } from "./mod.ts";
import { call, f32, f32x4, f64, f64x2, type Func, i32, i32x4, v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder, Value } from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import {
  entry,
  GREEDY,
  GROUP,
  keysOf,
  minimum,
  PART,
  PART_BYTES,
  sampleWasmScratch,
  STATE,
  valueOf,
  valuesOf,
} from "./wasm_keys.ts";
import { massWasm, searchWasm, topKWasm, topPWasm } from "./wasm_thresholds.ts";

type ScratchName = keyof ReturnType<typeof sampleWasmScratch>;

/** The call on the CPU. */
export function sampleEntries(call: SampleCall, target: WasmTarget): WasmEntry[] {
  const { V, R } = call;
  const scratch = Object.fromEntries(
    Object.entries(sampleWasmScratch(V)).map(([name, bytes]) => [name, target.scratch(bytes)]),
  ) as Record<ScratchName, Operand>;
  const all = { ...sampleOperands(call), ...scratch };
  const kernels = target.once(
    "sample",
    { V, R },
    ({ V, R }) => sampleWasm(target.module, target.math, V, R),
  );
  return kernels.map(({ operands, ...entry }) => ({
    ...entry,
    operands: operands.map((name) => all[name]),
  }));
}

/** One kernel of `sample`, with the names of its operands in their order. */
interface SampleKernel {
  readonly kernel: Kernel;
  readonly operands:
    readonly ("ids" | "logits" | "settings" | "counter" | "seen" | "drawn" | ScratchName)[];
  readonly items: Items;
}

/** The WASM form: what is to be called, in order. */
function sampleWasm(
  m: ModuleBuilder,
  math: VectorMath,
  V: number,
  R: number,
): SampleKernel[] {
  const parts: Items = { count: Math.ceil(V / PART), perRow: false };
  const once: Items = { count: 1, perRow: false };
  const search = searchWasm(m);
  return [
    {
      kernel: scaleWasm(m, V),
      operands: ["logits", "settings", "seen", "keys", "maxima"],
      items: parts,
    },
    {
      kernel: topKWasm(m, search, V),
      operands: ["settings", "keys", "maxima", "listKeys", "listMasses", "state"],
      items: once,
    },
    {
      kernel: massWasm(m, math, V),
      operands: ["settings", "keys", "masses", "parts", "state"],
      items: parts,
    },
    {
      kernel: topPWasm(m, search, V),
      operands: ["settings", "keys", "masses", "listKeys", "listMasses", "parts", "state"],
      items: once,
    },
    { kernel: drawWasm(m, math, V), operands: ["counter", "keys", "parts", "state"], items: parts },
    {
      kernel: leaveWasm(m, V, R),
      operands: ["ids", "counter", "seen", "drawn", "parts", "state"],
      items: once,
    },
  ];
}

/** Walks the ids of parts begin … end − 1 by groups: the first of each, and the end of the ids that there are. */
function eachGroup(
  f: FunctionBuilder,
  V: number,
  { begin, end }: { begin: Local<"i32">; end: Local<"i32"> },
  body: (first: Local<"i32">, last: Local<"i32">) => void,
): void {
  const [first, last, until] = [0, 1, 2].map(() => f.local("i32"));
  f.set(until, i32.mul(end, PART));
  f.set(until, minimum(until, V));
  f.for(first, i32.mul(begin, PART), until, GROUP, () => {
    f.set(last, i32.add(first, GROUP));
    f.set(last, minimum(last, V));
    body(first, last);
  });
}

/** Scaled logits as keys, and the greatest of each group. */
function scaleWasm(m: ModuleBuilder, V: number): Kernel {
  return defineKernel(m, 5, (f, [logits, settings, seen, keys, maxima], share) => {
    const id = f.local("i32");
    const divisor = f.local("f64");
    const [v, low, penalty, odd, most, divisors] = [0, 1, 2, 3, 4, 5].map(() => f.local("v128"));
    const temperature = f32.load(settings, 0);
    f.set(divisor, f64.max(f64.promoteF32(temperature), 1e-6));
    f.if(f32.eq(temperature, 0), () => f.set(divisor, 1));
    f.set(divisors, f64x2.splat(divisor));
    f.set(penalty, f32x4.splat(f32.load(settings, 12)));
    const divided = (pair: Value<"v128">) =>
      f32x4.demoteF64x2(f64x2.div(f64x2.promoteLowF32x4(pair), divisors));

    eachGroup(f, V, share, (first, last) => {
      f.set(most, i32x4.splat(0));
      f.for(id, first, last, 4, () => {
        f.set(v, v128.load(entry(logits, id)));
        const exponent = i32x4.splat(0x7f800000);
        f.set(odd, i32x4.eq(v128.and(v, exponent), exponent));
        f.set(low, divided(v)); // in F64, as JavaScript divides
        f.set(v, divided(v128.shuffle(v, v, [2, 3, 2, 3])));
        f.set(v, v128.shuffle(low, v, [0, 1, 4, 5]));
        const unseen = i32x4.eq(v128.load(entry(seen, id)), i32x4.splat(0));
        f.set(v, v128.select(v, f32x4.div(v, penalty), unseen));
        f.set(v, f32x4.add(v, f32x4.splat(0))); // one key for both zeros
        f.set(v, v128.or(keysOf(v), odd));
        const missing = i32x4.splat(i32.sub(V, id));
        const inside = i32x4.gtS(missing, v128.const([0, 1, 2, 3]));
        if (V % 4 > 0) f.set(v, v128.and(v, inside));
        f.store(entry(keys, id), v);
        f.set(most, i32x4.maxU(most, v));
      });
      f.store(i32.add(maxima, i32.shrU(first, 2)), most); // 16 bytes for 64 ids
    });
  });
}

/** What each part would draw. */
function drawWasm(m: ModuleBuilder, math: VectorMath, V: number): Kernel {
  const gumbel = gumbelWasm(m);
  return defineKernel(m, 4, (f, [counter, keys, parts, state], { begin, end }) => {
    const [part, id, last, threshold] = [0, 1, 2, 3].map(() => f.local("i32"));
    const [best, greedy, passes, bestKey] = [0, 1, 2, 3].map(() => f.local("i32"));
    const [value, bestValue, floor, loose] = [0, 1, 2, 3].map(() => f.local("f32"));
    const [key, mask, s, bits, bound] = [0, 1, 2, 3, 4].map(() => f.local("v128"));
    const seeds = [0, 4, 8].map((at) => i32.load(counter, at));
    /** What a value must reach before it was rounded, to be as great as this one. */
    const raise = (to: Value<"f32">) => {
      f.set(loose, f32.sub(to, f32.mul(f32.abs(to), 2 ** -21)));
      f.if(f32.gt(loose, floor), () => f.set(floor, loose));
    };
    const take = (lane: number) => {
      f.if(i32.or(f32.gt(value, bestValue), i32.eq(best, NOT_FINITE)), () => {
        f.set(bestValue, value);
        f.set(best, i32.add(id, lane));
        raise(value);
      });
    };

    f.set(threshold, i32.load(state, STATE.threshold));
    f.set(bestKey, i32.load(state, STATE.bestKey));
    f.set(greedy, i32.eq(i32.load(state, STATE.draws), GREEDY));
    f.for(part, begin, end, 1, () => {
      f.set(best, NOT_FINITE);
      // The least noise is −log(24 log 2) > −2.9, also of the greatest number.
      f.set(floor, f32.const(-Infinity));
      raise(f32.sub(valueOf(bestKey), 2.9));
      f.set(last, i32.mul(i32.add(part, 1), PART));
      f.set(last, minimum(last, V));
      f.for(id, i32.mul(part, PART), last, 4, () => {
        f.set(key, v128.load(entry(keys, id)));
        f.set(mask, i32x4.geU(key, i32x4.splat(threshold)));
        f.if(v128.anyTrue(mask), () => {
          f.set(s, valuesOf(key));
          f.if(greedy, () => {
            f.set(passes, i32x4.bitmask(mask));
          }, () => {
            threefryWasm(f, bits, seeds, id);
            f.set(bits, i32x4.shrU(bits, 9));
            f.set(bound, call(math.exp(), f32x4.sub(s, f32x4.splat(floor))));
            // 1 − u = (2²⁴ − 1 − 2 · bits) / 2²⁴; the bound is rounded up by more than its error.
            const rest = i32x4.sub(i32x4.splat(0xffffff), i32x4.shl(bits, 1));
            f.set(bound, f32x4.mul(bound, f32x4.splat(2 ** 24 * 1.0001)));
            f.set(mask, v128.and(mask, f32x4.lt(f32x4.convertI32x4U(rest), bound)));
            f.set(passes, i32x4.bitmask(mask));
          });
          f.if(passes, () => {
            for (let lane = 0; lane < 4; lane++) {
              f.if(i32.and(passes, 1 << lane), () => {
                f.set(value, f32x4.extractLane(s, lane));
                f.if(i32.eqz(greedy), () => {
                  const noise = call(gumbel, i32x4.extractLane(bits, lane));
                  f.set(value, f32.demoteF64(f64.add(f64.promoteF32(value), noise)));
                });
                take(lane);
              });
            }
          });
        });
      });
      f.store(entry(parts, i32.shl(part, 2)), best);
      f.store(entry(parts, i32.shl(part, 2)), bestValue, 4);
      f.set(bestValue, 0);
    });
  });
}

/** As `threefry`, of four ids: seed, seed and draw in front of them. */
function threefryWasm(
  f: FunctionBuilder,
  x: Local<"v128">,
  [key0, key1, draw]: readonly Value<"i32">[],
  id: Local<"i32">,
): void {
  const y = f.local("v128");
  const key2 = i32.xor(i32.xor(key0, key1), 0x1bd11bda);
  const keys = [key0, key1, key2].map((key) => {
    const all = f.local("v128");
    f.set(all, i32x4.splat(key));
    return all;
  });
  f.set(x, i32x4.add(i32x4.splat(draw), keys[0]));
  f.set(y, i32x4.add(i32x4.add(i32x4.splat(id), v128.const([0, 1, 2, 3])), keys[1]));
  for (let round = 0; round < 20; round++) {
    const bits = ROTATIONS[round % 8];
    f.set(x, i32x4.add(x, y));
    f.set(y, v128.xor(v128.or(i32x4.shl(y, bits), i32x4.shrU(y, 32 - bits)), x));
    if (round % 4 === 3) {
      const i = (round + 1) / 4;
      f.set(x, i32x4.add(x, keys[i % 3]));
      f.set(y, i32x4.add(i32x4.add(y, keys[(i + 1) % 3]), i32x4.splat(i)));
    }
  }
}

/** −log(−log u) of the 23 bits that u is made from. */
function gumbelWasm(m: ModuleBuilder): Func<readonly ["i32"], "f64"> {
  const log = logWasm(m);
  return m.define(["i32"], "f64", (_, bits) => {
    const u = f64.div(f64.add(f64.convertI32U(bits), 0.5), 2 ** 23);
    return f64.neg(call(log, f64.neg(call(log, u))));
  });
}

/** The logarithm of a number within F32's normal range, within 3e-16: x = 2ⁿ m, and log m = 2 artanh((m − 1) / (m + 1)). */
function logWasm(m: ModuleBuilder): Func<readonly ["f64"], "f64"> {
  return m.define(["f64"], "f64", (f, x) => {
    const n = f.local("i32");
    const [z, square, sum] = [0, 1, 2].map(() => f.local("f64"));
    const bits = i32.reinterpretF32(f32.demoteF64(x));
    // The exponent that leaves m in √½ … √2: 0x3f3504f3 is √½.
    f.set(n, i32.and(i32.sub(bits, 0x3f3504f3), 0xff800000));
    const power = f64.promoteF32(f32.reinterpretI32(i32.add(n, 0x3f800000)));
    f.set(z, f64.div(x, power));
    f.set(z, f64.div(f64.sub(z, 1), f64.add(z, 1)));
    f.set(square, f64.mul(z, z));
    for (let power = 23; power >= 3; power -= 2) {
      f.set(sum, f64.mul(square, f64.add(sum, 1 / power)));
    }
    const mantissa = f64.add(f64.mul(2, z), f64.mul(f64.mul(2, z), sum));
    return f64.add(mantissa, f64.mul(f64.convertI32S(i32.shrS(n, 23)), Math.LN2));
  });
}

/** The best of the parts' ids goes where it is looked for. */
function leaveWasm(m: ModuleBuilder, V: number, R: number): Kernel {
  return defineKernel(m, 6, (f, [ids, counter, seen, drawn, parts, state]) => {
    const [at, best, draw] = [0, 1, 2].map(() => f.local("i32"));
    const [value, bestValue] = [f.local("f32"), f.local("f32")];
    f.set(best, NOT_FINITE);
    f.if(i32.load(state, STATE.draws), () => {
      f.for(at, parts, i32.add(parts, sampleWasmScratch(V).parts), PART_BYTES, () => {
        f.set(value, f32.load(at, 4));
        const better = i32.or(f32.gt(value, bestValue), i32.eq(best, NOT_FINITE));
        f.if(i32.and(i32.ne(i32.load(at), NOT_FINITE), better), () => {
          f.set(best, i32.load(at));
          f.set(bestValue, value);
        });
      });
    });
    f.set(draw, i32.load(counter, 8));
    f.if(i32.ne(best, NOT_FINITE), () => f.store(entry(seen, best), i32.const(1)));
    f.store(ids, best);
    f.store(entry(drawn, i32.remU(draw, R)), best);
    f.store(counter, i32.add(draw, 1), 8);
  });
}

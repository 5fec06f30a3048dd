/**
 * Sampling in WASM: six kernels; those over all V ids are split into parts of 2048.
 *
 *     scale      parts    penalty, temperature; logits → keys [V], max of each group
 *     top-k      once     threshold: the k-th greatest key; scales anew if the greatest exceeds F32
 *     mass       parts    masses e^(s − max) [V], their sum per part
 *     top-p      once     threshold: the least key that is kept
 *     draw       parts    argmax of s + Gumbel noise over kept ids
 *     choose     once     best of the parts; ids, seen, counter
 *
 * A number's key is an integer with the same order. Both thresholds are found by bisection over
 * keys, and only over keys that can matter: the group maxima bound the k-th key from below.
 *
 * Trick: −log(−log u) < −log(1 − u), which is cheap to test, bounds the noise. Noise is computed
 * only for the few ids whose bound exceeds the best value so far.
 *
 * @module
 */
import type { Operand, WasmEntry, WasmTarget } from "../contract.ts";
import {
  LEAST_DIVISOR,
  MOST_DIVISOR,
  NOT_FINITE,
  ROTATIONS,
  type SampleCall,
  sampleOperands,
} from "./mod.ts";
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
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import {
  entry,
  GREEDY,
  GROUP,
  keysOf,
  PART,
  PART_BYTES,
  sampleWasmScratch,
  type Scale,
  STATE,
  valueOf,
  valuesOf,
} from "./wasm_keys.ts";
import { massWasm, searchWasm, topKWasm, topPWasm } from "./wasm_thresholds.ts";

type ScratchName = keyof ReturnType<typeof sampleWasmScratch>;

/** Lowers the call to WASM kernels. */
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

/** One kernel of `sample`, with the names of its operands in order. */
interface SampleKernel {
  readonly kernel: Kernel;
  readonly operands:
    readonly ("ids" | "logits" | "settings" | "counter" | "seen" | "drawn" | ScratchName)[];
  readonly items: Items;
}

/** The WASM form: the kernels in order. */
function sampleWasm(
  m: ModuleBuilder,
  math: VectorMath,
  V: number,
  R: number,
): SampleKernel[] {
  const parts: Items = { count: Math.ceil(V / PART), perRow: false };
  const once: Items = { count: 1, perRow: false };
  const search = searchWasm(m);
  const scale = scaleWasm(m, V);
  return [
    {
      kernel: scalePartsWasm(m, scale),
      operands: ["logits", "settings", "seen", "keys", "maxima"],
      items: parts,
    },
    {
      kernel: topKWasm(m, scale, search, V),
      operands: [
        ...["logits", "settings", "seen"] as const,
        ...["keys", "maxima", "listKeys", "listMasses", "state"] as const,
      ],
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
      kernel: chooseWasm(m, V, R),
      operands: ["ids", "counter", "seen", "drawn", "parts", "state"],
      items: once,
    },
  ];
}

function bounded(divisor: Value<"f32">): Value<"f64"> {
  return f64.min(f64.max(f64.promoteF32(divisor), LEAST_DIVISOR), MOST_DIVISOR);
}

/** The kernel that scales all parts. */
function scalePartsWasm(m: ModuleBuilder, scale: Scale): Kernel {
  const operands = ["logits", "settings", "seen", "keys", "maxima"] as const;
  return defineKernel(m, operands, (f, params) => f.do(call(scale, { ...params, reduction: 1 })));
}

/** Loops over the ids of parts begin … end − 1 in groups first … last − 1. */
function eachGroup(
  f: FunctionBuilder,
  V: number,
  { begin, end }: Readonly<Record<"begin" | "end", Local<Int>>>,
  body: (first: Local<Int>, last: Local<Int>) => void,
): void {
  const { first, last, until } = f.locals(ints("first", "last", "until"));
  until.set(end.times(PART));
  until.atMost(V);
  f.for(first, begin.times(PART), until, GROUP, () => {
    last.set(first.plus(GROUP));
    last.atMost(V);
    body(first, last);
  });
}

/** Scale: temperature, penalty, key, group max; divided by `reduction` once more. */
function scaleWasm(m: ModuleBuilder, V: number): Scale {
  const addresses = ints("logits", "settings", "seen", "keys", "maxima", "begin", "end");
  return m.define({ ...addresses, reduction: "f64" }, "void", (f, params) => {
    const { logits, settings, seen, keys, maxima, reduction } = params;
    const id = f.local("int", "id");
    const divisor = f.local("f64", "divisor");
    const { v, low, penalty, overflow, max, divisors } = f.locals(
      vectors("v", "low", "penalty", "overflow", "max", "divisors"),
    );
    const temperature = f32.load(settings, 0);
    divisor.set(bounded(temperature));
    f.if(temperature.eq(0), () => divisor.set(1));
    divisors.set(f64x2.splat(divisor.times(reduction)));
    penalty.set(f32x4.splat(f32.demoteF64(bounded(f32.load(settings, 12)))));
    const divided = (pair: Value<"v128">) =>
      f32x4.demoteF64x2(f64x2.div(f64x2.promoteLowF32x4(pair), divisors));

    eachGroup(f, V, params, (first, last) => {
      max.set(i32x4.splat(0));
      f.for(id, first, last, 4, () => {
        v.set(v128.load(entry(logits, id)));
        const exponent = i32x4.splat(0x7f800000);
        overflow.set(i32x4.eq(v.and(exponent), exponent));
        low.set(divided(v)); // in F64, like the plain form
        v.set(divided(v128.shuffle(v, v, [2, 3, 2, 3])));
        v.set(v128.shuffle(low, v, [0, 1, 4, 5]));
        const unseen = i32x4.eq(v128.load(entry(seen, id)), i32x4.splat(0));
        v.set(v128.select(v, v.div(penalty), unseen));
        v.set(v.plus(0)); // −0 becomes 0: both have one key
        v.set(keysOf(v).or(overflow));
        const left = i32x4.splat(f.int(V).minus(id));
        const inside = i32x4.gtS(left, v128.const([0, 1, 2, 3]));
        if (V % 4 > 0) v.set(v.and(inside));
        f.store(entry(keys, id), v);
        max.set(i32x4.maxU(max, v));
      });
      f.store(maxima.plus(first.shr(2)), max); // 16 bytes for 64 ids
    });
  });
}

/** Draw: the best id of each part, and its value with noise. */
function drawWasm(m: ModuleBuilder, math: VectorMath, V: number): Kernel {
  const gumbel = gumbelWasm(m);
  return defineKernel(m, ["counter", "keys", "parts", "state"], (f, params) => {
    const { counter, keys, parts, state, begin, end } = params;
    const { part, id, last, threshold } = f.locals(ints("part", "id", "last", "threshold"));
    const { best, greedy, passes, bestKey } = f.locals(
      ints("best", "greedy", "passes", "bestKey"),
    );
    const { value, bestValue, floor, loose } = f.locals({
      value: "f32",
      bestValue: "f32",
      floor: "f32",
      loose: "f32",
    });
    const { key, mask, s, bits, bound } = f.locals(vectors("key", "mask", "s", "bits", "bound"));
    const seeds = [0, 4, 8].map((at) => i32.load(counter, at));
    /** Raises the floor to just below `to`: less than any value that rounds to it. */
    const raiseFloor = (to: Value<"f32">) => {
      loose.set(to.minus(f32.abs(to).times(2 ** -21)));
      f.if(loose.gt(floor), () => floor.set(loose));
    };
    const keepBest = (lane: number) => {
      f.if(value.gt(bestValue).or(best.eq(NOT_FINITE)), () => {
        bestValue.set(value);
        best.set(id.plus(lane));
        raiseFloor(value);
      });
    };
    /** Masks the ids of four whose value may exceed the floor: −log(−log u) < −log(1 − u). */
    const boundNoise = () => {
      threefryWasm(f, bits, seeds, id);
      bits.set(i32x4.shrU(bits, 9));
      bound.set(math.exp(s.minus(f32x4.splat(floor))));
      // 1 − u = (2²⁴ − 1 − 2 · bits) / 2²⁴; the bound is rounded up by more than its error.
      const rest = i32x4.sub(i32x4.splat(0xffffff), i32x4.shl(bits, 1));
      bound.set(bound.times(2 ** 24 * 1.0001));
      mask.set(mask.and(f32x4.convertI32x4U(rest).lt(bound)));
      passes.set(i32x4.bitmask(mask));
    };
    const drawLane = (lane: number) => {
      value.set(f32x4.extractLane(s, lane));
      f.if(greedy.eqz(), () => {
        const noise = call(gumbel, { bits: i32x4.extractLane(bits, lane) });
        value.set(f32.demoteF64(f64.promoteF32(value).plus(noise)));
      });
      keepBest(lane);
    };
    const drawFour = () => {
      s.set(valuesOf(key));
      f.if(greedy, () => passes.set(i32x4.bitmask(mask)), boundNoise);
      f.if(passes, () => {
        for (let lane = 0; lane < 4; lane++) f.if(passes.and(1 << lane), () => drawLane(lane));
      });
    };

    threshold.set(i32.load(state, STATE.threshold));
    bestKey.set(i32.load(state, STATE.bestKey));
    greedy.set(i32.load(state, STATE.draws).eq(GREEDY));
    f.for(part, begin, end, 1, () => {
      best.set(NOT_FINITE);
      // The least possible noise is −log(24 log 2) > −2.9, so the best value is at least this.
      floor.set(-Infinity);
      raiseFloor(valueOf(bestKey).minus(2.9));
      last.set(part.plus(1).times(PART));
      last.atMost(V);
      f.for(id, part.times(PART), last, 4, () => {
        key.set(v128.load(entry(keys, id)));
        mask.set(i32x4.geU(key, i32x4.splat(threshold)));
        f.if(v128.anyTrue(mask), drawFour);
      });
      f.store(entry(parts, part.shl(2)), best);
      f.store(entry(parts, part.shl(2)), bestValue, 4);
      bestValue.set(0);
    });
  });
}

/**
 * Threefry 2x32, as `threefry`, for ids id … id + 3: key (seed, seed), counter (draw, id).
 */
function threefryWasm(
  f: FunctionBuilder,
  x: Local<"v128">,
  [key0, key1, draw]: readonly Value<Int>[],
  id: Local<Int>,
): void {
  const y = f.local("v128", "y");
  const key2 = key0.xor(key1).xor(0x1bd11bda);
  const keys = [key0, key1, key2].map((key, i) => {
    const all = f.local("v128", `key${i}`);
    all.set(i32x4.splat(key));
    return all;
  });
  x.set(i32x4.add(i32x4.splat(draw), keys[0]));
  y.set(i32x4.add(i32x4.add(i32x4.splat(id), v128.const([0, 1, 2, 3])), keys[1]));
  for (let round = 0; round < 20; round++) {
    const bits = ROTATIONS[round % 8];
    x.set(i32x4.add(x, y));
    y.set(i32x4.shl(y, bits).or(i32x4.shrU(y, 32 - bits)).xor(x));
    if (round % 4 === 3) {
      const i = (round + 1) / 4;
      x.set(i32x4.add(x, keys[i % 3]));
      y.set(i32x4.add(i32x4.add(y, keys[(i + 1) % 3]), i32x4.splat(i)));
    }
  }
}

/** Gumbel noise −log(−log u), u = (bits + ½) / 2²³. */
function gumbelWasm(m: ModuleBuilder): Func<Ints<"bits">, "f64"> {
  const log = logWasm(m);
  return m.define(ints("bits"), "f64", (_, { bits }) => {
    const u = f64.convertI32U(bits).plus(0.5).div(2 ** 23);
    return f64.neg(call(log, { x: f64.neg(call(log, { x: u })) }));
  });
}

/**
 * Natural logarithm in F64 of a number in F32's normal range, error within 3e-16. Method: x = 2ⁿ·m,
 * m in √½ … √2; z = (m − 1) / (m + 1); log m = 2·artanh z = 2·(z + z³/3 + … + z²³/23); log x =
 * n·ln2 + log m.
 */
function logWasm(m: ModuleBuilder): Func<{ readonly x: "f64" }, "f64"> {
  return m.define({ x: "f64" }, "f64", (f, { x }) => {
    const n = f.local("i32", "n");
    const { z, square, sum } = f.locals({ z: "f64", square: "f64", sum: "f64" });
    const bits = i32.reinterpretF32(f32.demoteF64(x));
    // The exponent that leaves m in √½ … √2: 0x3f3504f3 is √½.
    n.set(bits.minus(0x3f3504f3).and(0xff800000));
    const power = f64.promoteF32(f32.reinterpretI32(n.plus(0x3f800000)));
    z.set(x.div(power));
    z.set(z.minus(1).div(z.plus(1)));
    square.set(z.times(z));
    for (let power = 23; power >= 3; power -= 2) sum.set(square.times(sum.plus(1 / power)));
    const twice = f64.const(2).times(z);
    const mantissa = twice.plus(twice.times(sum));
    return mantissa.plus(f64.convertI32S(n.shrS(23)).times(Math.LN2));
  });
}

/**
 * Choose: writes the best id of all parts to `ids` and `drawn`, sets its `seen`, and increments the
 * draw's number.
 */
function chooseWasm(m: ModuleBuilder, V: number, R: number): Kernel {
  const operands = ["ids", "counter", "seen", "drawn", "parts", "state"] as const;
  return defineKernel(m, operands, (f, { ids, counter, seen, drawn, parts, state }) => {
    const { at, draw } = f.locals(ints("at", "draw"));
    const best = f.local("i32", "best");
    const { value, bestValue } = f.locals({ value: "f32", bestValue: "f32" });
    best.set(NOT_FINITE);
    f.if(i32.load(state, STATE.draws), () => {
      f.for(at, parts, parts.plus(sampleWasmScratch(V).parts), PART_BYTES, () => {
        value.set(f32.load(at, 4));
        const better = value.gt(bestValue).or(best.eq(NOT_FINITE));
        f.if(i32.load(at).ne(NOT_FINITE).and(better), () => {
          best.set(i32.load(at));
          bestValue.set(value);
        });
      });
    });
    draw.set(i32.load(counter, 8));
    f.if(best.ne(NOT_FINITE), () => f.store(entry(seen, best), i32.const(1)));
    f.store(ids, best);
    f.store(entry(drawn, draw.rem(R)), best);
    f.store(counter, draw.plus(1), 8);
  });
}

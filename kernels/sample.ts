/**
 * From one row of logits to the next token's id.
 *
 *     s = logits / temperature, then / repetitionPenalty for each id drawn before (negative or not)
 *     top-k: keep s ≥ the k-th largest, then top-p: keep s while the probability of what is greater is ≤ p
 *     id = argmax(s + noise),  noise = −log(−log u),  u = f(seed, draw, id)
 *
 * logits [1, V]; ids [T] I32, of which the first is written, where the next step's `embed` reads it. The order is that of LabCore's script.
 * Adding Gumbel noise and taking the maximum draws from softmax(s) (Gumbel, 1954), and needs no running sum: every backend that
 * is given the same logits draws the same id. A temperature of 0 takes the largest s, the lowest id first.
 *
 * @module
 */
import { expectTensor, expectThat } from "./errors.ts";
import type { Tensor } from "./tensor.ts";
import { call, f32, f64, f64x2, type Func, i32, i32x4, i64x2 } from "./wasm/assembler.ts";
import { type ModuleBuilder, type Operand, v128, type Value } from "./wasm/assembler.ts";
import { sumI32 } from "./wasm/lanes.ts";
import type { MathFuncs } from "./wasm/math.ts";

/** The id that stands for "the logits were not finite". */
export const NOT_FINITE = -1;

/** What sampling keeps on the device; written by the host when a generation starts. */
export interface Sampling<F = Tensor, U = Tensor, I = Tensor> {
  /** F32 [4]: temperature, top-k (0 = off), top-p (≥ 1 = off), repetition penalty (1 = off). */
  readonly settings: F;
  /** U32 [3]: the seed's low and high word, and the number of draws so far, which each draw adds to. */
  readonly counter: U;
  /** U32 [V]: 1 for each id drawn so far. */
  readonly seen: U;
  /** I32 [R]: a ring; draw i leaves its id at i mod R, so that ids of several steps come back in one read. */
  readonly drawn: I;
}

/** @throws {RangeError} when the shapes of `sample` do not fit each other. */
export function checkSample(
  ids: Tensor,
  logits: Tensor,
  { settings, counter, seen, drawn }: Sampling,
): { V: number; R: number } {
  const V = logits.shape[1];
  const R = drawn.shape[0];
  expectTensor("sample", "logits", logits, [1, V]);
  expectTensor("sample", "ids", ids, [ids.shape[0]], "I32");
  expectTensor("sample", "settings", settings, [4]);
  expectTensor("sample", "counter", counter, [3], "U32");
  expectTensor("sample", "seen", seen, [V], "U32");
  expectTensor("sample", "drawn", drawn, [R], "I32");
  expectThat("sample", ids.shape[0] >= 1 && R >= 1, "room for one id");
  return { V, R };
}

/** The distribution's shape; see the module for what each does. */
export interface Filter {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
}

/**
 * Writes to `out` the scaled logits that may be drawn, and −Infinity for the rest. `sorted` is scratch of V numbers.
 * @returns whether every logit was finite; `out` means nothing otherwise.
 */
export function filterLogits(
  out: Float32Array,
  logits: Float32Array,
  seen: Uint32Array,
  { temperature, topK, topP, repetitionPenalty }: Filter,
  sorted: Float32Array,
): boolean {
  const V = logits.length;
  const greedy = temperature === 0;
  const divisor = greedy ? 1 : Math.max(temperature, 1e-6);
  let best = 0;
  for (let id = 0; id < V; id++) {
    if (!Number.isFinite(logits[id])) return false;
    out[id] = logits[id] / divisor;
    if (seen[id]) out[id] /= repetitionPenalty;
    if (out[id] > out[best]) best = id;
  }
  if (greedy) {
    const max = out[best];
    out.fill(-Infinity);
    out[best] = max;
    return true;
  }
  const cutK = topK > 0 && topK < V;
  const cutP = topP < 1;
  if (!cutK && !cutP) return true;
  sorted.set(out);
  sorted.sort(); // ascending
  let threshold = cutK ? sorted[V - topK] : -Infinity;
  if (cutP) threshold = topPThreshold(sorted, threshold, topP);
  for (let id = 0; id < V; id++) if (out[id] < threshold) out[id] = -Infinity;
  return true;
}

/** The least of the ascending values ≥ `floor` such that the probability of all that is greater is at most `p`. */
function topPThreshold(sorted: Float32Array, floor: number, p: number): number {
  const max = sorted[sorted.length - 1];
  let first = sorted.length - 1;
  let total = 0;
  for (let i = sorted.length - 1; i >= 0 && sorted[i] >= floor; i--) {
    total += Math.exp(sorted[i] - max);
    first = i;
  }
  let greater = 0;
  for (let i = sorted.length - 1; i > first; i--) {
    greater += Math.exp(sorted[i] - max);
    if (sorted[i - 1] < sorted[i] && greater > p * total) return sorted[i];
  }
  return sorted[first];
}

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * Threefry-2x32, 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a counter in, 64 random
 * bits out, by additions, rotations and exclusive ors of 32-bit integers alone. Returns the first word.
 */
export function threefry(key0: number, key1: number, counter0: number, counter1: number): number {
  const keys = [key0, key1, 0x1bd11bda ^ key0 ^ key1];
  let x = (counter0 + key0) | 0;
  let y = (counter1 + key1) | 0;
  for (let round = 0; round < 20; round++) {
    const r = ROTATIONS[round % 8];
    x = (x + y) | 0;
    y = ((y << r) | (y >>> (32 - r))) ^ x;
    if (round % 4 === 3) {
      const i = (round + 1) / 4;
      x = (x + keys[i % 3]) | 0;
      y = (y + keys[(i + 1) % 3] + i) | 0;
    }
  }
  return x >>> 0;
}

/** Gumbel noise of one id in one draw. 23 bits: u is exact in F32 and is neither 0 nor 1. */
export function gumbel(seed0: number, seed1: number, draw: number, id: number): number {
  const u = ((threefry(seed0, seed1, draw, id) >>> 9) + 0.5) / 2 ** 23;
  return -Math.log(-Math.log(u));
}

/** Scratch for `sampleJs`: V numbers each. */
export interface SampleScratch {
  readonly kept: Float32Array;
  readonly sorted: Float32Array;
}

/** The oracle. */
export function sampleJs(
  ids: Int32Array,
  logits: Float32Array,
  { settings, counter, seen, drawn }: Sampling<Float32Array, Uint32Array, Int32Array>,
  { kept, sorted }: SampleScratch = {
    kept: new Float32Array(logits.length),
    sorted: new Float32Array(logits.length),
  },
): void {
  const [temperature, topK, topP, repetitionPenalty] = settings;
  const [seed0, seed1, draw] = counter;
  const filter = { temperature, topK, topP, repetitionPenalty };
  let best = NOT_FINITE;
  let bestValue = -Infinity;
  if (filterLogits(kept, logits, seen, filter, sorted)) {
    for (let id = 0; id < kept.length; id++) {
      if (kept[id] === -Infinity) continue;
      const noise = temperature === 0 ? 0 : gumbel(seed0, seed1, draw, id);
      const value = Math.fround(kept[id] + noise);
      if (best === NOT_FINITE || value > bestValue) {
        best = id;
        bestValue = value;
      }
    }
    seen[best] = 1;
  }
  ids[0] = best;
  drawn[draw % drawn.length] = best;
  counter[2]++;
}

/** The constants that the sampling shader is specialised on. */
export interface SampleWgsl {
  readonly V: number;
  /** Places of the ring of drawn ids. */
  readonly R: number;
  /** Lanes of the one workgroup, a power of two. */
  readonly lanes: number;
}

/** The rounds of `threefry` written out, on a state `s` and `keys`. */
function threefryRoundsWgsl(): string {
  const lines: string[] = [];
  for (let round = 0; round < 20; round++) {
    lines.push(`s = turn(s, ${ROTATIONS[round % 8]}u);`);
    const i = (round + 1) / 4;
    if (round % 4 === 3) {
      lines.push(`s += vec2u(keys[${i % 3}], keys[${(i + 1) % 3}] + ${i}u);`);
    }
  }
  return lines.join("\n  ");
}

/** Functions of numbers alone: keys that order as floats do, a logarithm that is exact enough near 1, the noise. */
function sampleMathWgsl(): string {
  return /* wgsl */ `
// Floats in the order of their keys; both zeros have one key. Comparing integers asks no device what it makes of infinity.
fn key_of(v: f32) -> u32 {
  let raw = bitcast<u32>(v);
  let bits = select(raw, 0u, raw == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// The builtin may err by 2^-21 near 1, which is where the greatest noise comes from.
fn log_of(v: f32) -> f32 {
  let bits = bitcast<u32>(v) - 0x3f3504f3u; // counts from √½, so that the mantissa m lies in [√½, √2)
  let exponent = f32(bitcast<i32>(bits) >> 23u);
  let m = bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u);
  let a = (m - 1.0) / (m + 1.0); // log m = 2 atanh a
  let b = a * a;
  return exponent * 0.69314718 + 2.0 * a * (1.0 + b * (0.33333333 + b * (0.2 + b * (0.14285714 + b * 0.11111111))));
}

fn turn(s: vec2u, by: u32) -> vec2u {
  let x = s.x + s.y;
  return vec2u(x, ((s.y << by) | (s.y >> (32u - by))) ^ x);
}
fn threefry(key: vec2u, count: vec2u) -> u32 {
  let keys = vec3u(key, 0x1bd11bdau ^ key.x ^ key.y);
  var s = count + key;
  ${threefryRoundsWgsl()}
  return s.x;
}
fn gumbel(seed: vec2u, draw: u32, id: u32) -> f32 {
  let u = (f32(threefry(seed, vec2u(draw, id)) >> 9u) + 0.5) * 0x1p-23;
  return -log_of(-log_of(u));
}
`;
}

/** Sums over the workgroup that every lane gets alike, and the thresholds that are found with them, bit by bit. */
function sampleThresholdsWgsl(): string {
  return /* wgsl */ `
var<workgroup> counts: array<u32, LANES>;
var<workgroup> masses: array<f32, LANES>;

fn count_over_lanes(lane: u32, mine: u32) -> u32 {
  counts[lane] = mine;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { counts[lane] += counts[lane + half]; }
  }
  return workgroupUniformLoad(&counts[0]);
}
fn mass_over_lanes(lane: u32, mine: f32) -> f32 {
  masses[lane] = mine;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { masses[lane] += masses[lane + half]; }
  }
  return workgroupUniformLoad(&masses[0]);
}

// The greatest key that at least k ids reach: the k-th largest.
fn top_k_key(lane: u32, k: u32) -> u32 {
  var key = 0u;
  for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
    var reach = 0u;
    for (var id = lane; id < V; id += LANES) { reach += u32(keys[id] >= (key | bit)); }
    if (count_over_lanes(lane, reach) >= k) { key |= bit; }
  }
  return key;
}

// Probability, up to a factor, of all ids whose key is that key or greater.
fn mass_from(lane: u32, least: u32, top: f32) -> f32 {
  var mass = 0.0;
  for (var id = lane; id < V; id += LANES) {
    let key = keys[id];
    mass += select(0.0, exp(max(value_of(key) - top, -100.0)), key >= least);
  }
  return mass_over_lanes(lane, mass);
}

// The least key such that what is greater has at most the share p of the mass from that key on.
fn top_p_key(lane: u32, least: u32, top_key: u32, p: f32) -> u32 {
  let top = value_of(top_key);
  let bound = max(p, 0.0) * mass_from(lane, least, top);
  var below = 0u; // the greatest key with more than that above it
  for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
    if (mass_from(lane, (below | bit) + 1u, top) > bound) { below |= bit; }
  }
  return max(least, below + 1u);
}
`;
}

/**
 * The WGSL form: one workgroup. Operands: 0 ids, 1 logits as bits, 2 settings, 3 counter, 4 seen, 5 drawn, 6 keys (scratch, U32 [V]).
 */
export function sampleWgsl({ V, R, lanes }: SampleWgsl): string {
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> ids: array<i32>;
@group(1) @binding(1) var<storage, read> logits: array<u32>;
@group(1) @binding(2) var<storage, read> settings: array<f32>;
@group(1) @binding(3) var<storage, read_write> counter: array<u32>;
@group(1) @binding(4) var<storage, read_write> seen: array<u32>;
@group(1) @binding(5) var<storage, read_write> drawn: array<i32>;
@group(1) @binding(6) var<storage, read_write> keys: array<u32>;

const V = ${V}u;
const R = ${R}u;
const LANES = ${lanes}u;
var<workgroup> best: array<vec2u, LANES>;
${sampleMathWgsl()}
${sampleThresholdsWgsl()}
// A candidate is (key, id); of equal keys the lower id wins.
fn better(a: vec2u, b: vec2u) -> vec2u {
  return select(b, a, a.x > b.x || (a.x == b.x && a.y < b.y));
}
fn best_over_lanes(lane: u32, mine: vec2u) -> vec2u {
  best[lane] = mine;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { best[lane] = better(best[lane], best[lane + half]); }
  }
  return workgroupUniformLoad(&best[0]);
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  let greedy = settings[0] == 0.0;
  let divisor = select(max(settings[0], 0.000001), 1.0, greedy);
  let top_k = u32(clamp(settings[1], 0.0, f32(V)));
  let draw = counter[2];
  let seed = vec2u(counter[0], counter[1]);

  // A lane comes back to its own keys alone, so no barrier is needed for them.
  var not_finite = 0u;
  var mine = vec2u(0u, V);
  for (var id = lane; id < V; id += LANES) {
    let bits = logits[id];
    not_finite += u32((bits & 0x7f800000u) == 0x7f800000u);
    var s = bitcast<f32>(bits) / divisor;
    if (seen[id] != 0u) { s /= settings[3]; }
    keys[id] = key_of(s);
    mine = better(mine, vec2u(keys[id], id));
  }
  let finite = count_over_lanes(lane, not_finite) == 0u;
  var choice = best_over_lanes(lane, mine);

  if (!greedy) {
    let top_key = choice.x;
    var least = 0u;
    if (top_k > 0u && top_k < V) { least = top_k_key(lane, top_k); }
    if (settings[2] < 1.0) { least = top_p_key(lane, least, top_key, settings[2]); }
    mine = vec2u(0u, V);
    for (var id = lane; id < V; id += LANES) {
      let key = keys[id];
      if (key >= least) { mine = better(mine, vec2u(key_of(value_of(key) + gumbel(seed, draw, id)), id)); }
    }
    choice = best_over_lanes(lane, mine);
  }

  if (lane == 0u) {
    let id = select(${NOT_FINITE}, i32(choice.y), finite);
    ids[0] = id;
    drawn[draw % R] = id;
    if (finite) { seen[choice.y] = 1u; }
    counter[2] = draw + 1u;
  }
}
`;
}

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

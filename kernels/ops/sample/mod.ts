/**
 * Sampling: draws the next token's id from one row of logits.
 *
 *     s = logits / temperature, then / repetitionPenalty for each id drawn before (negative or not)
 *     top-k: keep s ≥ the k-th largest
 *     top-p: of those, keep s while the probability of all greater ones is ≤ p
 *     id = argmax(s + noise),  noise = −log(−log u),  u = f(seed, draw, id)
 *
 * logits [1, V]; ids [T] I32, of which ids[0] is written: the next step's `embed` reads it there.
 * A temperature or a penalty counts as at least 1e-6 and at most 1e37. If the greatest s exceeds
 * F32 all the same, all s are divided by 2⁶⁴ once more, which keeps their order.
 *
 * The order of the filters is that of LabCore's script. The argmax with Gumbel noise draws from
 * softmax(s) (Gumbel, 1954) without a cumulative sum, so equal logits give equal ids on every
 * backend. Temperature 0 takes the largest s, ties to the lowest id.
 *
 * @module
 */
import { expectTensor, expectThat } from "../../errors.ts";
import { type Closure, type Cost, f32Of, i32Of, reads, u32Of, updates } from "../contract.ts";
import { BYTES } from "../../formats/mod.ts";
import type { Tensor } from "../../tensor.ts";

/** Sentinel id: the logits are not finite. */
export const NOT_FINITE = -1;

/** Least and greatest divisor of a logit: two of them leave F32 by a factor of 2⁴⁰ at most. */
export const [LEAST_DIVISOR, MOST_DIVISOR] = [Math.fround(1e-6), Math.fround(1e37)];

/** Divisor that brings the quotients back into F32. */
export const REDUCTION = 2 ** 64;

/** State of sampling on the device; the host writes it when a generation starts. */
export interface Sampling<F = Tensor, U = Tensor, I = Tensor> {
  /** F32 [4]: temperature, top-k (0 = off), top-p (≥ 1 = off), repetition penalty (1 = off). */
  readonly settings: F;
  /** U32 [3]: the seed's low and high word, and the number of draws so far. */
  readonly counter: U;
  /** U32 [V]: 1 for each id drawn so far. */
  readonly seen: U;
  /** I32 [R]: a ring, draw i at i mod R, so that one read returns the ids of several steps. */
  readonly drawn: I;
}

/** A checked call. */
export interface SampleCall {
  readonly op: "sample";
  readonly ids: Tensor;
  readonly logits: Tensor;
  readonly sampling: Sampling;
  /** Vocabulary. */
  readonly V: number;
  /** Length of the ring of drawn ids. */
  readonly R: number;
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function sampleCall(ids: Tensor, logits: Tensor, sampling: Sampling): SampleCall {
  const { settings, counter, seen, drawn } = sampling;
  const V = logits.shape[1];
  const R = drawn.shape[0];
  expectTensor("sample", "logits", logits, [1, V]);
  expectTensor("sample", "ids", ids, [ids.shape[0]], "I32");
  expectTensor("sample", "settings", settings, [4]);
  expectTensor("sample", "counter", counter, [3], "U32");
  expectTensor("sample", "seen", seen, [V], "U32");
  expectTensor("sample", "drawn", drawn, [R], "I32");
  expectThat("sample", ids.shape[0] >= 1 && R >= 1, "room for one id");
  expectThat("sample", ids !== drawn, "ids to be another tensor than drawn");
  return { op: "sample", ids, logits, sampling, V, R };
}

/** Operands and their access; of `ids`, `seen` and `drawn`, one element is written. */
export function sampleOperands({ ids, logits, sampling }: SampleCall) {
  const { settings, counter, seen, drawn } = sampling;
  return {
    ids: updates(ids),
    logits: reads(logits),
    settings: reads(settings),
    counter: updates(counter),
    seen: updates(seen),
    drawn: updates(drawn),
  };
}

/** Reads logits and `seen`; scales, penalises, adds noise to and compares each logit. */
export function sampleCost({ V }: SampleCall): Cost {
  return { name: "sample", bytes: V * (BYTES.F32 + BYTES.U32), flops: 4 * V };
}

/** Binds the call to typed arrays. */
export function bindSample({ V, sampling, ...call }: SampleCall): Closure {
  const [ids, logits] = [i32Of(call.ids), f32Of(call.logits)];
  const bound = {
    settings: f32Of(sampling.settings),
    counter: u32Of(sampling.counter),
    seen: u32Of(sampling.seen),
    drawn: i32Of(sampling.drawn),
  };
  const scratch = { kept: new Float32Array(V), sorted: new Float32Array(V) };
  return () => sampleJs(ids, logits, bound, scratch);
}

/** Settings of the filters; the head of this module has their formulas. */
export interface Filter {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
}

/**
 * Writes the scaled logits to `out` [V], and −Infinity for ids that are filtered out. `sorted` is
 * scratch [V].
 * @returns false if a logit is not finite; `out` is undefined then.
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
  const penalty = bounded(repetitionPenalty);
  let divisor = greedy ? 1 : bounded(temperature);
  let best = scaleLogits(out, logits, seen, divisor, penalty);
  if (best === NOT_FINITE) return false;
  if (!Number.isFinite(out[best])) {
    divisor *= REDUCTION;
    best = scaleLogits(out, logits, seen, divisor, penalty);
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

/** A divisor within the bounds of `LEAST_DIVISOR`. */
function bounded(divisor: number): number {
  return Math.min(Math.max(divisor, LEAST_DIVISOR), MOST_DIVISOR);
}

/** Scales and penalises; returns the lowest id of the greatest, or NOT_FINITE. */
function scaleLogits(
  out: Float32Array,
  logits: Float32Array,
  seen: Uint32Array,
  divisor: number,
  penalty: number,
): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    if (!Number.isFinite(logits[id])) return NOT_FINITE;
    out[id] = logits[id] / divisor;
    if (seen[id]) out[id] /= penalty;
    if (out[id] > out[best]) best = id;
  }
  return best;
}

/** The least of the ascending values ≥ `floor` whose greater values have probability ≤ `p`. */
function topPThreshold(
  sorted: Float32Array,
  floor: number,
  p: number,
): number {
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

/** Rotations of eight rounds, in bits. */
export const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * Threefry-2x32, 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 *
 * A counter-based generator: key and counter in, 64 random bits out, of which the first word is
 * returned. Only additions, rotations and XORs of 32-bit integers.
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

/** Gumbel noise of one id in one draw. u has 23 bits: exact in F32, and neither 0 nor 1. */
export function gumbel(seed0: number, seed1: number, draw: number, id: number): number {
  const u = ((threefry(seed0, seed1, draw, id) >>> 9) + 0.5) / 2 ** 23;
  return -Math.log(-Math.log(u));
}

/** Scratch of `sampleJs`, each [V]. */
export interface SampleScratch {
  readonly kept: Float32Array;
  readonly sorted: Float32Array;
}

/** The plain form, and oracle of the others. */
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

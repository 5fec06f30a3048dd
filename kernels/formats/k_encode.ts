/**
 * Quantisers of the K formats: the scale and the minimum of a group, by search.
 *
 * Method, as ggml's make_qkx2_quants and make_qx_quants: round with a few scales near
 * range / largest code; for each, the scale (and minimum) of least weighted squared error has a
 * closed form; the best of them wins. All steps are ggml's, in F32 and in its order, so that the
 * bytes are those of ggml's quantize_row_q4_K_ref etc., compiled without fused multiply-adds.
 *
 * @module
 */
import { HALVES } from "./half.ts";

const { fround } = Math;

/** Trick: 1.5 · 2²³ + x has no bits for a fraction: rounds to nearest, ties to even. */
export const ROUNDER = 12582912;

/** The nearest integer of an F32, ties to even. */
export function nearest(x: number): number {
  return fround(x + ROUNDER) - ROUNDER;
}

function clamp(x: number, least: number, most: number): number {
  return Math.min(Math.max(x, least), most);
}

/** Candidates of a search: scales (most + first + step · i) / range. */
export interface Search {
  readonly most: number;
  /** Numerators of the candidates, in F32. */
  readonly factors: readonly number[];
}

function searchOf(most: number, first: number, step: number, count: number): Search {
  const factor = (_: unknown, i: number) => fround(fround(first + fround(fround(step) * i)) + most);
  return { most, factors: Array.from({ length: count + 1 }, factor) };
}

/** The search of Q4_K's scales. */
export const SEARCH_4: Search = searchOf(15, -1, 0.1, 20);

/** The search of Q5_K's scales. */
export const SEARCH_5: Search = searchOf(31, -0.5, 0.1, 15);

/** Codes of `scaleOf` are −32 … 31, those of Q6_K. */
const MOST_6 = 32;

const STEPS_6 = [-9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/** Numerators of the candidates of `scaleOf`, in F32: −(32 + 0.1 · i). */
export const FACTORS_6: readonly number[] = STEPS_6.map((i) =>
  -fround(MOST_6 + fround(fround(0.1) * i))
);

const codes = new Float32Array(32);
const weights = new Float32Array(32);

/** Sets the weights of 32 numbers, the root mean square plus the magnitude, and adds up. */
function weigh(x: Float32Array) {
  let squares = 0;
  for (const v of x) squares = fround(squares + fround(v * v));
  const rms = fround(Math.sqrt(fround(squares / 32)));
  let [low, high, sumW, sumX] = [x[0], x[0], 0, 0];
  for (let i = 0; i < 32; i++) {
    low = Math.min(low, x[i]);
    high = Math.max(high, x[i]);
    weights[i] = rms + Math.abs(x[i]);
    sumW = fround(sumW + weights[i]);
    sumX = fround(sumX + fround(weights[i] * x[i]));
  }
  return { low: Math.min(low, 0), high, sumW, sumX };
}

/** Rounds x with a scale of 1 / inverse. */
function roundAll(x: Float32Array, low: number, inverse: number, most: number): void {
  for (let i = 0; i < 32; i++) {
    codes[i] = clamp(nearest(fround(inverse * fround(x[i] - low))), 0, most);
  }
}

/** Weighted squared error of the codes. */
function errorOf(x: Float32Array, scale: number, min: number): number {
  let error = 0;
  for (let i = 0; i < 32; i++) {
    const diff = fround(fround(fround(scale * codes[i]) + min) - x[i]);
    error = fround(error + fround(weights[i] * fround(diff * diff)));
  }
  return error;
}

/** The scale and the minimum of least error for the codes; null if there is none. */
function fit(x: Float32Array, sumW: number, sumX: number): [scale: number, min: number] | null {
  let [sumL, sumL2, sumXL] = [0, 0, 0];
  for (let i = 0; i < 32; i++) {
    const weighted = fround(weights[i] * codes[i]);
    sumL = fround(sumL + weighted);
    sumL2 = fround(sumL2 + fround(weighted * codes[i]));
    sumXL = fround(sumXL + fround(weighted * x[i]));
  }
  const minus = (a: number, b: number, c: number, d: number) =>
    fround(fround(a * b) - fround(c * d));
  const determinant = minus(sumW, sumL2, sumL, sumL);
  if (!(determinant > 0)) return null;
  const min = fround(minus(sumL2, sumX, sumL, sumXL) / determinant);
  if (min > 0) return [fround(sumXL / sumL2), 0];
  return [fround(minus(sumW, sumXL, sumX, sumL) / determinant), min];
}

/** Scale and minimum of 32 numbers, x ≈ scale · q − min with q in 0 … `most` and min ≥ 0. */
export function scaleAndMinOf(
  values: Float32Array,
  start: number,
  search: Search,
): [scale: number, min: number] {
  const x = values.subarray(start, start + 32);
  const { low, high, sumW, sumX } = weigh(x);
  if (high === low) return [0, -low];
  const inverse = fround(search.most / fround(high - low));
  roundAll(x, low, inverse, search.most);
  let [scale, min] = [fround(1 / inverse), low];
  let best = errorOf(x, scale, min);
  for (const factor of search.factors) {
    // As in ggml, a better minimum moves the range of the candidates after it.
    roundAll(x, min, fround(factor / fround(high - min)), search.most);
    const fitted = fit(x, sumW, sumX);
    const error = fitted ? errorOf(x, ...fitted) : Infinity;
    if (fitted && error < best) [best, scale, min] = [error, ...fitted];
  }
  return [scale, -min];
}

/** Magnitude below which a group of 16 is zero. */
export const LEAST_EXTREME = fround(1e-15);

/** Scale of 16 numbers, x ≈ scale · q with q in −32 … 31; weights are squares. */
export function scaleOf(values: Float32Array, start: number): number {
  let extreme = 0;
  for (let i = 0; i < 16; i++) {
    if (Math.abs(values[start + i]) > Math.abs(extreme)) extreme = values[start + i];
  }
  if (Math.abs(extreme) < LEAST_EXTREME) return 0;
  const sumsOf = (inverse: number) => {
    let [sumXL, sumL2] = [0, 0];
    for (let j = start; j < start + 16; j++) {
      const x = values[j];
      const code = clamp(nearest(fround(inverse * x)), -MOST_6, MOST_6 - 1);
      const weight = fround(x * x);
      sumXL = fround(sumXL + fround(fround(weight * x) * code));
      sumL2 = fround(sumL2 + fround(fround(weight * code) * code));
    }
    return [sumXL, sumL2];
  };
  const [sumXL, sumL2] = sumsOf(fround(-MOST_6 / extreme));
  let scale = sumL2 ? fround(sumXL / sumL2) : 0;
  let best = fround(scale * sumXL);
  for (const factor of FACTORS_6) {
    const [sumXL, sumL2] = sumsOf(fround(factor / extreme));
    if (sumL2 > 0 && fround(sumXL * sumXL) > fround(best * sumL2)) {
      scale = fround(sumXL / sumL2);
      best = fround(scale * sumXL);
    }
  }
  return scale;
}

/** Scales and minima of the eight groups of a Q4_K or Q5_K block. */
export interface GroupScales {
  /** F16 scales of scales and minima. */
  readonly d: number;
  readonly dmin: number;
  /** Six bits each. */
  readonly scales: readonly number[];
  readonly mins: readonly number[];
}

/** Finds the scales of 256 numbers. */
export function groupScales(values: Float32Array, start: number, search: Search): GroupScales {
  const found = Array.from({ length: 8 }, (_, g) => scaleAndMinOf(values, start + 32 * g, search));
  const [most, mostMin] = [0, 1].map((i) => Math.max(0, ...found.map((pair) => pair[i])));
  const bits = (i: 0 | 1, of: number) =>
    found.map((pair) => of > 0 ? clamp(nearest(fround(fround(63 / of) * pair[i])), 0, 63) : 0);
  return {
    d: HALVES.round(fround(most / 63)),
    dmin: HALVES.round(fround(mostMin / 63)),
    scales: bits(0, most),
    mins: bits(1, mostMin),
  };
}

/** Stores d, dmin, and the scales and minima as Q4_K packs them. */
export function storeScales(
  view: DataView,
  at: number,
  { d, dmin, scales, mins }: GroupScales,
): void {
  HALVES.set(view, at, d);
  HALVES.set(view, at + 2, dmin);
  for (let k = 0; k < 4; k++) {
    view.setUint8(at + 4 + k, scales[k] | scales[k + 4] >> 4 << 6);
    view.setUint8(at + 8 + k, mins[k] | mins[k + 4] >> 4 << 6);
    view.setUint8(at + 12 + k, scales[k + 4] & 15 | (mins[k + 4] & 15) << 4);
  }
}

/**
 * The code of a number whose group has a scale and a minimum; 0 if the scale is 0, where ggml keeps
 * a code of the search, which decodes to the same number.
 */
export function groupCode(
  x: number,
  group: number,
  { d, dmin, scales, mins }: GroupScales,
  most: number,
): number {
  const scale = d * scales[group];
  return scale ? clamp(nearest(fround(fround(x + dmin * mins[group]) / scale)), 0, most) : 0;
}

/** The code of a number with a scale and no minimum, from 0 on; 2 · `most` codes. */
export function centredCode(x: number, scale: number, most: number): number {
  return scale ? clamp(nearest(fround(x / scale)), -most, most - 1) + most : 0;
}

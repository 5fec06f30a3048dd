/**
 * Quantisers of the K formats: the scale and the minimum of a group, by search.
 *
 * Method, as ggml's make_qkx2_quants and make_qx_quants: round with a few scales near
 * range / largest code; for each, the scale (and minimum) of least weighted squared error has a
 * closed form; the best of them wins. The steps are ggml's; sums are doubles where ggml has F32, so
 * that of nearly equal candidates another one may win.
 *
 * @module
 */
import { HALVES } from "./half.ts";

/** The nearest integer, ties to even. */
export function nearest(x: number): number {
  return Math.fround(x + 12582912) - 12582912;
}

function clamp(x: number, least: number, most: number): number {
  return Math.min(Math.max(x, least), most);
}

/** Candidates of a search: scales (most + first + step · i) / range. */
export interface Search {
  readonly most: number;
  readonly first: number;
  readonly step: number;
  readonly count: number;
}

const codes = new Float64Array(32);
const weights = new Float64Array(32);

/**
 * Scale and minimum of 32 numbers, x ≈ scale · q − min with q in 0 … `most` and min ≥ 0. A number's
 * weight is the root mean square plus its magnitude.
 */
export function scaleAndMinOf(
  values: Float32Array,
  start: number,
  { most, first, step, count }: Search,
): [scale: number, min: number] {
  const x = values.subarray(start, start + 32);
  const rms = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / 32);
  let [low, high, sumW, sumX] = [Math.min(x[0], 0), x[0], 0, 0];
  for (let i = 0; i < 32; i++) {
    low = Math.min(low, x[i]);
    high = Math.max(high, x[i]);
    weights[i] = rms + Math.abs(x[i]);
    sumW += weights[i];
    sumX += weights[i] * x[i];
  }
  if (high === low) return [0, -low];
  let [scale, min] = [(high - low) / most, low];
  const round = (inverse: number) => {
    for (let i = 0; i < 32; i++) codes[i] = clamp(nearest(inverse * (x[i] - min)), 0, most);
  };
  const errorOf = (scale: number, min: number) => {
    let error = 0;
    for (let i = 0; i < 32; i++) error += weights[i] * (scale * codes[i] + min - x[i]) ** 2;
    return error;
  };
  round(1 / scale);
  let best = errorOf(scale, min);
  for (let i = 0; i <= count; i++) {
    // From the best minimum so far: a fixed one leaves an error 0.7 % larger.
    round((first + step * i + most) / (high - min));
    let [sumL, sumL2, sumXL] = [0, 0, 0];
    for (let j = 0; j < 32; j++) {
      const weighted = weights[j] * codes[j];
      sumL += weighted;
      sumL2 += weighted * codes[j];
      sumXL += weighted * x[j];
    }
    const determinant = sumW * sumL2 - sumL * sumL;
    if (determinant <= 0) continue;
    let tryScale = (sumW * sumXL - sumX * sumL) / determinant;
    let tryMin = (sumL2 * sumX - sumL * sumXL) / determinant;
    if (tryMin > 0) [tryScale, tryMin] = [sumXL / sumL2, 0];
    const error = errorOf(tryScale, tryMin);
    if (error < best) [best, scale, min] = [error, tryScale, tryMin];
  }
  return [scale, -min];
}

/** Scale of 16 numbers, x ≈ scale · q with q in −`most` … `most` − 1; weights are squares. */
export function scaleOf(values: Float32Array, start: number, most: number): number {
  let extreme = 0;
  for (let i = 0; i < 16; i++) {
    if (Math.abs(values[start + i]) > Math.abs(extreme)) extreme = values[start + i];
  }
  if (Math.abs(extreme) < 1e-15) return 0;
  let [scale, best] = [0, 0];
  for (const i of [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const inverse = -(most + 0.1 * i) / extreme;
    let [sumXL, sumL2] = [0, 0];
    for (let j = 0; j < 16; j++) {
      const x = values[start + j];
      const code = clamp(nearest(inverse * x), -most, most - 1);
      sumXL += x * x * x * code;
      sumL2 += x * x * code * code;
    }
    if (sumL2 > 0 && sumXL * sumXL > best * sumL2) {
      scale = sumXL / sumL2;
      best = scale * sumXL;
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
    found.map((pair) => of > 0 ? Math.min(63, nearest(63 / of * pair[i])) : 0);
  return {
    d: HALVES.round(most / 63),
    dmin: HALVES.round(mostMin / 63),
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

/** The code of a number whose group has a scale and a minimum; 0 if the scale is 0. */
export function groupCode(
  x: number,
  group: number,
  { d, dmin, scales, mins }: GroupScales,
  most: number,
): number {
  const scale = d * scales[group];
  return scale ? clamp(nearest((x + dmin * mins[group]) / scale), 0, most) : 0;
}

/** The code of a number with a scale and no minimum, from 0 on; 2 · `most` codes. */
export function centredCode(x: number, scale: number, most: number): number {
  return scale ? clamp(nearest(x / scale), -most, most - 1) + most : 0;
}

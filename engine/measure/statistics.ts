/**
 * Confidence intervals of means and of ratios of means, by a bootstrap with runs as units.
 *
 * Iterations are not independent draws: a process has its own memory layout, and the machine's slow
 * seconds cover several iterations or a whole run. A mean of ten iterations varies from run to run
 * about as much as an iteration varies within a run (docs/measurements.md). The units are therefore
 * whole runs (processes), R of them; below three, iterations stand in for them:
 *
 *     R ≥ 3    units = the runs' means           replicate = mean of R units
 *     R < 3    units = all iterations            replicate = one unit
 *
 * Method: a replicate's mean is m′. Few units make log(m′/m) too narrow, so it is multiplied by
 *
 *     c = t(0.975, f) / z(0.975) · √(k / (k − 1))            k units
 *
 * (Student's t; the bias of a bootstrap's variance: Hesterberg, 2015, section 5.3). The interval is
 * m · exp of the quantiles of c · log(m′/m) at 2.5 % and 97.5 %; of a ratio, of the difference of
 * both sides. f is k − 1, in a ratio of runs the sum of both sides.
 *
 * @module
 */
import { threefry } from "../../kernels/ops/sample/mod.ts";

/** A 95 % confidence interval. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** Raw samples of several runs, in the order they were measured. */
export type Runs = readonly (readonly number[])[];

/** Replicates of a bootstrap: the ends of the interval vary by about 2 % of its width. */
const REPLICATES = 2000;
/** Number of runs from which on they are the units. */
const LEAST_RUNS = 3;
/** Quantile of the normal distribution at 97.5 %. */
const Z = 1.959964;

/** The mean of the runs' means. */
export function meanOf(runs: Runs): number {
  return average(runs.map(average));
}

/**
 * Interval of the mean of positive samples.
 * @returns null for fewer than two samples.
 */
export function meanInterval(runs: Runs): Interval | null {
  const k = unitsOf(runs).length;
  return k < 2 ? null : intervalOf(meanOf(runs), deviationsOf(runs, 0, k - 1));
}

/**
 * Interval of mean(next) / mean(base).
 * @returns null if a side has fewer than two samples.
 */
export function ratioInterval(base: Runs, next: Runs): Interval | null {
  const [from, to] = [unitsOf(base).length, unitsOf(next).length];
  if (from < 2 || to < 2) return null;
  const areRuns = Math.min(base.length, next.length) >= LEAST_RUNS;
  const both = from + to - 2;
  const below = deviationsOf(base, 0, areRuns ? both : from - 1);
  const above = deviationsOf(next, 1, areRuns ? both : to - 1);
  return intervalOf(meanOf(next) / meanOf(base), above.map((change, i) => change - below[i]));
}

/** The runs' means, or the iterations that stand in for few runs. */
function unitsOf(runs: Runs): readonly number[] {
  return runs.length < LEAST_RUNS ? runs.flat() : runs.map(average);
}

function intervalOf(value: number, deviations: Float64Array): Interval {
  const sorted = deviations.toSorted();
  const at = (p: number) => value * Math.exp(sorted[Math.round(p * (sorted.length - 1))]);
  // A bootstrap of skewed samples may leave out the mean itself.
  return { low: Math.min(value, at(0.025)), high: Math.max(value, at(0.975)) };
}

/** Widened log(m′/m) of each replicate, with `degrees` of freedom. */
function deviationsOf(runs: Runs, stream: number, degrees: number): Float64Array {
  const [units, mean] = [unitsOf(runs), meanOf(runs)];
  const k = units.length;
  const widen = tQuantile(degrees) / Z * Math.sqrt(k / (k - 1));
  let draws = 0;
  const draw = () => units[threefry(stream, 0, draws++, 0) % k];
  const drawMean = () => runs.length < LEAST_RUNS ? draw() : average(units.map(draw));
  return Float64Array.from({ length: REPLICATES }, () => widen * Math.log(drawMean() / mean));
}

/**
 * Student's t at 97.5 %: a table up to 4 degrees of freedom, then the series of Fisher and Cornish
 * (1960), within 0.2 %.
 */
export function tQuantile(degrees: number): number {
  if (degrees < 5) return [12.7062, 4.30265, 3.18245, 2.77645][degrees - 1];
  const [z, n] = [Z, degrees];
  return z + (z ** 3 + z) / (4 * n) +
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * n ** 2) +
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * n ** 3);
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

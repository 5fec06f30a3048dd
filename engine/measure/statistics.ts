/**
 * Confidence intervals of means and of ratios of means, by a bootstrap over runs or blocks.
 *
 * Iterations are not independent draws: a run has its own memory layout, and a slow second of the
 * machine covers several iterations. The units of the resampling are therefore whole runs
 * (processes) if there are three or more, else blocks of ⌈n/3⌉ neighbouring iterations of n:
 *
 *     one run      a1 a2 a3 a4 a5 a6        n = 6, blocks of 2
 *     replicate    a3 a4 a6 a1 a2 a3        any block, circular; the mean of all is m′
 *
 * Method: circular block bootstrap (Politis and Romano, 1992), of two runs within drawn runs. Few
 * units make log(m′/m) too narrow, so it is multiplied by
 *
 *     c = t(0.975, f) / z(0.975) · √(k / (k − 1))            k units: runs, or blocks of a run
 *
 * (Student's t; the bias of a bootstrap's variance: Hesterberg, 2015, section 5.3). The interval is
 * m · exp of the quantiles of c · log(m′/m) at 2.5 % and 97.5 %; of a ratio, of the difference of
 * both sides. The degrees of freedom f are k − 1; those of a ratio of runs add up. Those of blocks
 * do not: disturbances outlast a block, and the wider interval makes up for it.
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
/** Blocks of a run's iterations at most, and runs from which on they are the units. */
const UNITS = 3;
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
  const k = unitsOf(runs);
  return k < 2 ? null : intervalOf(meanOf(runs), deviationsOf(runs, 0, k - 1));
}

/**
 * Interval of mean(next) / mean(base).
 * @returns null if a side has fewer than two samples.
 */
export function ratioInterval(base: Runs, next: Runs): Interval | null {
  const [from, to] = [unitsOf(base), unitsOf(next)];
  if (from < 2 || to < 2) return null;
  const areRuns = Math.min(base.length, next.length) >= UNITS;
  const both = from + to - 2;
  const below = deviationsOf(base, 0, areRuns ? both : from - 1);
  const above = deviationsOf(next, 1, areRuns ? both : to - 1);
  return intervalOf(meanOf(next) / meanOf(base), above.map((change, i) => change - below[i]));
}

/** k: runs, or blocks of a run. */
function unitsOf(runs: Runs): number {
  return Math.max(runs.length, ...runs.map((run) => Math.min(run.length, UNITS)));
}

function intervalOf(value: number, deviations: Float64Array): Interval {
  const sorted = deviations.toSorted();
  const at = (p: number) => value * Math.exp(sorted[Math.round(p * (sorted.length - 1))]);
  // A bootstrap of skewed samples may leave out the mean itself.
  return { low: Math.min(value, at(0.025)), high: Math.max(value, at(0.975)) };
}

/** Widened log(m′/m) of each replicate, with `degrees` of freedom. */
function deviationsOf(runs: Runs, stream: number, degrees: number): Float64Array {
  const k = unitsOf(runs);
  const widen = tQuantile(degrees) / Z * Math.sqrt(k / (k - 1));
  const [means, mean] = [runs.map(average), meanOf(runs)];
  let draws = 0;
  const draw = (below: number) => threefry(stream, 0, draws++, 0) % below;
  const drawMean = (run: number) => runs.length < UNITS ? blockMean(runs[run], draw) : means[run];
  return Float64Array.from({ length: REPLICATES }, () => {
    const drawn = runs.map(() => drawMean(draw(runs.length)));
    return widen * Math.log(average(drawn) / mean);
  });
}

/** Mean of as many resampled blocks of a run as it has. */
function blockMean(run: readonly number[], draw: (below: number) => number): number {
  const length = Math.ceil(run.length / UNITS);
  let sum = 0;
  for (let i = 0, at = 0; i < run.length; i++, at++) {
    if (i % length === 0) at = draw(run.length);
    sum += run[at % run.length];
  }
  return sum / run.length;
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

import assert from "node:assert/strict";
import {
  meanInterval,
  meanOf,
  ratioInterval,
  type Runs,
  tQuantile,
} from "../../../engine/measure/statistics.ts";
import { threefry } from "../../../kernels/ops/sample/mod.ts";
import { assertClose, TOLERANCE } from "../../testing.ts";

/** Standard normal numbers from a seed, by Box and Muller. */
function normals(seed: number): () => number {
  let count = 0;
  const uniform = () => (threefry(seed, 1, count++, 0) + 0.5) / 2 ** 32;
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Noise of a machine, in shares of the rate. */
interface Noise {
  /** Spread of the iterations. */
  readonly white: number;
  /** Spread of a disturbance that lasts several iterations: the next has 0.7 of this one's. */
  readonly slow: number;
  /** Spread of whole runs. */
  readonly run: number;
}

/** `runs` runs of `n` iterations at a rate of 1000. */
function simulate(next: () => number, runs: number, n: number, noise: Noise): Runs {
  return Array.from({ length: runs }, () => {
    const offset = noise.run * next();
    let slow = noise.slow * next();
    return Array.from({ length: n }, () => {
      slow = 0.7 * slow + Math.sqrt(1 - 0.7 ** 2) * noise.slow * next();
      return 1000 * Math.exp(offset + slow + noise.white * next());
    });
  });
}

/** Share of pairs of the same build whose interval of the ratio holds 1. */
function coverage(runs: number, n: number, noise: Noise, seed: number): number {
  const next = normals(seed);
  const pairs = 100;
  let held = 0;
  for (let i = 0; i < pairs; i++) {
    const [base, other] = [simulate(next, runs, n, noise), simulate(next, runs, n, noise)];
    const { low, high } = ratioInterval(base, other)!;
    if (low <= 1 && high >= 1) held++;
  }
  return held / pairs;
}

Deno.test("ratioInterval() holds 1 in 9 of 10 pairs of one build", () => {
  const cases: [what: string, runs: number, n: number, noise: Noise][] = [
    ["independent iterations", 1, 10, { white: 0.05, slow: 0, run: 0 }],
    ["three iterations", 1, 3, { white: 0.05, slow: 0, run: 0 }],
    ["slow disturbances", 1, 10, { white: 0.02, slow: 0.05, run: 0 }],
    ["slow disturbances, 30 iterations", 1, 30, { white: 0.02, slow: 0.05, run: 0 }],
    ["two runs that differ", 2, 10, { white: 0.02, slow: 0.02, run: 0.05 }],
    ["three runs that differ", 3, 10, { white: 0.02, slow: 0.02, run: 0.05 }],
    ["one run each, which differ", 1, 10, { white: 0.03, slow: 0.03, run: 0.03 }],
    ["runs that differ", 4, 10, { white: 0.02, slow: 0.02, run: 0.05 }],
  ];
  for (const [i, [what, runs, n, noise]] of cases.entries()) {
    const held = coverage(runs, n, noise, i);
    assert.ok(held >= 0.9, `${what}: ${held}`);
  }
});

Deno.test("ratioInterval() excludes 1 for a change larger than the noise", () => {
  const next = normals(7);
  const noise = { white: 0.01, slow: 0.01, run: 0 };
  const base = simulate(next, 1, 10, noise);
  const faster = simulate(next, 1, 10, noise).map((run) => run.map((rate) => 1.3 * rate));
  const { low, high } = ratioInterval(base, faster)!;
  assert.ok(low > 1 && high > low, `${low} to ${high}`);
  const back = ratioInterval(faster, base)!;
  assert.ok(back.high < 1, `${back.low} to ${back.high}`);
});

Deno.test("meanInterval() holds the mean, is narrow without noise, and is always the same", () => {
  const runs = simulate(normals(3), 1, 12, { white: 0.05, slow: 0, run: 0 });
  const { low, high } = meanInterval(runs)!;
  assert.ok(low < meanOf(runs) && meanOf(runs) < high);
  assert.deepEqual(meanInterval(runs), { low, high });
  assert.deepEqual(meanInterval([[5, 5, 5]]), { low: 5, high: 5 });
});

Deno.test("a bootstrap needs two samples, of one run or of two", () => {
  assert.equal(meanInterval([[5]]), null);
  assert.equal(ratioInterval([[5]], [[5, 6]]), null);
  assert.ok(meanInterval([[5], [6]])!.low < 5);
  assert.ok(ratioInterval([[5, 6]], [[5], [6]])!.high > 1);
});

Deno.test("tQuantile() gives Student's t at 97.5 %", () => {
  const table = { 1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 9: 2.262, 30: 2.042, 1000: 1.962 };
  for (const [degrees, t] of Object.entries(table)) {
    const share = tQuantile(Number(degrees)) / t;
    assert.ok(Math.abs(share - 1) < 0.002, `${degrees}: ${share}`);
  }
  assertClose([tQuantile(2)], [4.30265], TOLERANCE.kernel);
});

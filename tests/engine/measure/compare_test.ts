import assert from "node:assert/strict";
import { compareReports, pairReports } from "../../../engine/measure/compare.ts";
import type { BenchmarkReport } from "../../../engine/measure/report.ts";
import { assertClose, TOLERANCE } from "../../testing.ts";
import { sampleReport } from "./sample_report.ts";

type Results = BenchmarkReport["results"];

/** A report whose iterations have these rates, the first token after a tenth of their time. */
function rates(...tokensPerSec: number[]): BenchmarkReport {
  const per_iter = tokensPerSec.map((tokens_per_sec, i) => {
    const ms = 1000 * 4 / tokens_per_sec;
    const token_ms = [0.1 * ms, 0.3 * ms, 0.3 * ms, 0.3 * ms];
    return { started_ms: 0, seconds: ms / 1000, tokens_per_sec, seed: i, token_ms };
  });
  return sampleReport({ results: { per_iter } });
}

const metricOf = (base: BenchmarkReport, next: BenchmarkReport, name: string) =>
  compareReports(base, next).metrics.find(({ metric }) => metric === name)!;

Deno.test("compareReports() gives ratios of rates, and inverts times", () => {
  const [base, next] = [rates(100, 101, 99), rates(200, 202, 198)];
  const { metrics, obstacles, differences } = compareReports(base, next);
  assert.deepEqual([obstacles, differences], [[], []]);
  assert.deepEqual(metrics.map(({ metric }) => metric), [
    "tokens_per_sec",
    "prefill.tokens_per_sec",
    "decode.tokens_per_sec",
    "first_token_ms",
    "load_ms",
  ]);
  const [whole, prefill, decode, first, load] = metrics;
  assert.deepEqual([whole.base, whole.next, whole.samples], [100, 200, 3]);
  const ratios = [whole, decode, first].map(({ ratio }) => ratio);
  assertClose(ratios, [2, 2, 2], TOLERANCE.kernel);
  assert.ok(first.base > first.next, "in ms");
  for (const { low, high, ratio, verdict } of [whole, decode, first]) {
    assert.ok(low! > 1 && low! <= ratio && ratio <= high!, `${low} ${ratio} ${high}`);
    assert.equal(verdict, "faster");
  }
  assert.deepEqual([prefill.ratio, prefill.verdict], [1, "no difference seen"]);
  assert.deepEqual([load.low, load.high, load.samples, load.verdict], [null, null, 1, "not known"]);
  assert.equal(metricOf(next, base, "tokens_per_sec").verdict, "slower");
  assert.deepEqual(compareReports(base, next).metrics, metrics, "the same in every run");
});

Deno.test("compareReports() takes several reports a side, and their runs are the samples", () => {
  const one = (rate: number) => rates(rate);
  const { metrics } = compareReports([one(100), one(102), one(98)], [one(100), one(101)]);
  assert.deepEqual([metrics[0].base, metrics[0].next], [100, 100.5]);
  assert.equal(metrics[0].verdict, "no difference seen");
  assert.equal(metrics[0].samples, 2);
});

Deno.test("compareReports() names obstacles and differences by their keys", () => {
  const other = sampleReport({
    model: { id: "elsewhere/other/" },
    generation: { prompt_tokens: 7 },
    engine: { backend: "js", threads: 1 },
    results: { check: { ...sampleReport().results.check, passed: false } },
  });
  const { obstacles, differences } = compareReports(sampleReport(), other);
  assert.deepEqual(obstacles, [
    { key: "model.id", base: "demo", next: "other" },
    { key: "generation.prompt_tokens", base: "6", next: "7" },
    { key: "results.check", base: "not failed", next: "failed" },
  ]);
  assert.deepEqual(differences, [
    { key: "engine.backend", base: "wasm", next: "js" },
    { key: "engine.threads", base: "2", next: "1" },
  ]);
  const moved = sampleReport({ model: { id: "/home/me/demo" } });
  assert.deepEqual(compareReports(sampleReport(), moved).obstacles, [], "another path");
  assert.equal(compareReports(other, other).obstacles.length, 1, "both are wrong");
});

Deno.test("compareReports() reads reports of earlier versions, and leaves out what they lack", () => {
  const { check: _check, machine: _machine, ...results } = rates(100, 110).results;
  const { passes_ms: _passes, ...prefill } = results.prefill;
  const single = results.per_iter.map((iteration) => ({ ...iteration, token_ms: [] }));
  const old = {
    ...sampleReport(),
    results: { ...results, prefill, per_iter: single } as unknown as Results,
  };
  const { metrics, obstacles } = compareReports(old, old);
  assert.deepEqual(obstacles, []);
  assert.deepEqual(metrics.map(({ metric, samples }) => [metric, samples]), [
    ["tokens_per_sec", 2],
    ["prefill.tokens_per_sec", 1],
    ["load_ms", 1],
  ]);
});

Deno.test("compareReports() refuses what is no report in one sentence", () => {
  const compare = compareReports as (...sides: unknown[]) => unknown;
  const good = sampleReport();
  for (
    const [base, next, message] of [
      [null, good, /^Cannot compare: expected base to be a report with iterations, got null$/],
      [good, [], /expected next to be a report with iterations, got an empty list$/],
      [good, [good, { results: {} }], /expected next/],
      [sampleReport({ results: { per_iter: [] } }), good, /expected base/],
    ] as const
  ) {
    assert.throws(() => compare(base, next), { name: "TypeError", message });
  }
});

Deno.test("pairReports() pairs the combinations of sweeps, and names those of one side", () => {
  const on = (threads: number, dtype = "F32") => sampleReport({ engine: { threads, dtype } });
  const { pairs, alone } = pairReports([on(1), on(2), on(2)], [on(2), on(4)]);
  assert.deepEqual(pairs.map(({ base, next }) => [base.length, next.length]), [[2, 1]]);
  assert.match(pairs[0].title, /^demo in F32 on wasm, 2 threads, prompt 6, 4 tokens$/);
  assert.deepEqual(alone.map(({ side, title }) => [side, /\d thread/.exec(title)![0]]), [
    ["base", "1 thread"],
    ["next", "4 thread"],
  ]);
  assert.equal(pairReports([on(1)], [on(2, "F16")]).pairs.length, 1, "one combination each");
  assert.equal(pairReports([on(1), on(2)], [on(3)]).pairs.length, 0);
});

/**
 * Cost of a sweep beside its work: 12 combinations of the demo by the command line's own sweep.
 *
 *     cost = wall time − load − warm-ups and prefill − iterations with their gaps − checks
 *
 *     deno run -A bench/sweep_figures.ts
 *
 * @module
 */
import { combinationsOf } from "../cli/combinations.ts";
import { parseArguments } from "../cli/parse.ts";
import { runSweep } from "../cli/sweep.ts";
import { BenchmarkRun } from "../engine/measure/benchmark.ts";

/** Milliseconds of each step, summed over the combinations. */
const spent = { load: 0, warmUp: 0, iterate: 0, report: 0 };

for (const name of ["warmUp", "iterate", "report"] as const) {
  const step = BenchmarkRun.prototype[name] as () => Promise<unknown>;
  const steps = BenchmarkRun.prototype as unknown as Record<string, unknown>;
  steps[name] = async function (this: BenchmarkRun) {
    const start = performance.now();
    try {
      return await step.call(this);
    } finally {
      spent[name] += performance.now() - start;
    }
  };
}

const args = ["--threads", "1,2", "--dtype", "F16,BF16,F32", "--gen-tokens", "32,64"];
const config = { generation: {}, warnings: [] };
const start = performance.now();
const combinations = await combinationsOf(parseArguments(["--device", "wasm", ...args]), config);
const records = await runSweep(combinations, config, new AbortController().signal);
const wall = performance.now() - start;
const loads = new Map<string, number>();
for (const record of records) {
  if (!("results" in record)) throw new Error(record.error);
  // Combinations that share a model have its time of loading.
  const { threads, dtype } = record.engine;
  loads.set(`${threads} ${dtype}`, record.results.load_ms);
}
spent.load = [...loads.values()].reduce((a, b) => a + b);
const rest = wall - Object.values(spent).reduce((a, b) => a + b);
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
console.log(
  `${records.length} combinations in ${seconds(wall)}: load ${seconds(spent.load)}, ` +
    `warm-ups and prefill ${seconds(spent.warmUp)}, iterations ${seconds(spent.iterate)}, ` +
    `checks ${seconds(spent.report)}; beside them ${seconds(rest)}, ` +
    `${seconds(rest / records.length)} a combination`,
);

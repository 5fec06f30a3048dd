/**
 * `bench`: measures a model, or every combination of listed values; writes rows and reports.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import { benchmark, type BenchmarkOptions, type Config, warnings } from "../mod.ts";
import { addProfile, benchmarkOptions, saySummary } from "./bench_run.ts";
import { type Combination, combinationsOf } from "./combinations.ts";
import { deliver, type Outputs, prepareOutputs } from "./deliver.ts";
import { plural } from "./format.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { openModel, readSettings, sayModel } from "./session.ts";
import { runSweep } from "./sweep.ts";
import { clearStatus, note } from "./terminal.ts";

/** Runs the command. Errors that can be known early come before the load. */
export async function bench(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const config = await readSettings(given);
  const combinations = await combinationsOf(invocation, config);
  const outputs = await prepareOutputs(given);
  if (given.stream) note("--stream changes nothing here: timing never streams");
  if (combinations.length === 1) return await benchOne(combinations[0], config, outputs, signal);

  const records = await runSweep(combinations, config, signal);
  clearStatus();
  const missing = combinations.length - records.length;
  if (missing) {
    note(`interrupted: ${plural(missing, "combination")} without a finished iteration, no row`);
  }
  if (records.length) await deliver(records, outputs);
  if (records.every((record) => "error" in record) && !signal.aborted) {
    throw new Error("Cannot measure: none of the combinations could run");
  }
}

async function benchOne(
  { chosen, given, error }: Combination,
  config: Config,
  outputs: Outputs,
  signal: AbortSignal,
): Promise<void> {
  if (error) throw error;
  const iters = given.iters ?? DEFAULTS.iters;
  using progress = new Progress(iters);
  let options: BenchmarkOptions = {};
  await using model = await openModel(chosen, given, config, progress, signal, (loadable) => {
    const fitted = benchmarkOptions(chosen, given, config, loadable);
    if (fitted.note) note(fitted.note);
    options = fitted.options;
  });
  signal.throwIfAborted();
  sayModel(model, chosen.id);
  const report = await benchmark(model, {
    ...options,
    iters,
    signal,
    onProgress: progress.measure,
  });
  signal.throwIfAborted();
  clearStatus();
  saySummary(report);
  warnings(report).forEach(note);
  try {
    if (given.profile) await addProfile(report, model, signal);
  } finally {
    await deliver(report, outputs);
  }
}

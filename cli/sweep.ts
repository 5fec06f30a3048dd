/**
 * Sweep of `bench`: every combination of listed values, a row each.
 *
 * @module
 */
import type { FailureReport } from "../engine/measure/history.ts";
import { sweep, type SweepResult } from "../engine/measure/sweep.ts";
import { randomSeed } from "../engine/generate.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { type Config, type SweepRecord, VERSION, warnings } from "../mod.ts";
import { messageOf } from "../engine/errors.ts";
import { addProfile, benchmarkOptions } from "./bench_run.ts";
import { type Combination, groupsOf } from "./combinations.ts";
import { plural } from "./format.ts";
import { Progress, SweepStatus } from "./progress.ts";
import { openModel } from "./session.ts";
import { note, noteOnce, say } from "./terminal.ts";
import { runtime } from "../engine/host/runtime.ts";

/** Share of the free memory that the models of a round may take. */
const MEMORY_SHARE = 0.8;
/** Bytes that they may take where the free memory is unknown. */
const UNKNOWN_ROOM = 2 * 2 ** 30;

/**
 * Measures the combinations. An interrupt ends the sweep; finished iterations count.
 * @returns the rows, without combinations that had no finished iteration when it was ended.
 */
export async function runSweep(
  combinations: readonly Combination[],
  config: Config,
  signal: AbortSignal,
): Promise<SweepRecord[]> {
  const iters = combinations[0].given.iters ?? DEFAULTS.iters;
  const seed = combinations[0].given.seed ?? config.generation.seed ?? randomSeed();
  say(`a sweep of ${plural(combinations.length, "combination")}`);
  using status = new SweepStatus(combinations.length);
  using progress = new Progress();
  const groups = groupsOf(combinations, async ({ chosen, given, error }, check) => {
    if (error) throw error;
    return await openModel(chosen, { ...given, strict: true }, config, progress, signal, check);
  });
  const results = await sweep(groups, {
    seed,
    iters,
    signal,
    room: freeMemory(),
    settings: ({ chosen, given }, loadable) => {
      const { note: sentence, options } = benchmarkOptions(chosen, given, config, loadable);
      if (sentence) noteOnce(sentence);
      return options;
    },
    onRound: (models) =>
      note(
        `the models do not fit in memory together: ${plural(models, "model")} left for ` +
          "another round, whose iterations do not alternate with the earlier ones",
      ),
    onFailure: ({ label }, reason) => note(`${label}: not run: ${reason}`),
    onProgress: ({ member, ...rest }) => status.show(member.label, rest),
    onReport: async ({ label, given }, report, model) => {
      if (!given.profile) return;
      say(label);
      try {
        await addProfile(report, model, signal);
      } catch (error) { // the other rows took minutes to measure
        note(`${label}: no profile: ${messageOf(error)}`);
      }
    },
  });
  return results.flatMap(recordOf);
}

function recordOf({ member, report, error }: SweepResult<Combination>): SweepRecord[] {
  if (report) {
    warnings(report).forEach((sentence) => note(`${member.label}: ${sentence}`));
    return [report];
  }
  return error === undefined ? [] : [failureOf(member, error)];
}

function failureOf({ chosen, given }: Combination, error: string): FailureReport {
  return {
    schema_version: 1,
    timestamp: new Date().toISOString(),
    error,
    engine: {
      name: "wgslm",
      version: VERSION,
      backend: given.device ?? DEFAULTS.device,
      threads: given.threads ?? null,
      dtype: given.dtype ?? DEFAULTS.dtype,
      kv_dtype: given["kv-dtype"] ?? DEFAULTS.kvDtype,
      activations: given.activations ?? "exact",
    },
    model: { source: chosen.origin, id: chosen.id },
    generation: {
      prompt_tokens: given["prompt-tokens"] ?? null,
      gen_tokens: given["gen-tokens"] ?? null,
      context_length: given.context ?? null,
      use_kv_cache: given["use-kv-cache"] ?? DEFAULTS.useKvCache,
    },
  };
}

function freeMemory(): number {
  try {
    return MEMORY_SHARE * runtime.systemMemoryInfo().available;
  } catch { // not permitted
    return UNKNOWN_ROOM;
  }
}

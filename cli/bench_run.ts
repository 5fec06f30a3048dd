/**
 * One run of `bench`: its options, its profile, its summary.
 *
 * @module
 */
import type { Loadable } from "../engine/load.ts";
import {
  type BenchmarkOptions,
  type BenchmarkReport,
  type Config,
  type Model,
  profile,
} from "../mod.ts";
import { type AskedSize, fitBenchmark } from "./bench_size.ts";
import type { Given } from "./flags.ts";
import { bytes, duration, plural, rate } from "./format.ts";
import { profileTable } from "./profile.ts";
import type { Chosen } from "./session.ts";
import { fancy, say, showStatus } from "./terminal.ts";

/**
 * The options of a run, fitted to a model's context.
 * @returns them, and a note on defaults that were changed.
 * @throws {RangeError} If a value that was asked for does not fit.
 * @throws {CheckpointError} If a text is asked for and there is no tokenizer.
 */
export function benchmarkOptions(
  chosen: Chosen,
  given: Given,
  { generation }: Config,
  loadable: Loadable,
): { options: BenchmarkOptions; note?: string } {
  const seed = given.seed ?? generation.seed ?? null;
  const { note, ...size } = fitBenchmark(loadable, askedSize(given), seed ?? 0);
  const { temperature, topK, topP, repetitionPenalty, deterministic } = generation;
  return {
    note,
    options: {
      ...size,
      ...{ temperature, topK, topP, repetitionPenalty, deterministic, seed },
      source: chosen.origin,
      id: chosen.id,
      useKvCache: given["use-kv-cache"] ?? generation.useKvCache,
    },
  };
}

function askedSize(given: Given): AskedSize {
  return {
    prompt: given.prompt,
    promptTokens: given["prompt-tokens"],
    genTokens: given["gen-tokens"],
    warmupTokens: given["warmup-tokens"],
  };
}

/**
 * Profiles a token in the middle of a generation; last, so that it changes no figure of the report.
 */
export async function addProfile(
  report: BenchmarkReport,
  model: Model,
  signal: AbortSignal,
): Promise<void> {
  const { prompt_tokens, gen_tokens } = report.generation;
  const length = prompt_tokens + Math.floor(gen_tokens / 2);
  if (fancy) showStatus("profile");
  report.results.profile = await profile(model, { length, signal });
  say(profileTable(report.results.profile).trimEnd());
}

/** Lines on a run's figures. */
export function saySummary({ results }: BenchmarkReport): void {
  const { tokens_per_sec: whole, prefill, decode, engine_warmup: engine } = results;
  const times = engine.steady ? "steady" : "not steady yet";
  say(`engine warm-up: ${duration(engine.ms)}, ${plural(engine.rounds, "round")}, times ${times}`);
  say(
    `${rate(whole.mean)} (${whole.min.toFixed(2)} to ${whole.max.toFixed(2)}), ` +
      `first token after ${duration(results.first_token_ms)}, ` +
      `at most ${bytes(Math.round(results.buffer_peak_mib * 2 ** 20))} of buffers`,
  );
  const { p50, p99 } = decode.ms_per_token;
  let line = `prefill ${rate(prefill.tokens_per_sec)}`;
  if (decode.tokens_per_sec !== null) line += `, decode ${rate(decode.tokens_per_sec)}`;
  if (p50 !== null && p99 !== null) {
    line += ` (a token in ${duration(p50)}, 99 of 100 within ${duration(p99)})`;
  }
  say(line);
  sayTrust(results);
}

/** A line on how far a run's figures can be trusted. */
function sayTrust({ tokens_per_sec, limit, check }: BenchmarkReport["results"]): void {
  const { mean, low, high } = tokens_per_sec;
  const parts: string[] = [];
  if (low !== null && high !== null) {
    const [down, up] = [low, high].map((end) => (100 * (end / mean - 1)).toFixed(1));
    parts.push(`95 % interval ${down} % to +${up} %`);
  }
  if (limit.decode_share !== null) {
    const [read, peak] = [limit.read_gb_per_s, limit.gflops].map((value) => value!.toFixed(1));
    const share = `${Math.round(100 * limit.decode_share)} %`;
    parts.push(`decode at ${share} of the limit (${read} GB/s, ${peak} GFLOP/s)`);
  }
  if (check.passed) parts.push(`${plural(check.tokens, "token")} checked against ${check.against}`);
  else if (check.passed === null) parts.push(`not checked: ${check.reason}`);
  if (parts.length) say(parts.join("; "));
}

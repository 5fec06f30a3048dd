/**
 * `bench`: measures a model; writes the row and the report.
 *
 * @module
 */
import { DEFAULTS } from "../engine/defaults.ts";
import {
  benchmark,
  type BenchmarkReport,
  type Model,
  profile,
  toJson,
  toMarkdown,
  warnings,
} from "../mod.ts";
import { type AskedSize, type BenchmarkSize, fitBenchmark } from "./bench_size.ts";
import { type Given, UsageError } from "./flags.ts";
import { bytes, duration, plural, rate } from "./format.ts";
import { type Output, prepareOutput, sameFile } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { profileTable } from "./profile.ts";
import { Progress } from "./progress.ts";
import { chooseModel, openModel, readSettings, sayModel } from "./session.ts";
import { clearStatus, fancy, note, print, say, showStatus } from "./terminal.ts";

/** Runs the command. Errors that can be known early come before the load. */
export async function bench(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const jsonPath = given["json-out"];
  const mdPath = given["md-out"];
  const config = await readSettings(given);
  const chosen = chooseModel(invocation, config);
  if (jsonPath !== undefined && mdPath !== undefined && sameFile(jsonPath, mdPath)) {
    throw new UsageError(`--json-out and --md-out are the same file, "${jsonPath}"`);
  }
  const json = jsonPath === undefined ? undefined : prepareOutput(jsonPath);
  const md = mdPath === undefined ? undefined : prepareOutput(mdPath);
  if (given.stream) note("--stream changes nothing here: timing never streams");

  const iters = given.iters ?? DEFAULTS.iters;
  using progress = new Progress(iters);
  const { generation } = config;
  const seed = given.seed ?? generation.seed ?? null;
  let size: BenchmarkSize | undefined;
  await using model = await openModel(chosen, given, config, progress, signal, (loadable) => {
    size = fitBenchmark(loadable, askedSize(given), seed ?? 0);
    if (size.note) note(size.note);
  });
  signal.throwIfAborted();
  sayModel(model, chosen.id);
  const report = await benchmark(model, {
    prompt: size?.prompt,
    genTokens: size?.genTokens,
    warmupTokens: size?.warmupTokens,
    source: chosen.origin,
    id: chosen.id,
    iters,
    temperature: generation.temperature,
    topK: generation.topK,
    topP: generation.topP,
    repetitionPenalty: generation.repetitionPenalty,
    seed,
    deterministic: generation.deterministic,
    useKvCache: given["use-kv-cache"] ?? generation.useKvCache,
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
    deliver(report, json, md);
  }
}

/**
 * Profiles a token in the middle of a generation; last, so that it changes no figure of the report.
 */
async function addProfile(
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

/** Prints the row even if a file fails: it took minutes to measure. */
function deliver(report: BenchmarkReport, json?: Output, md?: Output): void {
  const failures: unknown[] = [];
  for (const [output, text] of [[json, toJson(report)], [md, toMarkdown(report)]] as const) {
    try {
      output?.write(text);
      if (output) say(`wrote ${output.path}`);
    } catch (error) {
      failures.push(error);
    }
  }
  print(toMarkdown(report));
  if (failures.length) throw failures[0];
}

function askedSize(given: Given): AskedSize {
  return {
    prompt: given.prompt,
    promptTokens: given["prompt-tokens"],
    genTokens: given["gen-tokens"],
    warmupTokens: given["warmup-tokens"],
  };
}

function saySummary({ results }: BenchmarkReport): void {
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
}

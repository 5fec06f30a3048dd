/**
 * Benchmark of a model: prefill time, then generations of one length, timed whole and per token.
 *
 *     engine      short passes until V8 has compiled them, at most 2 s      not measured
 *     warm-up     one generation of `warmupTokens`                          not measured
 *     prefill     the prompt, to the logits of its last token               median of three
 *     iteration   one generation of `genTokens`, `iters` times              peak memory, times
 *     gap         before each iteration and after the last                  limits of the machine
 *     check       a short greedy run, compared with typed arrays            passed or not
 *
 * The report is a record (`report.ts`); nothing here formats it or writes to a terminal.
 *
 * @module
 */
import { DEFAULTS } from "../defaults.ts";
import { checkGenerate, randomSeed } from "../generate.ts";
import { findHost } from "../host/choose.ts";
import type { Host } from "../host/mod.ts";
import { instrumentsOf, type Model, remoteCalls } from "../model.ts";
import { copyIds, expectType, isOptions } from "../options.ts";
import { checkModel, notRun } from "./check.ts";
import { GapLimits } from "./limit.ts";
import { MemoryStages } from "./memory_stages.ts";
import { MachineWatch } from "./machine.ts";
import { makeReport, quantile } from "./make_report.ts";
import { drawPrompt } from "./prompt.ts";
import type { BenchmarkReport, IterationReport } from "./report.ts";
import type { Runner } from "../runner.ts";
import type { SamplingOptions } from "../sampler.ts";
import { MOST_ROUNDS, type WarmUp, warmUp } from "./warm_up.ts";

/** Progress of a benchmark. */
export interface BenchmarkProgress {
  /** The current stage, in this order. */
  readonly stage: "engine" | "warmup" | "prefill" | "iteration";
  /** Index of the iteration, from 0; only in the stage "iteration". */
  readonly iteration?: number;
  /** Tokens of this stage so far; of the stage "engine", rounds. */
  readonly tokens: number;
  /** Tokens of this stage in total; of the stage "engine", rounds at most until its end. */
  readonly total: number;
  /** Rate of this stage so far, prompt included. */
  readonly tokensPerSec?: number;
}

/** Options of a benchmark; the defaults are those of the command line. */
export interface BenchmarkOptions extends SamplingOptions {
  /** Origin of the model, for the report. Default "local". */
  readonly source?: "local" | "hf";
  /** Name of the model, for the report. Default the source that it was loaded from. */
  readonly id?: string;
  /** Text or ids. Default "ROMEO:"; without a tokenizer, 128 ids drawn from the seed. */
  readonly prompt?: string | readonly number[];
  /** Tokens of each measured generation. Default 256. */
  readonly genTokens?: number;
  /** Tokens of the generation before them, which is not measured; 0 is none. Default 64. */
  readonly warmupTokens?: number;
  /** Number of measured generations. Default 3. */
  readonly iters?: number;
  /** Seed; iteration i draws with seed + i. null, the default, picks one at random. */
  readonly seed?: number | null;
  /** As in `GenerateOptions`. Default false. */
  readonly deterministic?: boolean;
  /** As in `GenerateOptions`. Default true. */
  readonly useKvCache?: boolean;
  /** Only written into the report, for timing never streams. Default false. */
  readonly stream?: boolean;
  /** Ends the benchmark without a report. */
  readonly signal?: AbortSignal;
  /** Called at most five times a second. Its time is measured too, so it should be short. */
  readonly onProgress?: (progress: BenchmarkProgress) => void;
}

/**
 * Measures a model.
 *
 * The rate of an iteration is its generated tokens divided by its wall time, prompt included;
 * `stddev` is the population's. A decode time is the time from one id to the next; percentiles are
 * interpolated linearly, as numpy.percentile does. `decode.tokens` counts one iteration, as
 * `gen_tokens` does; the rate and percentiles of `decode` are over all iterations.
 *
 * @param model a loaded model.
 * @param options prompt, lengths, sampling, and texts for the report.
 * @throws {TypeError} If an option is of the wrong type; before anything runs.
 * @throws {RangeError} If an option is out of range, or the prompt leaves no room for its tokens;
 *   before anything runs.
 * @throws {CheckpointError} If the prompt is text and there is no tokenizer, or a logit is not
 *   finite.
 * @throws the signal's reason, if it is aborted.
 * @example
 * ```ts
 * import { benchmark, loadModel, toMarkdown } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const report = await benchmark(model, { genTokens: 8, warmupTokens: 0, iters: 1 });
 * console.log(toMarkdown(report));
 * ```
 */
export async function benchmark(
  model: Model,
  options: BenchmarkOptions = {},
): Promise<BenchmarkReport> {
  const remote = remoteCalls.get(model);
  if (remote) return await remote("benchmark", [], options);
  await using run = new BenchmarkRun(model, options);
  options.signal?.throwIfAborted();
  await run.warmUp();
  while (run.done < run.iters) await run.iterate();
  const report = await run.report();
  options.signal?.throwIfAborted();
  return report;
}

/**
 * A benchmark in steps, so that the iterations of several can alternate. The steps of one are
 * called in this order, and no two at a time:
 *
 *     warmUp() ──▶ iterate() … iterate() ──▶ report() ──▶ dispose
 *
 * A step that fails or is aborted leaves the iterations before it, which `report` still gives.
 * Disposing of it frees the buffer and threads that measure the machine's limits, not the model.
 */
export class BenchmarkRun implements AsyncDisposable {
  readonly #model: Model;
  readonly #plan: Checked;
  readonly #iterations: IterationReport[] = [];
  readonly #start = performance.now();
  #host: Host | null = null;
  #watch: MachineWatch | null = null;
  #limits: GapLimits | null = null;
  #engineWarmUp: WarmUp | null = null;
  #prefill: BenchmarkReport["results"]["prefill"] | null = null;
  readonly #memory: MemoryStages;

  /**
   * Checks model and options, as `benchmark` does.
   * @throws {TypeError} If an option is of the wrong type.
   * @throws {RangeError} If an option is out of range, or the prompt leaves no room for its tokens.
   * @throws {CheckpointError} If the prompt is text and there is no tokenizer.
   */
  constructor(model: Model, options: BenchmarkOptions) {
    this.#model = model;
    this.#plan = checkBenchmark(model, options);
    this.#memory = new MemoryStages(model.memory);
  }

  /** Number of iterations asked for. */
  get iters(): number {
    return this.#plan.iters;
  }

  /** Number of finished iterations. */
  get done(): number {
    return this.#iterations.length;
  }

  /** Warms up engine and model, and times the prefill. */
  async warmUp(): Promise<void> {
    const host = this.#host = await findHost();
    this.#watch = new MachineWatch(host);
    const { warmupTokens, seed } = this.#plan;
    this.#limits = await GapLimits.open(this.#model, host.compute);
    this.#engineWarmUp = await this.#memory.during("warmup", async () => {
      const outcome = await warmUpEngine(this.#model, this.#plan);
      if (warmupTokens) await measure(this.#model, this.#plan, "warmup", warmupTokens, seed);
      return outcome;
    });
    this.#prefill = await this.#memory.during(
      "prefill",
      () => measurePrefill(this.#model, this.#plan),
    );
  }

  /** Measures the machine's limits, then times the next generation. */
  async iterate(): Promise<void> {
    const { genTokens, seed, signal } = this.#plan;
    const i = this.done;
    await this.#limits!.measure(signal);
    const started_ms = performance.now() - this.#start;
    const iteration = await this.#watch!.during(() =>
      this.#memory.during(
        "iterations",
        () => measure(this.#model, this.#plan, "iteration", genTokens, seed + i, i),
      )
    );
    this.#iterations.push({ started_ms, ...iteration });
  }

  /**
   * Measures the last gap, checks the model against the plain backend, and makes the report of the
   * finished iterations, of which there must be one or more. After an abort, nothing is measured.
   */
  async report(): Promise<BenchmarkReport> {
    if (!this.#host || !this.#engineWarmUp || !this.#prefill || !this.done) {
      throw new Error("Cannot report a run: expected a finished iteration, got none");
    }
    const { settings, signal } = this.#plan;
    const check = await unlessAborted(signal, async () => {
      await this.#limits!.measure(signal);
      return await checkModel(this.#model, { ...settings, signal });
    });
    return await makeReport(this.#host, this.#model, this.#plan, {
      engineWarmUp: this.#engineWarmUp,
      prefill: this.#prefill,
      iterations: this.#iterations,
      memory: this.#memory,
      limits: this.#limits!,
      machine: this.#watch!.report(),
      check: check ?? notRun("the run was interrupted"),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#limits?.[Symbol.asyncDispose]();
  }
}

/** Result of `act`; undefined if it was aborted. */
async function unlessAborted<T>(
  signal: AbortSignal | undefined,
  act: () => Promise<T>,
): Promise<T | undefined> {
  if (signal?.aborted) return undefined;
  try {
    return await act();
  } catch (error) {
    if (signal?.aborted) return undefined;
    throw error;
  }
}

/** Checked options with their defaults, and the prompt as ids. */
type Checked = ReturnType<typeof checkBenchmark>;

function checkBenchmark(model: Model, options: BenchmarkOptions) {
  expectType("Cannot benchmark: expected options", "an object", isOptions(options), options);
  const genTokens = expectCount("genTokens", options.genTokens ?? DEFAULTS.genTokens, 1);
  const warmupTokens = expectCount("warmupTokens", options.warmupTokens ?? DEFAULTS.warmupTokens);
  const iters = expectCount("iters", options.iters ?? DEFAULTS.iters, 1);
  const seed = expectCount("seed", options.seed ?? randomSeed());
  expectCount("seed + iters - 1", seed + iters - 1);
  const { temperature, topK, topP, repetitionPenalty, deterministic, useKvCache, signal } = options;
  const settings = checkGenerate({
    ...{ temperature, topK, topP, repetitionPenalty, deterministic, useKvCache, signal, seed },
    ignoreEos: true, // every run equally long
    reusePrompt: false,
  });
  const prompt = options.prompt ??
    (model.hasTokenizer
      ? DEFAULTS.prompt
      : drawPrompt(DEFAULTS.promptTokens, model.config.vocabSize, seed));
  const ids = typeof prompt === "string"
    ? model.tokenizer.encode(prompt)
    : copyIds(prompt, model.config.vocabSize);
  expectRoom(model, ids.length, Math.max(genTokens, warmupTokens));
  const { source, id, stream, onProgress } = options;
  const askedSeed = options.seed ?? null;
  return {
    ...{ source, id, stream, onProgress, signal, prompt, ids, settings },
    ...{ genTokens, warmupTokens, iters, seed, askedSeed },
  };
}

/**
 * Checks that a prompt and the tokens after it fit the context.
 * @throws {RangeError} If they do not, or the prompt is empty.
 */
export function expectRoom(
  { contextLength, slides }: Pick<Model, "contextLength" | "slides">,
  promptTokens: number,
  tokens: number,
): void {
  if (!promptTokens) {
    throw new RangeError("Cannot benchmark: expected a prompt of at least 1 token, got none");
  }
  if (slides || promptTokens + tokens <= contextLength) return;
  throw new RangeError(
    `Cannot benchmark: expected the prompt's ${promptTokens} tokens and ${tokens} more to fit ` +
      `the context of ${contextLength}`,
  );
}

function expectCount(name: string, value: number, least = 0): number {
  const what = `Cannot benchmark: expected ${name}`;
  const type = `an integer of at least ${least}`;
  expectType(what, type, typeof value === "number", value);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new RangeError(`${what} to be ${type}, got ${value}`);
}

/** Warms the engine up, which changes no id that is drawn later. */
async function warmUpEngine(
  model: Model,
  { ids, settings, signal, onProgress }: Checked,
): Promise<WarmUp> {
  const show = (tokens: number, total = MOST_ROUNDS) =>
    onProgress?.({ stage: "engine", tokens, total });
  show(0);
  const work = async (runner: Runner, ids: readonly number[]) => {
    await runner.useFixed(settings.deterministic);
    return await warmUp(runner, ids, settings, { signal, onRound: show });
  };
  const window = ids.slice(-model.contextLength);
  const outcome = await instrumentsOf(model).run(window, work, signal);
  show(outcome.rounds, outcome.rounds);
  return outcome;
}

/** Milliseconds between two calls of `onProgress`. */
const PROGRESS_MS = 200;

/** Times one generation. */
async function measure(
  model: Model,
  { ids, settings, signal, onProgress }: Checked,
  stage: "warmup" | "iteration",
  total: number,
  seed: number,
  iteration?: number,
): Promise<Omit<IterationReport, "started_ms">> {
  const token_ms: number[] = [];
  const start = performance.now();
  let last = start;
  let shown = start;
  const show = () => {
    shown = last;
    const tokens = token_ms.length;
    const tokensPerSec = tokens ? 1000 * tokens / (last - start) : undefined;
    onProgress?.({ stage, iteration, tokens, total, tokensPerSec });
  };
  show();
  const onRead = (count: number) => {
    const now = performance.now();
    const share = (now - last) / count; // ids read together share the time
    for (let i = 0; i < count; i++) token_ms.push(share);
    last = now;
    if (now - shown >= PROGRESS_MS) show();
  };
  const options = { ...settings, maxNewTokens: total, seed };
  const tokens = instrumentsOf(model).generate(ids, options, onRead);
  for await (const _ of tokens);
  const seconds = (performance.now() - start) / 1000;
  signal?.throwIfAborted();
  show();
  return { seconds, tokens_per_sec: total / seconds, seed, token_ms };
}

/** Times a pass over the prompt: the median of three, or one pass of a second or more. */
async function measurePrefill(
  model: Model,
  { ids, signal, onProgress }: Checked,
): Promise<BenchmarkReport["results"]["prefill"]> {
  const window = ids.slice(-model.contextLength); // all that a sliding model sees
  const tokens = window.length;
  onProgress?.({ stage: "prefill", tokens: 0, total: tokens });
  const work = (runner: Runner, ids: readonly number[]) => runner.lastLogits(ids, signal);
  const times: number[] = [];
  do {
    signal?.throwIfAborted();
    const start = performance.now();
    await instrumentsOf(model).run(window, work, signal);
    times.push(performance.now() - start);
  } while (times[0] < 1000 && times.length < 3);
  signal?.throwIfAborted();
  const ms = quantile(times, 0.5);
  const tokens_per_sec = 1000 * tokens / ms;
  onProgress?.({ stage: "prefill", tokens, total: tokens, tokensPerSec: tokens_per_sec });
  return { tokens, ms, tokens_per_sec, passes_ms: times };
}

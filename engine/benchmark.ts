/**
 * The benchmark: a warm-up, one pass over the prompt, then generations of one length, each measured
 * whole and id by id.
 *
 * Nothing here draws on a terminal or formats; `report.ts` has the record that comes out.
 *
 * @module
 */
import { threefry } from "../kernels/ops/sample/mod.ts";
import { DEFAULTS } from "./defaults.ts";
import { randomSeed } from "./generate.ts";
import { hostFor } from "./host/choose.ts";
import type { Host } from "./host/mod.ts";
import { instrumentsOf, type Model } from "./model.ts";
import { type BenchmarkReport, type IterationReport, VERSION } from "./report.ts";
import { checkSampling, type SamplingOptions } from "./sampler.ts";

/** How far a benchmark has come. */
export interface BenchmarkProgress {
  /** What is under way. */
  readonly stage: "warmup" | "prefill" | "iteration";
  /** Which one, from 0, of the stage "iteration". */
  readonly iteration?: number;
  /** Tokens of this stage that are done, and all that it has. */
  readonly tokens: number;
  /** Tokens that the stage has in all. */
  readonly total: number;
  /** Of this stage so far, the prompt included. */
  readonly tokensPerSec?: number;
}

/** What is measured; every option has the command line's default. */
export interface BenchmarkOptions extends SamplingOptions {
  /** Where the model came from, for the report. Default "local". */
  readonly source?: "local" | "hf";
  /** What the report calls the model. Default what it was loaded from. */
  readonly id?: string;
  /**
   * Text, or ids. Default "ROMEO:", and 128 ids drawn from the seed for a model without a
   * tokenizer.
   */
  readonly prompt?: string | readonly number[];
  /** Tokens of each measured generation. Default 256. */
  readonly genTokens?: number;
  /** Tokens that are generated and not measured. Default 64. */
  readonly warmupTokens?: number;
  /** Measured generations. Default 3. */
  readonly iters?: number;
  /** Iteration i draws with seed + i; null, the default, draws the seed. */
  readonly seed?: number | null;
  /** Default false. */
  readonly deterministic?: boolean;
  /** Default true. */
  readonly useKvCache?: boolean;
  /** Only written into the report: what is timed is never shown while it runs. Default false. */
  readonly stream?: boolean;
  /** Ends the benchmark without a report. */
  readonly signal?: AbortSignal;
  /** Called a few times a second at most; its time counts, so it should be short. */
  readonly onProgress?: (progress: BenchmarkProgress) => void;
}

/**
 * Measures a model.
 *
 * Rates of the iterations are generated tokens by whole wall time, prompt included; `stddev` is the
 * population's. A decode time is that from one id to the next, and percentiles are interpolated
 * linearly, as numpy.percentile does. `decode.tokens` are those of one iteration, as `gen_tokens`
 * are; its rate and percentiles are over all iterations.
 * @throws {RangeError} before anything runs: an option out of range, or a prompt that leaves no
 *   room for its tokens.
 * @throws the signal's reason, when it is aborted.
 */
export async function benchmark(
  model: Model,
  options: BenchmarkOptions = {},
): Promise<BenchmarkReport> {
  const plan = checkBenchmark(model, options);
  const { ids, genTokens, warmupTokens, iters, seed, signal } = plan;
  signal?.throwIfAborted();
  const host = await hostFor("benchmark");

  if (warmupTokens) await measure(model, plan, "warmup", warmupTokens, seed);
  model.memory.resetPeak();
  // A sliding model sees no more of a longer prompt.
  const prefill = await measurePrefill(model, plan, ids.slice(-model.contextLength));
  const iterations: IterationReport[] = [];
  for (let i = 0; i < iters; i++) {
    iterations.push(await measure(model, plan, "iteration", genTokens, seed + i, i));
  }
  return makeReport(host, model, plan, prefill, iterations);
}

/** The options with their defaults, checked, and the prompt as ids. */
type Checked = ReturnType<typeof checkBenchmark>;

function checkBenchmark(model: Model, options: BenchmarkOptions) {
  const genTokens = expectCount("genTokens", options.genTokens ?? DEFAULTS.genTokens, 1);
  const warmupTokens = expectCount(
    "warmupTokens",
    options.warmupTokens ?? DEFAULTS.warmupTokens,
    0,
  );
  const iters = expectCount("iters", options.iters ?? DEFAULTS.iters, 1);
  const seed = expectCount("seed", options.seed ?? randomSeed(), 0);
  expectCount("seed + iters - 1", seed + iters - 1, 0);
  const sampling = checkSampling(options);
  const prompt = options.prompt ??
    (model.hasTokenizer
      ? DEFAULTS.prompt
      : drawPrompt(DEFAULTS.promptTokens, model.config.vocabSize, seed));
  const ids = typeof prompt === "string" ? model.tokenizer.encode(prompt) : [...prompt];
  expectRoom(model, ids.length, Math.max(genTokens, warmupTokens));
  const askedSeed = options.seed ?? null;
  return { ...options, prompt, ids, genTokens, warmupTokens, iters, seed, askedSeed, sampling };
}

/**
 * Checks that a prompt and the tokens after it fit the context.
 * @throws {RangeError} If they do not.
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

function expectCount(name: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new RangeError(
    `Cannot benchmark: expected ${name} to be an integer of at least ${least}, got ${value}`,
  );
}

/** A prompt of `count` ids below `vocabSize`, the same for a seed on every machine. */
export function drawPrompt(count: number, vocabSize: number, seed: number): number[] {
  const [low, high] = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  return Array.from(
    { length: count },
    // A counter word that no draw of sampling has keeps the prompt apart from what is drawn after
    // it.
    (_, i) => threefry(low, high, i, 0xffffffff) % vocabSize,
  );
}

/** Milliseconds between two calls of `onProgress`. */
const PROGRESS_MS = 200;

/** One generation on the clock. */
async function measure(
  model: Model,
  { ids, sampling, deterministic, useKvCache, signal, onProgress }: Checked,
  stage: "warmup" | "iteration",
  total: number,
  seed: number,
  iteration?: number,
): Promise<IterationReport> {
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
    const share = (now - last) / count; // ids that are read together share their time
    for (let i = 0; i < count; i++) token_ms.push(share);
    last = now;
    if (now - shown >= PROGRESS_MS) show();
  };
  const tokens = instrumentsOf(model).generate(ids, {
    ...sampling,
    maxNewTokens: total,
    seed,
    deterministic,
    useKvCache,
    ignoreEos: true, // every run equally long
    reusePrompt: false,
    signal,
  }, onRead);
  for await (const _ of tokens);
  const seconds = (performance.now() - start) / 1000;
  signal?.throwIfAborted();
  show();
  return { seconds, tokens_per_sec: total / seconds, seed, token_ms };
}

/**
 * Milliseconds of a pass over the prompt: the median of three, or of one that takes a second or
 * more.
 */
async function measurePrefill(
  model: Model,
  { signal, onProgress }: Checked,
  ids: readonly number[],
): Promise<{ tokens: number; ms: number; tokens_per_sec: number }> {
  const tokens = ids.length;
  onProgress?.({ stage: "prefill", tokens: 0, total: tokens });
  const times: number[] = [];
  do {
    signal?.throwIfAborted();
    const start = performance.now();
    await instrumentsOf(model).run(ids, (runner) => runner.lastLogits(ids, signal));
    times.push(performance.now() - start);
  } while (times[0] < 1000 && times.length < 3);
  signal?.throwIfAborted();
  const ms = quantile(times, 0.5);
  const tokens_per_sec = 1000 * tokens / ms;
  onProgress?.({ stage: "prefill", tokens, total: tokens, tokensPerSec: tokens_per_sec });
  return { tokens, ms, tokens_per_sec };
}

async function makeReport(
  host: Host,
  model: Model,
  plan: Checked,
  prefill: BenchmarkReport["results"]["prefill"],
  iterations: IterationReport[],
): Promise<BenchmarkReport> {
  const { config, backend, dtype } = model;
  const { onGpu } = backend;
  const { sampling, prompt } = plan;
  const peakMiB = toMiB(model.memory.peak); // before anything else is made
  const { os, cpu, versions, commit } = await host.platform();
  const later = iterations.flatMap(({ token_ms }) => token_ms.slice(1));
  const laterMs = (p: number) => later.length ? quantile(later, p) : null;
  return {
    schema_version: 1,
    timestamp: new Date().toISOString(),
    commit,
    platform: {
      os,
      python: null,
      ...versions,
      cpu,
      cores: host.compute.cores,
    },
    torch: { version: null, cuda: null },
    engine: {
      name: "wgslm",
      version: VERSION,
      backend: backend.name,
      threads: backend.threads,
      dtype,
    },
    device: {
      type: onGpu ? "webgpu" : "cpu",
      name: onGpu ? backend.description : cpu,
    },
    model: {
      source: plan.source ?? DEFAULTS.source,
      id: plan.id ?? model.id,
      params_m: model.parameters / 1e6,
      vocab_size: config.vocabSize,
      block_size: config.blockSize,
      n_layer: config.nLayer,
      n_head: config.nHead,
      n_embd: config.nEmbd,
      dtype,
      weights_mib: toMiB(model.weightsBytes),
    },
    generation: {
      prompt: typeof prompt === "string" ? prompt : null,
      prompt_tokens: plan.ids.length,
      gen_tokens: plan.genTokens,
      temperature: sampling.temperature,
      top_k: sampling.topK,
      top_p: sampling.topP,
      repetition_penalty: sampling.repetitionPenalty,
      use_kv_cache: plan.useKvCache ?? DEFAULTS.useKvCache,
      stream: plan.stream ?? DEFAULTS.stream,
      seed: plan.askedSeed,
      deterministic: plan.deterministic ?? DEFAULTS.deterministic,
      warmup_tokens: plan.warmupTokens,
    },
    results: {
      iters: plan.iters,
      tokens_per_sec: summarise(iterations.map((i) => i.tokens_per_sec)),
      vram_peak_mib: onGpu ? peakMiB : null,
      buffer_peak_mib: peakMiB,
      prefill,
      decode: {
        tokens: plan.genTokens - 1,
        tokens_per_sec: later.length ? 1000 * later.length / sum(later) : null,
        ms_per_token: { p50: laterMs(0.5), p90: laterMs(0.9), p99: laterMs(0.99) },
      },
      load_ms: model.loadMs,
      first_token_ms: quantile(iterations.map(({ token_ms }) => token_ms[0]), 0.5),
      per_iter: iterations,
    },
  };
}

function toMiB(bytes: number): number {
  return bytes / 2 ** 20;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function summarise(rates: readonly number[]): BenchmarkReport["results"]["tokens_per_sec"] {
  const mean = sum(rates) / rates.length;
  const variance = sum(rates.map((r) => (r - mean) ** 2)) / rates.length;
  return { mean, min: Math.min(...rates), max: Math.max(...rates), stddev: Math.sqrt(variance) };
}

/** The value below which the share `p` lies, interpolated between neighbours. */
function quantile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = p * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at % 1);
}

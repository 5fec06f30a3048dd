/**
 * What a benchmark found: the record, its JSON and its row of the community table. The keys are
 * data, spelt as in the file; they are those of the benchmark's specification and more, and what
 * has no counterpart here is null.
 *
 * @module
 */

import type { BackendName } from "../kernels/backend.ts";

/** The version of the package, as in deno.json. */
export const VERSION = "0.1.0";

/**
 * The mean of the iterations' rates and their spread, in generated tokens per second of whole
 * wall time, prompt included.
 */
export interface RateSummary {
  /** Of all iterations. */
  mean: number;
  /** Of the slowest. */
  min: number;
  /** Of the fastest. */
  max: number;
  /** Standard deviation, of the population. */
  stddev: number;
}

/** One measured generation. */
export interface IterationReport {
  /** Whole wall time, prompt included. */
  seconds: number;
  /** Generated tokens by whole wall time. */
  tokens_per_sec: number;
  /** The seed that it drew with. */
  seed: number;
  /** Milliseconds from one id to the next; ids that came back together share their time. */
  token_ms: number[];
}

/** What one kind of kernel takes in one pass, all its calls together. */
export interface KernelReport {
  /**
   * The call, a product with its inputs and outputs; what was merged has the names of its parts.
   */
  name: string;
  /** How often it is called in the pass. */
  calls: number;
  /** The median of several runs. */
  ms: number;
  /** Of the time of all kernels. */
  share: number;
  /** Of operands, each moved once. */
  bytes: number;
  /** Multiplications and additions. */
  flops: number;
  /** 10⁹ bytes a second; null where it took no time that could be measured. */
  gb_per_sec: number | null;
  /** 10⁹ operations a second. */
  gflops_per_sec: number | null;
  /**
   * The time that its bytes or its operations take at least, whichever take longer,
   * by the time that it took.
   */
  limit_share: number | null;
  /** Which of the two took longer. */
  limit: "memory" | "arithmetic";
}

/** A pass and its kernels. */
export interface PassReport {
  /** Tokens that it takes. */
  rows: number;
  /** Keys that its last token sees. */
  length: number;
  /** The pass as it runs, without anything being timed within. */
  ms: number;
  /** The sum of its kernels' times. */
  kernels_ms: number;
  /** In the order in which they first run. */
  kernels: KernelReport[];
}

/** Where the time of a token goes. */
export interface ProfileReport {
  /** What the device did at most in this run, with code that does nothing else. */
  limits: { gb_per_sec: number; gflops_per_sec: number };
  /** The step of one token, its drawing included. */
  decode: PassReport;
  /** One chunk of a prompt, from an empty cache. */
  prefill: PassReport;
}

/** A benchmark's result, key for key what its JSON file holds. */
export interface BenchmarkReport {
  /** Grows when a key changes its meaning. */
  schema_version: 1;
  /** When the run ended, ISO 8601, UTC. */
  timestamp: string;
  /** 40 hex digits of the project's checkout, where it runs from one. */
  commit: string | null;
  /** Where it ran. */
  platform: {
    os: string;
    python: null;
    deno: string;
    v8: string;
    typescript: string;
    cpu: string;
    cores: number;
  };
  /** What the specification has for PyTorch; nothing here. */
  torch: { version: null; cuda: null };
  /** What it ran on. */
  engine: {
    name: "wgslm";
    version: string;
    backend: BackendName;
    threads: number;
    dtype: string;
  };
  /** The device as the row names it. */
  device: {
    type: "cpu" | "webgpu";
    /** The adapter's description or the model of the processor. */
    name: string;
  };
  /** What was measured. */
  model: {
    source: "local" | "hf";
    id: string;
    /** Millions; tied parameters count once. */
    params_m: number;
    vocab_size: number;
    block_size: number;
    n_layer: number;
    n_head: number;
    n_embd: number;
    dtype: string;
    weights_mib: number;
  };
  /** What was asked for. */
  generation: {
    /** Null where the prompt was given as ids. */
    prompt: string | null;
    prompt_tokens: number;
    gen_tokens: number;
    temperature: number;
    /** 0 is off. */
    top_k: number;
    /** 1 is off. */
    top_p: number;
    /** 1 is off. */
    repetition_penalty: number;
    use_kv_cache: boolean;
    stream: boolean;
    /** What was asked for; the seeds that were used stand in `per_iter`. */
    seed: number | null;
    deterministic: boolean;
    warmup_tokens: number;
  };
  /** What came out. */
  results: {
    iters: number;
    tokens_per_sec: RateSummary;
    /** WebGPU: the most bytes of tracked GPU buffers since the warm-up; elsewhere null. */
    vram_peak_mib: number | null;
    /** The same of every backend's buffers. */
    buffer_peak_mib: number;
    /** Unmeasured passes before the warm-up; `steady` if the times of the last rounds agree. */
    engine_warmup: { ms: number; rounds: number; steady: boolean };
    /** A separate pass over the prompt, to the logits of its last row. */
    prefill: { tokens: number; ms: number; tokens_per_sec: number };
    /** The tokens after the first of each iteration. Null where there was none. */
    decode: {
      tokens: number;
      tokens_per_sec: number | null;
      ms_per_token: { p50: number | null; p90: number | null; p99: number | null };
    };
    load_ms: number;
    /** From the call to the first id on the host. */
    first_token_ms: number;
    per_iter: IterationReport[];
    /** Only where a profile was asked for. */
    profile?: ProfileReport;
  };
}

/** A report as the text of a JSON file: indented by two spaces, a newline at its end. */
export function toJson(report: BenchmarkReport): string {
  return JSON.stringify(report, null, 2) + "\n";
}

/** Heads of the community table and how its columns are aligned, as the specification has them. */
const TABLE_HEAD = `\
| Device | Source | Model size (params M) | KV-cache | gen_tokens | mean tok/s | peak VRAM MiB |
|---|---|---:|---|---:|---:|---:|
`;

/** A report as the community table with one row. */
export function toMarkdown({ device, model, generation, results }: BenchmarkReport): string {
  const cells = [
    cell(`${device.name} (${device.type})`),
    model.source,
    model.params_m.toFixed(3),
    generation.use_kv_cache ? "on" : "off",
    String(generation.gen_tokens),
    results.tokens_per_sec.mean.toFixed(2),
    results.vram_peak_mib === null ? "N/A" : results.vram_peak_mib.toFixed(1),
  ];
  return `${TABLE_HEAD}| ${cells.join(" | ")} |\n`;
}

/** Spread of the iterations, as a share of their mean, above which a report has a warning. */
const WARNING_SPREAD = 0.1;

/**
 * Warnings about a report's figures, a sentence each; usually none.
 *
 * @param report a result of `benchmark`.
 * @example
 * ```ts
 * import { benchmark, loadModel, warnings } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const report = await benchmark(model, { genTokens: 4, warmupTokens: 0, iters: 1 });
 * for (const warning of warnings(report)) console.warn(warning);
 * ```
 */
export function warnings(report: BenchmarkReport): string[] {
  const { per_iter, tokens_per_sec: { mean, min, max } } = report.results;
  const spread = (max - min) / mean;
  if (!(spread > WARNING_SPREAD)) return [];
  const rates = per_iter.map((iteration) => iteration.tokens_per_sec);
  const rises = rates.length > 2 && rates.every((rate, i) => i === 0 || rate > rates[i - 1]);
  const range = `${min.toFixed(2)} to ${max.toFixed(2)} tok/s`;
  const reason = rises
    ? ", each faster than the one before: the engine's code was still being compiled; " +
      "more --warmup-tokens give a steady figure"
    : ": the machine may be busy; run again on a quiet one";
  return [`the iterations differ by ${Math.round(spread * 100)} % (${range})${reason}`];
}

/**
 * The former name of `warnings`.
 *
 * @param report a result of `benchmark`.
 * @deprecated Use `warnings`.
 * @example
 * ```ts
 * import { doubts, warnings } from "@wgslm/wgslm";
 *
 * console.log(doubts === warnings); // true
 * ```
 */
export const doubts: typeof warnings = warnings;

/** Text that stays within one cell of a Markdown table, whatever a driver calls its device. */
function cell(text: string): string {
  return text
    .replace(/\p{Cc}+|\p{Zl}|\p{Zp}/gu, " ")
    .replace(/ {2,}/g, " ")
    .replaceAll("\\", "\\\\")
    .replaceAll("|", "\\|")
    .trim();
}

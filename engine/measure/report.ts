/**
 * Benchmark report: the record, and warnings about its figures.
 *
 * The keys are data, spelt as in the JSON file: those of the benchmark's specification, and more.
 * Keys without a counterpart here are null.
 *
 * @module
 */
import type { BackendName } from "../../kernels/backend.ts";

/** The version of the package, as in deno.json. */
export const VERSION = "0.1.0";

/** Rates of the iterations: generated tokens per second of wall time, prompt included. */
export interface RateSummary {
  /** Mean of all iterations, in tokens/s. */
  mean: number;
  /** The slowest iteration, in tokens/s. */
  min: number;
  /** The fastest iteration, in tokens/s. */
  max: number;
  /** Standard deviation of the population, in tokens/s. */
  stddev: number;
  /** Lower end of the 95 % interval of the mean; null for a single iteration. */
  low: number | null;
  /** Upper end of that interval. */
  high: number | null;
}

/** One measured generation. */
export interface IterationReport {
  /** Start in ms since the start of the run. */
  started_ms: number;
  /** Wall time in s, prompt included. */
  seconds: number;
  /** Generated tokens divided by `seconds`. */
  tokens_per_sec: number;
  /** Seed of its draws. */
  seed: number;
  /** Milliseconds from one id to the next; ids read together share their time. */
  token_ms: number[];
}

/** Correctness check: a short greedy run, compared with the same weights on typed arrays. */
export interface CheckReport {
  /** Backend compared with; null if the check was not run. */
  against: BackendName | null;
  /** Number of compared steps: rows of logits, and ids. */
  tokens: number;
  /** Largest difference of a logit; null if it is not finite or was not measured. */
  max_abs_diff: number | null;
  /** Difference allowed: 1e-3, or if it is more, a share of the largest logit (docs/trust.md). */
  tolerance: number | null;
  /** Whether all ids are equal; ids whose logits differ by less than the tolerance may not be. */
  same_ids: boolean | null;
  /** Whether logits and ids are within the tolerance; null if the check was not run. */
  passed: boolean | null;
  /** Why the check failed or was not run; null if it passed. */
  reason: string | null;
}

/** Limits of the machine, measured in the gaps between iterations, and the shares reached. */
export interface LimitReport {
  /** Read bandwidth of a buffer as large as the weights, at most 128 MiB; median of the gaps. */
  read_gb_per_s: number | null;
  /** Multiplications and additions in F32, in 10⁹ per second; median of the gaps. */
  gflops: number | null;
  /** Least time of a decode step by these limits, divided by the measured time. */
  decode_share: number | null;
  /** The same for the prefill. */
  prefill_share: number | null;
  /** Number of gaps measured. */
  gaps: number;
  /** Largest less smallest limit, as a share of the median: how unsteady the machine itself was. */
  spread: number | null;
  /** Why there are no limits; null if there are. */
  reason: string | null;
}

/** Machine during the iterations; null for what cannot be read. */
export interface MachineReport {
  /** Runnable processes at the end, averaged over 1, 5 and 15 minutes. */
  load_average: [number, number, number] | null;
  /** Clock of the processors in MHz: mean over them, median over the iterations. */
  cpu_mhz: number | null;
  /** CPU time of other processes, as a share of all processors' time. */
  other_cpu_share: number | null;
  /** CPU time that a hypervisor gave to other machines, as a share of all processors' time. */
  stolen_cpu_share: number | null;
}

/** Memory of the backend's buffers in a stage of the run: the peak of each class, in MiB. */
export interface MemoryReport {
  /** After loading, in the warm-ups, in the prefill, in the iterations. */
  stage: "loaded" | "warmup" | "prefill" | "iterations";
  /** Weights, padding included. */
  weights_mib: number;
  /** Keys and values. */
  kv_cache_mib: number;
  /** Results of operations, and tables. */
  activations_mib: number;
  /** Buffers that move data between host and device. */
  staging_mib: number;
}

/** Cost of one kind of kernel in a pass, summed over its calls. */
export interface KernelReport {
  /** Name of the call; a matmul's with its width and outputs, a fused one's with its parts. */
  name: string;
  /** Number of calls in the pass. */
  calls: number;
  /** Milliseconds: the median of several runs. */
  ms: number;
  /** Share of the time of all kernels, 0 to 1. */
  share: number;
  /** Bytes of the operands, each moved once. */
  bytes: number;
  /** Number of multiplications and additions. */
  flops: number;
  /** Bandwidth in GB/s; null if the time was too short to measure. */
  gb_per_sec: number | null;
  /** Arithmetic in GFLOP/s; null if the time was too short to measure. */
  gflops_per_sec: number | null;
  /** Least possible time by the device's limits, divided by the measured time. */
  limit_share: number | null;
  /** The limit that sets the least possible time. */
  limit: "memory" | "arithmetic";
}

/** Times of a pass and its kernels. */
export interface PassReport {
  /** Tokens of the pass. */
  rows: number;
  /** Keys that its last token attends to. */
  length: number;
  /** Milliseconds of the whole pass, without timing within it. */
  ms: number;
  /** Sum of the kernels' times, in ms. */
  kernels_ms: number;
  /** Kinds of kernels, in the order of their first call. */
  kernels: KernelReport[];
}

/** Kernel profile of a model. */
export interface ProfileReport {
  /** Limits of the device, measured in this run by code that only reads or only computes. */
  limits: { gb_per_sec: number; gflops_per_sec: number };
  /** The step of one token, sampling included. */
  decode: PassReport;
  /** One chunk of a prompt, from an empty cache. */
  prefill: PassReport;
}

/** Result of a benchmark, with the keys of its JSON file. */
export interface BenchmarkReport {
  /** Grows when a key changes its meaning. */
  schema_version: 1;
  /** End of the run, ISO 8601, UTC. */
  timestamp: string;
  /** Commit of the project's checkout, 40 hex digits; null outside of one. */
  commit: string | null;
  /** Machine and runtime. */
  platform: {
    os: string;
    python: null;
    /** Versions of the runtime's parts; null for those that it lacks. */
    deno: string | null;
    v8: string | null;
    typescript: string | null;
    /** In Node. */
    node?: string;
    /** In Bun. */
    bun?: string;
    /** Name and version, in a page. */
    browser?: string;
    cpu: string;
    cores: number;
  };
  /** The specification's keys for PyTorch. */
  torch: { version: null; cuda: null };
  /** Engine and backend. */
  engine: {
    name: "wgslm";
    version: string;
    backend: BackendName;
    threads: number;
    dtype: string;
    /** Dtype of the KV cache. */
    kv_dtype: string;
    /** Activations in products with quantised weights: "exact" (16 bits) or "int8". */
    activations: string;
    /** Width of vectors in bits: "128", "256", or "256, unchecked"; null on other backends. */
    simd: string | null;
    /** Flags that V8 was started with; null if they cannot be read. */
    v8_flags: string[] | null;
  };
  /** Device, as the table's row names it. */
  device: {
    type: "cpu" | "webgpu";
    /** Description of the adapter, or name of the processor. */
    name: string;
  };
  /** The measured model. */
  model: {
    source: "local" | "hf";
    id: string;
    /** Learned parameters in millions; tied ones count once. */
    params_m: number;
    vocab_size: number;
    block_size: number;
    n_layer: number;
    n_head: number;
    n_embd: number;
    dtype: string;
    weights_mib: number;
  };
  /** Settings of the run, as asked for. */
  generation: {
    /** Text of the prompt; null if ids were given. */
    prompt: string | null;
    prompt_tokens: number;
    gen_tokens: number;
    /** Tokens that the cache holds; reports of earlier versions lack it. */
    context_length?: number;
    temperature: number;
    /** 0 is off. */
    top_k: number;
    /** 1 is off. */
    top_p: number;
    /** 1 is off. */
    repetition_penalty: number;
    use_kv_cache: boolean;
    stream: boolean;
    /** Seed asked for, or null; `per_iter` has the seeds used. */
    seed: number | null;
    deterministic: boolean;
    warmup_tokens: number;
  };
  /** Measurements. */
  results: {
    iters: number;
    tokens_per_sec: RateSummary;
    /** Peak of tracked GPU buffers since the warm-up, in MiB; null on the CPU. */
    vram_peak_mib: number | null;
    /** The same for the buffers of any backend, in MiB. */
    buffer_peak_mib: number;
    /** Unmeasured passes before the warm-up; `steady` if the times of the last rounds agree. */
    engine_warmup: { ms: number; rounds: number; steady: boolean };
    /** A separate pass over the prompt, up to the logits of its last row. */
    prefill: {
      tokens: number;
      /** Median of the passes. */
      ms: number;
      tokens_per_sec: number;
      /** Time of each pass. */
      passes_ms: number[];
    };
    /** Tokens after the first of each iteration; null if there are none. */
    decode: {
      tokens: number;
      tokens_per_sec: number | null;
      ms_per_token: { p50: number | null; p90: number | null; p99: number | null };
    };
    /** From the call of `loadModel` to a usable model. */
    load_ms: number;
    /** From the call of `generate` to the first id on the host: the median. */
    first_token_ms: number;
    per_iter: IterationReport[];
    check: CheckReport;
    limit: LimitReport;
    machine: MachineReport;
    /** Memory by class, in each stage of the run. */
    memory: MemoryReport[];
    /** Present if a profile was asked for. */
    profile?: ProfileReport;
  };
}

/** Spread of the iterations, as a share of their mean, above which a report has a warning. */
const WARNING_SPREAD = 0.1;
/** Share of the processors' time that others may use before a report has a warning. */
const WARNING_CPU_SHARE = 0.1;

/**
 * Warnings about a report's figures, a sentence each; usually none.
 *
 * @param report a result of `benchmark`.
 * @example
 * ```ts
 * import { type BenchmarkReport, warnings } from "@wgslm/wgslm";
 *
 * export function isTrustworthy(report: BenchmarkReport): boolean {
 *   return warnings(report).length === 0;
 * }
 * ```
 */
export function warnings(report: BenchmarkReport): string[] {
  return [...checkWarnings(report), ...spreadWarnings(report), ...machineWarnings(report)];
}

/** Reports of earlier versions have no check, as they have no state of the machine. */
function checkWarnings({ results: { check } }: BenchmarkReport): string[] {
  return check?.passed === false
    ? [`the results are wrong (${check.reason}): do not use this row`]
    : [];
}

function spreadWarnings({ results }: BenchmarkReport): string[] {
  const { per_iter, tokens_per_sec: { mean, min, max } } = results;
  const spread = (max - min) / mean;
  if (!(spread > WARNING_SPREAD)) return [];
  const rates = per_iter.map((iteration) => iteration.tokens_per_sec);
  const rises = rates.length > 2 && rates.every((rate, i) => i === 0 || rate > rates[i - 1]);
  const range = `${min.toFixed(2)} to ${max.toFixed(2)} tok/s`;
  const machine = results.limit?.spread ?? 0;
  const reason = rises
    ? ", each faster than the one before: the engine's code was still being compiled; " +
      "more --warmup-tokens give a steady figure"
    : machine > WARNING_SPREAD
    ? `, the machine's own limits between them by ${Math.round(machine * 100)} %: others share ` +
      "its memory or processors; run again on a quiet one"
    : ": the machine may be busy; run again on a quiet one";
  return [`the iterations differ by ${Math.round(spread * 100)} % (${range})${reason}`];
}

function machineWarnings({ results: { machine } }: BenchmarkReport): string[] {
  const users = [
    ["processes", machine?.other_cpu_share],
    ["virtual machines", machine?.stolen_cpu_share],
  ] as const;
  return users.flatMap(([who, share]) =>
    share && share > WARNING_CPU_SHARE
      ? [`other ${who} used ${Math.round(100 * share)} % of the CPU during the iterations`]
      : []
  );
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

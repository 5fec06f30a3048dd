/**
 * Report of a benchmark's run, from its settings and raw measurements.
 *
 * @module
 */
import { DEFAULTS } from "../defaults.ts";
import type { GenerateSettings } from "../generate.ts";
import type { Host } from "../host/mod.ts";
import type { Model } from "../model.ts";
import type { GapLimits } from "./limit.ts";
import type { MemoryStages } from "./memory_stages.ts";
import {
  type BenchmarkReport,
  type CheckReport,
  type IterationReport,
  type MachineReport,
  VERSION,
} from "./report.ts";
import { meanInterval } from "./statistics.ts";
import type { WarmUp } from "./warm_up.ts";

/** Settings of a run, for its report. */
export interface RunSettings {
  readonly source?: "local" | "hf";
  readonly id?: string;
  readonly stream?: boolean;
  /** Text of the prompt, or the ids given in place of it. */
  readonly prompt: string | readonly number[];
  readonly ids: readonly number[];
  readonly settings: GenerateSettings;
  readonly genTokens: number;
  readonly warmupTokens: number;
  /** The seed that was asked for; null if it was drawn. */
  readonly askedSeed: number | null;
}

/** Measured parts of a report. */
export interface Measured {
  readonly engineWarmUp: WarmUp;
  readonly prefill: BenchmarkReport["results"]["prefill"];
  readonly iterations: readonly IterationReport[];
  readonly memory: MemoryStages;
  readonly limits: GapLimits;
  readonly machine: MachineReport;
  readonly check: CheckReport;
}

/** Makes the report of a run. */
export async function makeReport(
  host: Host,
  model: Model,
  plan: RunSettings,
  { engineWarmUp, prefill, iterations, memory, limits, machine, check }: Measured,
): Promise<BenchmarkReport> {
  const { config, backend, dtype } = model;
  const { onGpu } = backend;
  const { settings, prompt } = plan;
  const peakMiB = toMiB(memory.peakBytes);
  const { os, cpu, versions, commit, v8Flags } = await host.platform();
  const later = iterations.flatMap(({ token_ms }) => token_ms.slice(1));
  const middle = plan.ids.length + 1 + Math.floor(plan.genTokens / 2);
  const decode = later.length ? { ms: sum(later) / later.length, length: middle } : null;
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
      kv_dtype: model.kvDtype,
      activations: model.activations,
      simd: backend.simd ?? null,
      v8_flags: v8Flags && [...v8Flags],
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
      context_length: model.contextLength,
      temperature: settings.temperature,
      top_k: settings.topK,
      top_p: settings.topP,
      repetition_penalty: settings.repetitionPenalty,
      use_kv_cache: settings.useKvCache,
      stream: plan.stream ?? DEFAULTS.stream,
      seed: plan.askedSeed,
      deterministic: settings.deterministic,
      warmup_tokens: plan.warmupTokens,
    },
    results: {
      iters: iterations.length,
      tokens_per_sec: summarise(iterations.map((i) => i.tokens_per_sec)),
      vram_peak_mib: onGpu ? peakMiB : null,
      buffer_peak_mib: peakMiB,
      engine_warmup: engineWarmUp,
      prefill,
      decode: {
        tokens: plan.genTokens - 1,
        tokens_per_sec: decode && 1000 / decode.ms,
        ms_per_token: { p50: laterMs(0.5), p90: laterMs(0.9), p99: laterMs(0.99) },
      },
      load_ms: model.loadMs,
      first_token_ms: quantile(iterations.map(({ token_ms }) => token_ms[0]), 0.5),
      per_iter: [...iterations],
      check,
      limit: await limits.report({
        decode,
        prefill: { ms: prefill.ms, length: prefill.tokens },
        useKvCache: settings.useKvCache,
      }),
      machine,
      memory: memory.report(),
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
  const { low = null, high = null } = meanInterval([rates]) ?? {};
  const [min, max] = [Math.min(...rates), Math.max(...rates)];
  return { mean, min, max, stddev: Math.sqrt(variance), low, high };
}

/** The quantile of share `p`, linearly interpolated between neighbours. */
export function quantile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = p * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at % 1);
}

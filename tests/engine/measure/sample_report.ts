/**
 * A report of plausible figures, for tests of what reads reports.
 *
 * @module
 */
import type { BenchmarkReport } from "../../../engine/measure/report.ts";

/** Changes of a sample. */
export interface SampleChange {
  readonly timestamp?: string;
  readonly engine?: Partial<BenchmarkReport["engine"]>;
  readonly device?: Partial<BenchmarkReport["device"]>;
  readonly model?: Partial<BenchmarkReport["model"]>;
  readonly generation?: Partial<BenchmarkReport["generation"]>;
  readonly results?: Partial<BenchmarkReport["results"]>;
}

/** A report of the demo on two threads, with changes. */
export function sampleReport(change: SampleChange = {}): BenchmarkReport {
  const seconds = [0.5, 0.52];
  const rates = seconds.map((s) => 4 / s);
  return {
    schema_version: 1,
    timestamp: change.timestamp ?? "2026-01-02T03:04:05.678Z",
    commit: null,
    platform: {
      ...{ os: "Linux 6.1 x64", python: null, deno: "2.9.6", v8: "15.0", typescript: "6.0" },
      ...{ cpu: "Test CPU", cores: 2 },
    },
    torch: { version: null, cuda: null },
    engine: {
      ...{ name: "wgslm", version: "0.1.0", backend: "wasm", threads: 2, dtype: "F32" },
      ...{ kv_dtype: "F32", activations: "exact", simd: "128", v8_flags: [] },
      ...change.engine,
    },
    device: { type: "cpu", name: "Test CPU", ...change.device },
    model: {
      ...{ source: "local", id: "demo", params_m: 4.887, vocab_size: 65, block_size: 512 },
      ...{ n_layer: 6, n_head: 8, n_embd: 256, dtype: "F32", weights_mib: 18.9 },
      ...change.model,
    },
    generation: {
      ...{ prompt: "ROMEO:", prompt_tokens: 6, gen_tokens: 4, temperature: 0.9, top_k: 40 },
      ...{ context_length: 512 },
      ...{ top_p: 1, repetition_penalty: 1, use_kv_cache: true, stream: false, seed: null },
      ...{ deterministic: false, warmup_tokens: 2 },
      ...change.generation,
    },
    results: {
      iters: 2,
      tokens_per_sec: {
        ...{ mean: (rates[0] + rates[1]) / 2, min: rates[1], max: rates[0] },
        stddev: (rates[0] - rates[1]) / 2,
        ...{ low: 7.5, high: 8.2 },
      },
      vram_peak_mib: null,
      buffer_peak_mib: 25.5,
      engine_warmup: { ms: 400, rounds: 3, steady: true },
      prefill: { tokens: 6, ms: 20, tokens_per_sec: 300, passes_ms: [19, 20, 21] },
      decode: {
        tokens: 3,
        tokens_per_sec: 10,
        ms_per_token: { p50: 100, p90: 110, p99: 111 },
      },
      load_ms: 150,
      first_token_ms: 30,
      per_iter: seconds.map((s, i) => ({
        ...{ started_ms: 900 + 600 * i, seconds: s, tokens_per_sec: rates[i], seed: 7 + i },
        token_ms: [30, 100, 100, 110],
      })),
      check: {
        ...{ against: "js", tokens: 8, max_abs_diff: 1e-5, tolerance: 1e-3, same_ids: true },
        ...{ passed: true, reason: null },
      },
      limit: {
        ...{ read_gb_per_s: 20, gflops: 60, decode_share: 0.9, prefill_share: 0.8, gaps: 3 },
        spread: 0.02,
        reason: null,
      },
      machine: {
        ...{ load_average: [0.1, 0.2, 0.3], cpu_mhz: 2600 },
        ...{ other_cpu_share: 0.01, stolen_cpu_share: 0 },
      },
      memory: (["loaded", "warmup", "prefill", "iterations"] as const).map((stage, i) => ({
        ...{ stage, weights_mib: 18.9, kv_cache_mib: 6, activations_mib: 0.5 + i },
        staging_mib: 0.1,
      })),
      ...change.results,
    },
  };
}

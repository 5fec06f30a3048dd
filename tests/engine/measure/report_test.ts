import assert from "node:assert/strict";
import denoJson from "../../../deno.json" with { type: "json" };
import { toJson, toMarkdown } from "../../../engine/measure/formats.ts";
import {
  type BenchmarkReport,
  type CheckReport,
  doubts,
  type MachineReport,
  VERSION,
  warnings,
} from "../../../engine/measure/report.ts";

const PASSED: CheckReport = {
  against: "js",
  tokens: 8,
  max_abs_diff: 1e-5,
  tolerance: 1e-3,
  same_ids: true,
  passed: true,
  reason: null,
};

const QUIET: MachineReport = {
  load_average: [0.1, 0.2, 0.3],
  cpu_mhz: 2600,
  other_cpu_share: 0.01,
  stolen_cpu_share: 0,
};

function report(changes: {
  device?: Partial<BenchmarkReport["device"]>;
  results?: Partial<BenchmarkReport["results"]>;
  useKvCache?: boolean;
} = {}): BenchmarkReport {
  return {
    schema_version: 1,
    timestamp: "2026-01-02T03:04:05.678Z",
    commit: null,
    platform: {
      os: "Linux",
      python: null,
      deno: "2.9.6",
      v8: "15",
      typescript: "6",
      cpu: "A processor",
      cores: 2,
    },
    torch: { version: null, cuda: null },
    engine: {
      name: "wgslm",
      version: VERSION,
      backend: "js",
      threads: 1,
      dtype: "F32",
      kv_dtype: "F32",
      activations: "exact",
      simd: null,
      v8_flags: [],
    },
    device: { type: "cpu", name: "A processor", ...changes.device },
    model: {
      source: "local",
      id: "demo",
      params_m: 4.886784,
      vocab_size: 65,
      block_size: 512,
      n_layer: 6,
      n_head: 8,
      n_embd: 256,
      dtype: "F32",
      weights_mib: 18.6,
    },
    generation: {
      prompt: "ROMEO:",
      prompt_tokens: 6,
      gen_tokens: 256,
      temperature: 0.9,
      top_k: 40,
      top_p: 1,
      repetition_penalty: 1,
      use_kv_cache: changes.useKvCache ?? true,
      stream: false,
      seed: null,
      deterministic: false,
      warmup_tokens: 64,
    },
    results: {
      iters: 3,
      tokens_per_sec: { mean: 100, min: 99, max: 101, stddev: 0.8, low: 98, high: 102 },
      vram_peak_mib: null,
      buffer_peak_mib: 24.6,
      engine_warmup: { ms: 400, rounds: 4, steady: true },
      prefill: { tokens: 6, ms: 20, tokens_per_sec: 300, passes_ms: [20, 19, 21] },
      decode: {
        tokens: 255,
        tokens_per_sec: 101,
        ms_per_token: { p50: 9, p90: 10, p99: 11 },
      },
      load_ms: 12,
      first_token_ms: 21,
      per_iter: [{
        started_ms: 900,
        seconds: 2.5,
        tokens_per_sec: 100,
        seed: 7,
        token_ms: [21, 9],
      }],
      check: PASSED,
      limit: {
        read_gb_per_s: 20,
        gflops: 60,
        decode_share: 0.9,
        prefill_share: 0.8,
        gaps: 4,
        spread: 0.02,
        reason: null,
      },
      machine: QUIET,
      memory: [],
      ...changes.results,
    },
  };
}

Deno.test("VERSION is that of deno.json", () => {
  assert.equal(VERSION, denoJson.version);
});

Deno.test("toJson() formats the report with indents and a newline at its end", () => {
  const text = toJson(report());
  assert.deepEqual(JSON.parse(text), report());
  assert.ok(text.startsWith('{\n  "schema_version": 1,\n'));
  assert.ok(text.endsWith("}\n"));
});

Deno.test("toMarkdown() is the specification's table with one row", () => {
  assert.equal(
    toMarkdown(report()),
    "| Device | Source | Model size (params M) | KV-cache | gen_tokens | mean tok/s | peak VRAM MiB |\n" +
      "|---|---|---:|---|---:|---:|---:|\n" +
      "| A processor (cpu) | local | 4.887 | on | 256 | 100.00 | N/A |\n",
  );
});

Deno.test("toMarkdown() gives VRAM one decimal, and shows a cache that is off", () => {
  const row = toMarkdown(report({
    device: { type: "webgpu", name: "A GPU" },
    results: {
      vram_peak_mib: 25.04,
      tokens_per_sec: { mean: 1234.567, min: 1, max: 2, stddev: 0, low: 1, high: 2 },
    },
    useKvCache: false,
  })).split("\n")[2];
  assert.equal(row, "| A GPU (webgpu) | local | 4.887 | off | 256 | 1234.57 | 25.0 |");
});

Deno.test("toMarkdown() escapes a device's name so that it cannot break its row", () => {
  const name = "A | B\nC\r\n\tD\u2028E \\| F\x1b[1m";
  const lines = toMarkdown(report({ device: { name } })).split("\n");
  assert.equal(lines.length, 4);
  assert.equal(lines[2].split(/(?<!(?<!\\)(?:\\\\)*\\)\|/).length, 9);
  assert.match(lines[2], /^\| A \\\| B C D E /);
  assert.doesNotMatch(lines[2], /\p{Cc}/u);
});

Deno.test("warnings() warns when the iterations differ by more than a tenth of the mean", () => {
  const warn = (...rates: number[]) => {
    const [min, max] = [Math.min(...rates), Math.max(...rates)];
    const per_iter = rates.map((tokens_per_sec) => ({
      started_ms: 0,
      seconds: 1,
      tokens_per_sec,
      seed: 1,
      token_ms: [],
    }));
    const whole = { mean: 100, min, max, stddev: 0, low: min, high: max };
    return warnings(report({ results: { per_iter, tokens_per_sec: whole } }));
  };
  assert.deepEqual(warn(95.5, 100, 105), []);
  assert.equal(warn(80, 110, 100).length, 1);
  assert.match(warn(80, 110, 100)[0], /differ by 30 % .*may be busy/);
  assert.match(warn(80, 110)[0], /may be busy/, "two rising rates may be chance");
  assert.match(warn(80, 100, 110)[0], /differ by 30 % .*each faster .*more --warmup-tokens/);
  assert.equal(doubts, warnings, "the old name");
  const unsteady = report();
  unsteady.results.tokens_per_sec = { ...unsteady.results.tokens_per_sec, min: 80, max: 110 };
  unsteady.results.limit.spread = 0.4;
  assert.match(warnings(unsteady)[0], /, the machine's own limits between them by 40 %: others /);
});

Deno.test("warnings() names a failed check and a busy machine", () => {
  const reason = "logits differ by up to 0.5, the tolerance is 0.001";
  const check = { ...PASSED, passed: false, reason };
  assert.deepEqual(warnings(report({ results: { check } })), [
    "the results are wrong (logits differ by up to 0.5, the tolerance is 0.001): " +
    "do not use this row",
  ]);
  const busy = (machine: Partial<MachineReport>) =>
    warnings(report({ results: { machine: { ...QUIET, ...machine } } }));
  assert.match(busy({ other_cpu_share: 0.25 })[0], /^other processes used 25 % of the CPU/);
  assert.match(busy({ stolen_cpu_share: 0.25 })[0], /^other virtual machines used 25 % of the CPU/);
  assert.deepEqual(busy({ other_cpu_share: null, stolen_cpu_share: null }), []);
});

Deno.test("warnings() reads reports of earlier versions", () => {
  const old = report();
  const { check: _check, limit: _limit, machine: _machine, ...results } = old.results;
  assert.deepEqual(warnings({ ...old, results } as BenchmarkReport), []);
});

import assert from "node:assert/strict";
import denoJson from "../../../deno.json" with { type: "json" };
import {
  type BenchmarkReport,
  doubts,
  toJson,
  toMarkdown,
  VERSION,
  warnings,
} from "../../../engine/measure/report.ts";

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
    engine: { name: "wgslm", version: VERSION, backend: "js", threads: 1, dtype: "F32" },
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
      tokens_per_sec: { mean: 100, min: 99, max: 101, stddev: 0.8 },
      vram_peak_mib: null,
      buffer_peak_mib: 24.6,
      engine_warmup: { ms: 400, rounds: 4, steady: true },
      prefill: { tokens: 6, ms: 20, tokens_per_sec: 300 },
      decode: {
        tokens: 255,
        tokens_per_sec: 101,
        ms_per_token: { p50: 9, p90: 10, p99: 11 },
      },
      load_ms: 12,
      first_token_ms: 21,
      per_iter: [{ seconds: 2.5, tokens_per_sec: 100, seed: 7, token_ms: [21, 9] }],
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
      tokens_per_sec: { mean: 1234.567, min: 1, max: 2, stddev: 0 },
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
      seconds: 1,
      tokens_per_sec,
      seed: 1,
      token_ms: [],
    }));
    return warnings(
      report({ results: { per_iter, tokens_per_sec: { mean: 100, min, max, stddev: 0 } } }),
    );
  };
  assert.deepEqual(warn(95.5, 100, 105), []);
  assert.equal(warn(80, 110, 100).length, 1);
  assert.match(warn(80, 110, 100)[0], /differ by 30 % .*may be busy/);
  assert.match(warn(80, 110)[0], /may be busy/, "two rising rates may be chance");
  assert.match(warn(80, 100, 110)[0], /differ by 30 % .*each faster .*more --warmup-tokens/);
  assert.equal(doubts, warnings, "the old name");
});

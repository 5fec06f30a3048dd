import assert from "node:assert/strict";
import type { FailureReport, KernelBench } from "../../../../engine/measure/history.ts";
import { SCRIPT, SCRIPT_HASH } from "../../../../engine/measure/html/script.ts";
import type { BenchmarkReport } from "../../../../engine/measure/report.ts";
import { toHtml } from "../../../../mod.ts";
import { type SampleChange, sampleReport } from "../sample_report.ts";

/** The names of the reports, as the overview has them. */
function namesIn(page: string): string[] {
  const [overview] = /<section id="overview"[^]*?<\/section>/.exec(page)!;
  return [...overview.matchAll(/<th scope="row">([^]*?)<\/th>/g)].map(([, name]) => name);
}

const withModel = (id: string, change: SampleChange = {}) =>
  sampleReport({ ...change, model: { id } });

const PROFILE: BenchmarkReport["results"]["profile"] = {
  limits: { gb_per_sec: 10, gflops_per_sec: 50 },
  ...Object.fromEntries(["decode", "prefill"].map((kind) => [kind, {
    ...{ rows: 1, length: 8, ms: 1, kernels_ms: 0.9 },
    kernels: [{
      ...{ name: "norm", calls: 2, ms: 0.9, share: 1, bytes: 8, flops: 8, gb_per_sec: null },
      ...{ gflops_per_sec: null, limit_share: 0.5, limit: "memory" },
    }],
  }])) as Pick<NonNullable<BenchmarkReport["results"]["profile"]>, "decode" | "prefill">,
};

Deno.test("toHtml() calls a report by its model, and by its file where models coincide", () => {
  const reports = [withModel("a"), withModel("b"), withModel("b")];
  const files = ["runs/a.json", "old/b.json", "new/b.json"];
  assert.deepEqual(namesIn(toHtml(reports, { files })), ["a", "old/b.json", "new/b.json"]);
  assert.deepEqual(namesIn(toHtml(reports.slice(0, 2), { files })), ["a", "b"]);
});

Deno.test("toHtml() draws two builds of one model beside each other, named by their files", () => {
  const results = { profile: structuredClone(PROFILE) };
  const files = ["base.json", "base.json", "new.json", "new.json"];
  const page = toHtml(
    [1, 2, 1, 2].map((threads) => sampleReport({ engine: { threads }, results })),
    { files },
  );
  const sectionOf = (id: string) => page.split(`<section id="${id}"`)[1].split("</section>")[0];
  assert.equal(sectionOf("kernels").match(/<figure>/g)!.length, 8);
  assert.match(sectionOf("kernels"), /<figcaption>new\.json · 2 threads · prefill/);
  const [, names] = /<ul class="legend">(.*?)<\/ul>/.exec(sectionOf("threads"))!;
  assert.match(names, /^<li class="c0">base\.json<\/li><li class="c1">new\.json<\/li>$/);
});

Deno.test("toHtml() numbers equal reports, and tells repeated ones apart by their time", () => {
  const later = sampleReport({ timestamp: "2026-02-03T04:05:06Z" });
  assert.deepEqual(namesIn(toHtml([sampleReport(), sampleReport(), later])), [
    "demo <small>2026-01-02 03:04</small>",
    "demo <small>2026-01-02 03:04 #2</small>",
    "demo <small>2026-02-03 04:05</small>",
  ]);
});

Deno.test("toHtml() escapes every text of a report, and shows hidden characters", () => {
  const hostile = `</script><img src=x onerror=alert(1)>"'&\u202e\0\x1b[1m\ud800`;
  const report = sampleReport({
    engine: { dtype: hostile },
    device: { name: hostile },
    model: { id: hostile },
    generation: { prompt: hostile },
    results: { profile: structuredClone(PROFILE) },
  });
  report.commit = report.platform.cpu = report.platform.os = hostile;
  report.results.profile!.decode.kernels[0].name = hostile;
  const failure: FailureReport = {
    ...{ schema_version: 1, timestamp: hostile, error: hostile },
    engine: { name: "wgslm", version: hostile, backend: hostile, threads: null, dtype: hostile },
    model: { source: "local", id: hostile },
    generation: { prompt_tokens: null, gen_tokens: null, context_length: null, use_kv_cache: true },
  };
  const page = toHtml([report, withModel("demo"), failure], { files: [hostile, "b", "c"] });
  assert.doesNotMatch(page, /<img|(?!\n)[\p{Cc}\p{Cs}\u202e]/u);
  assert.equal(page.match(/<script/g)?.length, 1);
  assert.ok(page.includes(
    "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;" +
      "&lt;U+202E&gt;&lt;U+0000&gt;&lt;U+001B&gt;[1m\ufffd",
  ));
});

/** A report of the first version: without the keys that later ones added. */
function withoutNewKeys(report: BenchmarkReport): BenchmarkReport {
  const { engine, results: { tokens_per_sec, prefill, per_iter, ...results } } = report;
  const { kv_dtype: _, activations: _bits, simd: _simd, v8_flags: _flags, ...oldEngine } = engine;
  const { low: _low, high: _high, ...rates } = tokens_per_sec;
  const { passes_ms: _passes, ...oldPrefill } = prefill;
  const { check: _check, limit: _limit, machine: _machine, engine_warmup: _warm, ...old } = results;
  const { context_length: _context, ...generation } = report.generation;
  return {
    ...report,
    engine: oldEngine,
    generation,
    results: {
      ...old,
      tokens_per_sec: rates,
      prefill: oldPrefill,
      per_iter: per_iter.map(({ started_ms: _, ...iteration }) => iteration),
    },
  } as BenchmarkReport;
}

Deno.test("toHtml() draws figures that are zero, null, absent or huge without NaN", () => {
  const zero = { mean: 0, min: 0, max: 0, stddev: 0, low: null, high: null };
  const pages = [
    sampleReport({ results: { tokens_per_sec: zero, per_iter: [] } }),
    sampleReport({
      timestamp: "no time",
      results: {
        per_iter: [
          { started_ms: 0, seconds: 0, tokens_per_sec: 0, seed: 1, token_ms: [5, 0, 0, 0] },
        ],
      },
    }),
    sampleReport({ results: { buffer_peak_mib: 1e308, first_token_ms: 1e-300 } }),
    sampleReport({ results: { profile: structuredClone(PROFILE) } }),
    withoutNewKeys(sampleReport()),
  ].flatMap((report, _, all) => [toHtml([report]), toHtml(all)]);
  for (const page of pages) {
    assert.doesNotMatch(page.replace(SCRIPT, ""), /NaN|Infinity|undefined|null|\[object/);
  }
});

Deno.test("toHtml() continues the line of reports of an earlier version", () => {
  const old = withoutNewKeys(sampleReport({ timestamp: "2025-01-02T03:04:05Z" }));
  const page = toHtml([old, sampleReport()]);
  assert.deepEqual(namesIn(page), [
    "demo <small>2025-01-02 03:04</small>",
    "demo <small>2026-01-02 03:04</small>",
  ]);
  assert.match(page, /<polyline points="0,[\d.]+ 100,[\d.]+"\/>[^]*id="environment"/);
});

Deno.test("toHtml() lists the combinations that could not run, with their reasons", () => {
  const failure: FailureReport = {
    ...{ schema_version: 1, timestamp: "2026-01-02T03:04:05Z", error: "Cannot use F8" },
    engine: { name: "wgslm", version: "0.1.0", backend: "wasm", threads: null, dtype: "F8" },
    model: { source: "local", id: "demo" },
    generation: { prompt_tokens: null, gen_tokens: null, context_length: null, use_kv_cache: true },
  };
  assert.match(toHtml([sampleReport(), failure]), /Not run<\/h3>[^]*Cannot use F8/);
  assert.throws(() => toHtml([failure]), /expected at least one report, got none/);
});

Deno.test("toHtml() draws kernel benches: the newest times, and a line for repeated ones", () => {
  const bench = (name: string, day: number): KernelBench => ({
    ...{ schema_version: 1, timestamp: `2026-01-0${day}T03:04:05Z` },
    engine: { name: "wgslm", version: "0.1.0" },
    platform: { runtime: "Deno/2.9.6", cpu: "Test CPU" },
    bench: {
      ...{ origin: "bench/x.ts", group: "norm", name, n: 9, avg_ns: 1500 * day, min_ns: 1000 },
      ...{ max_ns: 9000, p75_ns: 2000, p99_ns: 5000 },
    },
  });
  const records = [bench("a", 2), bench("a", 1), bench("b", 1)];
  const page = toHtml([...records, sampleReport()]);
  assert.match(
    page,
    /<th scope="row">norm: a<\/th><td>bench\/x\.ts<\/td><td [^>]*>2<\/td><td [^>]*>3\.000</,
  );
  assert.equal(page.match(/id="benches-\d+-t"/g)?.length, 1);
  assert.match(page, /id="overview"/);
  assert.match(toHtml(records), /^(?![^]*id="overview")[^]*id="benches-0-t"/);
});

Deno.test("toHtml() refuses lists without reports and reports of other tools", () => {
  assert.throws(() => toHtml([]), /Cannot draw reports: expected at least one report/);
  assert.throws(() => toHtml(5 as unknown as []), /Cannot read report 1: expected a report/);
  const other = { tool: "hyperfine", results: [] } as unknown as BenchmarkReport;
  const negative = { mean: -1, min: 0, max: 0, stddev: 0, low: null, high: null };
  assert.throws(
    () => toHtml(sampleReport({ results: { tokens_per_sec: negative } })),
    /expected its mean rate to be at least 0, got -1/,
  );
  assert.throws(() => toHtml([other], { files: ["x.json"] }), /Cannot read "x.json": expected/);
});

Deno.test("toHtml() makes 200 reports with profiles a page of less than 1.5 MB", () => {
  const per_iter = [0, 1, 2].map((seed) => ({
    ...{ started_ms: 1000 * seed, seconds: 1, tokens_per_sec: 256, seed },
    token_ms: Array.from({ length: 256 }, (_, i) => 1 + (i * 7919 % 101) / 50),
  }));
  const reports = Array.from({ length: 200 }, (_, i) =>
    sampleReport({
      engine: { threads: 1 + i % 8 },
      model: { id: `models/of/somebody/with/a/long/name-${i >> 3}.safetensors` },
      results: { per_iter, profile: PROFILE },
    }));
  const page = toHtml(reports);
  assert.ok(page.length < 1.5e6, `${page.length} bytes`);
  assert.equal(page.match(/<rect class="bar"/g)!.length, 200 + 12 * 2);
});

Deno.test("the page's policy allows its own script by the right hash", async () => {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(SCRIPT));
  assert.equal(SCRIPT_HASH, `sha256-${new Uint8Array(digest).toBase64()}`);
  const page = toHtml([sampleReport()]);
  assert.ok(page.includes(`script-src &#39;${SCRIPT_HASH}&#39;`));
  assert.ok(page.includes(`<script>${SCRIPT}</script>`));
});

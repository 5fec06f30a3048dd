import assert from "node:assert/strict";
import {
  type FailureReport,
  isFailure,
  isReport,
  type KernelBench,
  parseRecords,
} from "../../../engine/measure/history.ts";
import { sampleReport } from "./sample_report.ts";
import { assertRecords } from "./schema.ts";

const report = sampleReport();

const failure: FailureReport = {
  schema_version: 1,
  timestamp: report.timestamp,
  error: "Cannot open the GPU",
  engine: { name: "wgslm", version: "0.1.0", backend: "webgpu", threads: null, dtype: "auto" },
  model: { source: "local", id: "demo" },
  generation: { prompt_tokens: null, gen_tokens: 4, context_length: null, use_kv_cache: true },
};

const DENO_BENCH = JSON.stringify({
  version: 1,
  runtime: "Deno/2.9.6 x86_64-unknown-linux-gnu",
  cpu: "Test CPU",
  benches: [
    {
      origin: "file:///home/a%20b/bench/x_bench.ts",
      group: null,
      name: "norm",
      baseline: false,
      results: [{ ok: { n: 9, min: 1, max: 4, avg: 2.5, p75: 3, p99: 4, p995: 4, p999: 4 } }],
    },
    { origin: "file:///x.ts", group: "g", name: "bad", results: [{ failed: { name: "Error" } }] },
  ],
});

/** A record with a value at a path of keys. */
function withValue(path: string, value: unknown): unknown {
  const copy = structuredClone(report) as unknown as Record<string, unknown>;
  const keys = path.split(".");
  const last = keys.pop()!;
  const parent = keys.reduce((at, key) => at[key] as typeof at, copy);
  parent[last] = value;
  return copy;
}

Deno.test("parseRecords() reads a report, a list, and one record a line", () => {
  const pretty = JSON.stringify(report, null, 2);
  assert.deepEqual(parseRecords(pretty, "a.json"), [report]);
  assert.deepEqual(parseRecords(`[${pretty},${JSON.stringify(failure)}]`, "a.json"), [
    report,
    failure,
  ]);
  const line = JSON.stringify(report);
  assert.deepEqual(parseRecords(`${line}\n\n${line}\r\n${line}`, "a.JSONL"), Array(3).fill(report));
  // A pipe has no name that says so.
  assert.equal(parseRecords(`${line}\n${line}\n`, "/dev/fd/63").length, 2);
  assert.deepEqual([report, failure].map(isReport), [true, false]);
  assert.deepEqual([report, failure].map(isFailure), [false, true]);
});

Deno.test("parseRecords() reads the output of deno bench, and reads its records back", () => {
  const commit = "0123456789".repeat(4);
  const options = { base: "file:///home/a%20b/", timestamp: report.timestamp, commit };
  const records = parseRecords(DENO_BENCH, "-", options) as KernelBench[];
  assert.deepEqual(records.map(({ bench }) => bench), [{
    ...{ origin: "bench/x_bench.ts", group: null, name: "norm", n: 9 },
    ...{ avg_ns: 2.5, min_ns: 1, max_ns: 4, p75_ns: 3, p99_ns: 4 },
  }]);
  assert.deepEqual(records.map((r) => [r.timestamp, r.commit]), [[report.timestamp, commit]]);
  assert.deepEqual(records.map((r) => [isReport(r), isFailure(r)]), [[false, false]]);
  assert.deepEqual(parseRecords(JSON.stringify(records), "a.json"), records);
  assertRecords([report, failure, ...records]);
  assert.throws(() => parseRecords(DENO_BENCH.replace(`"version":1`, `"version":2`), "x"), {
    message: `Cannot read "x": expected version 1 of deno bench's JSON, got 2`,
  });
});

Deno.test("parseRecords() refuses what is no report in one sentence with file and line", () => {
  const line = JSON.stringify(report);
  const cases: [text: string, path: string, message: RegExp][] = [
    ["", "a.json", /^Cannot read "a.json": expected a report, got an empty file$/],
    [" \n", "a.jsonl", /empty file$/],
    ["{", "a.json", /^Cannot read "a.json": expected JSON, got .+$/],
    [line.slice(0, 900), "a.json", /^Cannot read "a.json": expected JSON/],
    [`${line}\n${line.slice(0, 99)}`, "a.jsonl", /^Cannot read line 2 of "a.jsonl": .*remove the/],
    [`${line.slice(0, 99)}${line}`, "a.jsonl", /^Cannot read line 1 of/],
    ["5", "a.json", /^Cannot read "a.json": expected a report of wgslm, got JSON of another tool$/],
    ["null", "a.json", /another tool/],
    ["[[]]", "a.json", /^Cannot read item 1 of "a.json": .*another tool/],
    [`{"device":{},"results":{"tokens_per_sec":{"mean":5}}}`, "a.json", /another tool/],
    [`${line}\n{"engine":{"name":"other"}}\n`, "a.jsonl", /line 2 of "a.jsonl": .*another tool/],
    ["[".repeat(100_000), "a.json", /expected JSON/],
    [`${"[".repeat(600)}${"]".repeat(600)}`, "a.json", /expected JSON, got more than 512 levels/],
  ];
  for (const [text, path, message] of cases) {
    assert.throws(() => parseRecords(text, path), { name: "Error", message }, text.slice(0, 50));
  }
});

Deno.test("parseRecords() names the first key of a damaged report", () => {
  const cases: [path: string, value: unknown, message: RegExp][] = [
    ["schema_version", 2, /expected schema_version 1, got 2; update wgslm$/],
    ["timestamp", 5, /expected timestamp to be a string, got number$/],
    ["results", null, /expected results to be an object, got object$/],
    ["results.tokens_per_sec.mean", null, /expected results.tokens_per_sec.mean to be a number/],
    ["results.vram_peak_mib", "N/A", /vram_peak_mib to be a number, got string/],
    ["results.per_iter", {}, /results.per_iter to be a list/],
    ["results.per_iter", [{ seconds: 1, tokens_per_sec: 1, token_ms: [1, "2"] }], /token_ms\[1\]/],
    ["engine.threads", null, /engine.threads to be a number, got null/],
  ];
  for (const [path, value, message] of cases) {
    const text = JSON.stringify(withValue(path, value));
    assert.throws(() => parseRecords(text, "a.json"), { message }, path);
  }
});

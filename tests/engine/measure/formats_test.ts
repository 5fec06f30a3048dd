import assert from "node:assert/strict";
import { toCsv, toJson, toJsonl, toMarkdown } from "../../../engine/measure/formats.ts";
import { type FailureReport, parseRecords } from "../../../engine/measure/history.ts";
import { sampleReport } from "./sample_report.ts";

const one = sampleReport();
const two = sampleReport({ engine: { threads: 1 }, generation: { prompt: 'a "b",\r\nc' } });
const failure: FailureReport = {
  schema_version: 1,
  timestamp: one.timestamp,
  error: "Cannot open | the GPU",
  engine: { name: "wgslm", version: "0.1.0", backend: "webgpu", threads: null, dtype: "auto" },
  model: { source: "local", id: "demo" },
  generation: { prompt_tokens: null, gen_tokens: 4, context_length: null, use_kv_cache: true },
};

/** A reader of RFC 4180, written from its grammar. */
function readCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  for (
    const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)
  ) {
    row.push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === ",") continue;
    rows.push(row);
    row = [];
  }
  return rows;
}

Deno.test("toCsv() gives a row a report, with the union of the scalar keys", () => {
  const text = toCsv([one, two, failure]);
  const [header, ...rows] = readCsv(text);
  assert.equal(rows.length, 3);
  assert.equal(new Set(header).size, header.length);
  assert.ok(rows.every((row) => row.length === header.length));
  const valueOf = (row: number, key: string) => rows[row][header.indexOf(key)];
  assert.equal(valueOf(0, "engine.backend"), "wasm");
  assert.equal(Number(valueOf(0, "results.tokens_per_sec.mean")), one.results.tokens_per_sec.mean);
  assert.equal(valueOf(0, "generation.use_kv_cache"), "true");
  assert.equal(valueOf(0, "commit"), "", "null");
  assert.equal(valueOf(0, "error"), "");
  assert.equal(valueOf(1, "generation.prompt"), 'a "b",\r\nc');
  assert.equal(valueOf(2, "error"), "Cannot open | the GPU");
  assert.equal(valueOf(2, "results.tokens_per_sec.mean"), "");
  assert.ok(!header.some((key) => key.startsWith("results.per_iter")), "lists are left out");
  assert.equal(toCsv(one).split("\r\n").length, 3);
});

Deno.test("toJson() and toJsonl() are read back as histories", () => {
  const list = [one, two, failure];
  assert.deepEqual(parseRecords(toJson(one), "a.json"), [one]);
  assert.deepEqual(parseRecords(toJson(list), "a.json"), list);
  assert.deepEqual(parseRecords(toJsonl(list), "a.jsonl"), list);
  assert.equal(toJsonl(one).split("\n").length, 2);
});

Deno.test("toMarkdown() of a list continues the specification's columns", () => {
  const [head, line, ...rows] = toMarkdown([one, two, failure]).trimEnd().split("\n");
  const [specified] = toMarkdown(one).split("\n");
  assert.equal(
    head,
    `${specified} backend | threads | weights | prompt | prefill tok/s | decode tok/s | ± % | ` +
      "of limit | check |",
  );
  assert.equal(toMarkdown([one]).split("\n")[0], head, "also of a list of one");
  const cells = (row: string) => row.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim());
  assert.equal(cells(line).length, 16);
  assert.deepEqual(rows.map((row) => cells(row).length), [16, 16, 16]);
  assert.deepEqual(cells(rows[0]).slice(7), [
    ...["wasm", "2", "F32", "6", "300.00", "10.00", "4.5", "90 %", "passed"],
  ]);
  assert.equal(cells(rows[1])[8], "1");
  assert.deepEqual(cells(rows[2]), [
    ...["webgpu", "local", "–", "on", "4", "–", "–", "webgpu", "–", "auto", "–", "–", "–", "–"],
    ...["–", "not run: Cannot open \\| the GPU"],
  ]);
});

Deno.test("toMarkdown() of several reports names model and context where they differ", () => {
  const headOf = (...changes: Parameters<typeof sampleReport>[0][]) =>
    toMarkdown([one, ...changes.map(sampleReport)]).split("\n")[0];
  assert.match(headOf({ model: { id: "other" } }), /\| check \| model \|$/);
  assert.match(headOf({ generation: { context_length: 9 } }), /\| check \| context \|$/);
  assert.match(headOf({ engine: { kv_dtype: "Q8_0" } }), /\| check \| KV dtype \|$/);
  assert.match(headOf({ engine: { activations: "int8" } }), /\| check \| activations \|$/);
  const f16 = { ...failure, engine: { ...failure.engine, kv_dtype: "F16" } };
  assert.match(toMarkdown([one, f16]), /\| check \| KV dtype \|[^]*\| F32 \|\n[^]*\| F16 \|\n$/);
  assert.match(headOf({}), /\| check \|$/);
});

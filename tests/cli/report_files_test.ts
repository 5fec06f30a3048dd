import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { openHistory, readHistory, readReports } from "../../cli/report_files.ts";
import { UsageError } from "../../cli/flags.ts";
import type { HistoryRecord, KernelBench } from "../../engine/measure/history.ts";
import { toSql } from "../../engine/measure/sql.ts";
import { sampleReport } from "../engine/measure/sample_report.ts";
import { assertRecords } from "../engine/measure/schema.ts";
import { runDeno } from "../process.ts";
import { inTempFolder } from "../safetensors.ts";

const ODD = `a 'b"; drop table x; -- \u{1F600}\n|,`;

const bench: KernelBench = {
  ...{ schema_version: 1, timestamp: "2026-01-02T03:04:05.678Z" },
  engine: { name: "wgslm", version: "0.1.0" },
  platform: { runtime: "Deno", cpu: "Test CPU" },
  bench: {
    ...{ origin: "bench/x.ts", group: null, name: ODD, n: 9 },
    ...{ avg_ns: 2.5, min_ns: 1, max_ns: 4, p75_ns: 3, p99_ns: 4 },
  },
};

const records: HistoryRecord[] = [
  sampleReport(),
  sampleReport({ model: { id: ODD } }),
  {
    ...{ schema_version: 1, timestamp: "2026-01-02T03:04:05.678Z", error: "Cannot: it's" },
    engine: { name: "wgslm", version: "0.1.0", backend: "webgpu", threads: null, dtype: "auto" },
    model: { source: "local", id: ODD },
    generation: { prompt_tokens: null, gen_tokens: 4, context_length: null, use_kv_cache: true },
  },
  bench,
];

const refuses = async (path: string, message: RegExp) => {
  await assert.rejects(openHistory(path), { message }, path);
};

for (const name of ["h.jsonl", "h.sqlite"]) {
  Deno.test(`records appended to ${name} are read back, in a folder that it makes`, () =>
    inTempFolder(async (folder) => {
      const path = `${folder}/new #1/é 'x'.${name}`;
      assertRecords(records);
      const file = await openHistory(path);
      await assert.rejects(Deno.stat(path), "nothing is made before the first record");
      await file.append(records.slice(0, 2));
      await (await openHistory(path)).append(records.slice(2));
      assert.deepEqual(await readHistory(path), records);
      assert.deepEqual(await readReports(path), records.slice(0, 2));
    }));

  Deno.test(`an empty ${name} takes records; a folder or another kind of file does not`, () =>
    inTempFolder(async (folder) => {
      const path = `${folder}/${name}`;
      await Deno.writeTextFile(path, "");
      await (await openHistory(path)).append(records);
      assert.equal((await readHistory(path)).length, 4);
      for (const text of ["hello\n", `{"a":1}\n`, "SQLite format 3\0", "x".repeat(5000)]) {
        await Deno.writeTextFile(path, text);
        await refuses(path, /^Cannot append to ".+": [^\n]+$/);
        assert.equal(await Deno.readTextFile(path), text, "unchanged");
      }
      await Deno.remove(path);
      await Deno.mkdir(path);
      await refuses(path, /^Cannot append to/);
    }));
}

Deno.test("openHistory() takes names of lines and databases alone", () =>
  inTempFolder(async (folder) => {
    for (const name of ["x.json", "x", "x.sqlite.txt", "jsonl"]) {
      await assert.rejects(openHistory(`${folder}/${name}`), UsageError);
    }
  }));

Deno.test("a torn last line stays alone, and reading names it", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/h.jsonl`;
    const line = JSON.stringify(records[0]);
    for (const torn of [line.slice(0, 5), line.slice(0, 300)]) {
      await Deno.writeTextFile(path, `${line}\n${torn}`);
      await (await openHistory(path)).append([records[1]]);
      const lines = (await Deno.readTextFile(path)).split("\n");
      assert.deepEqual(lines, [line, torn, JSON.stringify(records[1]), ""]);
      await assert.rejects(readHistory(path), /^Error: Cannot read line 2 of ".+h.jsonl": /);
    }
    await Deno.writeTextFile(path, line); // whole, only without its end
    await (await openHistory(path)).append([records[1]]);
    assert.deepEqual(await readHistory(path), records.slice(0, 2));
  }));

Deno.test("a database of another schema or version is refused, and unchanged", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/h.sqlite`;
    {
      using other = new DatabaseSync(path);
      other.exec("create table wgslm_reports (a); insert into wgslm_reports values (1)");
    }
    const before = await Deno.readFile(path);
    await refuses(path, /expected a history of wgslm, got a database of another schema$/);
    await assert.rejects(readReports(path), /^Error: Cannot read ".+": .*another schema$/);
    assert.deepEqual(await Deno.readFile(path), before);

    const later = `${folder}/later.sqlite`;
    await (await openHistory(later)).append(records);
    {
      using database = new DatabaseSync(later);
      database.exec("update wgslm_history set version = 2");
    }
    await refuses(later, /expected version 1 of a history, got 2; update wgslm$/);
    await assert.rejects(readReports(later), /version 1 of a history, got 2/);
  }));

Deno.test("toSql() runs twice on a database, which is then a history", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/h.sqlite`;
    const sql = await toSql(records);
    {
      using database = new DatabaseSync(path);
      database.exec(sql);
      database.exec(sql);
      const rows = database.prepare(
        "select model, backend, threads, error from wgslm_reports order by rowid",
      ).all().map((row) => ({ ...row }));
      assert.deepEqual(rows, [
        { model: "demo", backend: "wasm", threads: 2, error: null },
        { model: ODD, backend: "wasm", threads: 2, error: null },
        { model: ODD, backend: "webgpu", threads: null, error: "Cannot: it's" },
      ]);
    }
    assert.deepEqual(await readHistory(path), records);
    assert.equal(await (await openHistory(path)).append(records), 0, "each is there once");
  }));

Deno.test("two processes that append 50 records each lose none", () =>
  inTempFolder(async (folder) => {
    const module = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
    const code = `
      import { openHistory } from ${module("../../cli/report_files.ts")};
      import { sampleReport } from ${module("../engine/measure/sample_report.ts")};
      for (const name of ["h.jsonl", "h.sqlite"]) {
        const file = await openHistory(${JSON.stringify(folder)} + "/" + name);
        for (let i = 0; i < 50; i++) {
          await file.append([sampleReport({ model: { id: Deno.args[0] + "#" + i } })]);
        }
      }`;
    await Deno.writeTextFile(`${folder}/writer.ts`, code);
    const outputs = await Promise.all(
      ["a", "b"].map((writer) =>
        runDeno(["run", "-A", "--no-check", `${folder}/writer.ts`, writer])
      ),
    );
    for (const { code, stderr } of outputs) assert.equal(code, 0, stderr);
    const expected = ["a", "b"].flatMap((w) => Array.from({ length: 50 }, (_, i) => `${w}#${i}`));
    for (const name of ["h.jsonl", "h.sqlite"]) {
      const ids = (await readReports(`${folder}/${name}`)).map(({ model }) => model.id);
      assert.deepEqual(ids.toSorted(), expected.toSorted(), name);
    }
  }));

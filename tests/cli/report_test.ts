/** `report`: files, output and refusals of the command. */
import assert from "node:assert/strict";
import { UsageError } from "../../cli/flags.ts";
import { parseArguments } from "../../cli/parse.ts";
import { report } from "../../cli/report.ts";
import { openHistory } from "../../cli/report_files.ts";
import { toJson } from "../../mod.ts";
import { sampleReport } from "../engine/measure/sample_report.ts";
import { inTempFolder } from "../safetensors.ts";
import { runCli } from "./run.ts";

const run = (...args: string[]) => report(parseArguments(["report", ...args]));

/** Names in the first column of the overview. */
function namesIn(page: string): string[] {
  const [overview] = /<section id="overview"[^]*?<\/section>/.exec(page)!;
  return [...overview.matchAll(/<th scope="row">([^<]*)/g)].map(([, name]) => name);
}

Deno.test("report draws reports, lists and histories; equal models are called by their files", () =>
  inTempFolder(async (folder) => {
    const [a, b, page] = ["a.json", "b.json", "new/page.html"].map((name) => `${folder}/${name}`);
    await Deno.writeTextFile(a, toJson(sampleReport()));
    await Deno.writeTextFile(b, toJson([sampleReport(), sampleReport({ model: { id: "other" } })]));
    const database = await openHistory(`${folder}/h.sqlite`);
    await database.append([sampleReport({ model: { id: "kept" } })]);
    const { code, stdout, stderr } = await runCli([
      ...["report", a, b, database.path, "--html-out", page],
    ]);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /^wrote .*page\.html: 4 records of 3 files\n$/);
    const html = await Deno.readTextFile(page);
    assert.deepEqual(namesIn(html), ["a.json", "b.json", "other", "kept"]);
    await run(a, "--html-out", page);
    assert.deepEqual(namesIn(await Deno.readTextFile(page)), ["demo"], "replaced");
  }));

Deno.test("report refuses bad files in a sentence, and leaves an earlier page as it was", () =>
  inTempFolder(async (folder) => {
    const page = `${folder}/page.html`;
    await Deno.writeTextFile(page, "earlier");
    const good = JSON.stringify(sampleReport());
    const files: Readonly<Record<string, [text: string, message: RegExp]>> = {
      "other.json": [`{"results":[{"command":"sleep"}]}`, /Cannot read ".*expected a report of/],
      "empty.json": ["", /Cannot read ".*empty\.json": expected a report, got an empty file/],
      "none.json": ["[]", /Cannot draw reports: expected at least one report, got none/],
      "torn.jsonl": [`${good}\n${good.slice(0, 200)}`, /Cannot read line 2 of ".*torn\.jsonl"/],
      "torn.sqlite": ["SQLite format 3\0", /Cannot read ".*torn\.sqlite"/],
      "newer.json": [good.replace(`"schema_version":1`, `"schema_version":2`), /update wgslm/],
    };
    for (const [name, [text, message]] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
      await assert.rejects(run(`${folder}/${name}`, "--html-out", page), { message }, name);
    }
    await Deno.writeTextFile(`${folder}/good.json`, good);
    await assert.rejects(run(`${folder}/missing.json`, "--html-out", page), /no such file/);
    await assert.rejects(run(`${folder}/good.json`, "--html-out", folder), /it is a folder/);
    assert.equal(await Deno.readTextFile(page), "earlier");
    const left = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    assert.deepEqual(left, [...Object.keys(files), "good.json", "page.html"].sort());
  }));

Deno.test("report refuses bad usage", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/a.json`;
    await Deno.writeTextFile(path, toJson(sampleReport()));
    const refuses = (message: RegExp, ...args: string[]) =>
      assert.rejects(run(...args), (error) =>
        error instanceof UsageError && message.test(error.message));
    await refuses(/needs files/, "--html-out", `${folder}/p.html`);
    await refuses(/needs --html-out FILE\.html/, path);
    await refuses(/would overwrite the report/, path, "--html-out", `${folder}/./a.json`);
  }));

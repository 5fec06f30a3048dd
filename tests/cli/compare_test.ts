/** `compare` as a process: sides, refusals, exit status. */
import assert from "node:assert/strict";
import { compare } from "../../cli/compare.ts";
import { UsageError } from "../../cli/flags.ts";
import { parseArguments } from "../../cli/parse.ts";
import { type BenchmarkReport, toJson } from "../../mod.ts";
import { sampleReport } from "../engine/measure/sample_report.ts";
import { inTempFolder } from "../safetensors.ts";
import { runCli } from "./run.ts";

function rates(base: number, change: Parameters<typeof sampleReport>[0] = {}): BenchmarkReport {
  const sample = sampleReport(change);
  const [first] = sample.results.per_iter;
  const per_iter = [0.99, 1, 1.01].map((share) => ({ ...first, tokens_per_sec: share * base }));
  return { ...sample, results: { ...sample.results, per_iter } };
}

/** Runs the command in this process; it must throw. */
async function refusal(...args: string[]): Promise<Error> {
  try {
    await compare(parseArguments(["compare", ...args]));
  } catch (error) {
    return error as Error;
  }
  throw new Error(`${args.join(" ")} was not refused`);
}

Deno.test("compare prints a table, and exits 3 below --fail-below", () =>
  inTempFolder(async (folder) => {
    const [a, b, slow] = ["a", "b", "slow"].map((name) => `${folder}/${name}.json`);
    await Deno.writeTextFile(a, toJson(rates(100)));
    await Deno.writeTextFile(b, toJson(rates(101, { engine: { v8_flags: ["--no-|x"] } })));
    await Deno.writeTextFile(slow, toJson(rates(50)));

    const out = `${folder}/out/comparison.json`;
    const same = await runCli(["compare", a, b, "--fail-below", "0.95", "--json-out", out]);
    assert.equal(same.code, 0, same.stderr);
    assert.match(same.stdout, /^### demo in F32 on wasm, 2 threads/);
    const row =
      /^\| tokens_per_sec \| 100\.00 \| 101\.00 \| 1\.010 \| [\d.]+ to [\d.]+ \| no differ/m;
    assert.match(same.stdout, row);
    assert.match(same.stdout, /^- engine\.v8_flags: none → --no-\\\|x$/m);
    const [{ metrics, title }] = JSON.parse(await Deno.readTextFile(out));
    assert.equal(metrics[0].metric, "tokens_per_sec");
    assert.match(title, /^demo/);

    // A flag may follow the new files.
    const lists = await runCli(["compare", a, b, "--", slow, slow, "--fail-below", "0.95"]);
    assert.equal(lists.code, 3, lists.stderr);
    assert.match(lists.stdout, /\| slower \|\n/);
    assert.match(lists.stdout, /base: 6 iterations in 2 runs, new: 6 iterations in 2 runs/);
    const sentence = /^error: demo .*: tokens_per_sec is 0\.\d+ of the base at most, below 0\.95$/m;
    assert.match(lists.stderr, sentence);
  }));

Deno.test("compare refuses other work, and lists it with --force", () =>
  inTempFolder(async (folder) => {
    const [a, long] = ["a", "long"].map((name) => `${folder}/${name}.json`);
    await Deno.writeTextFile(a, toJson(rates(100)));
    await Deno.writeTextFile(long, toJson(rates(100, { generation: { prompt_tokens: 64 } })));
    const { message } = await refusal(a, long);
    assert.match(
      message,
      /^Cannot compare ".*a\.json" with ".*long\.json": expected the same work, got generation\.prompt_tokens 6 and 64; --force /,
    );
    const forced = await runCli(["compare", a, long, "--force"]);
    assert.equal(forced.code, 0, forced.stderr);
    assert.match(forced.stdout, /^- generation\.prompt_tokens: 6 → 64$/m);
  }));

Deno.test("compare refuses bad files and usage in one sentence", () =>
  inTempFolder(async (folder) => {
    const files: Record<string, string> = {
      "good.json": toJson(rates(100)),
      "other.json": '{ "tool": "llama-bench" }',
      "empty.json": "",
      "torn.jsonl": `${JSON.stringify(rates(100))}\n{"schema_version":1,"tim`,
      "sweep.json": JSON.stringify([
        rates(1, { engine: { threads: 3 } }),
        rates(1, { engine: { threads: 4 } }),
      ]),
    };
    const path = (name: string) => `${folder}/${name}`;
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(path(name), text);
    const good = path("good.json");
    const failures: [name: string, message: RegExp][] = [
      ["other.json", /other\.json": expected a report of wgslm, got JSON of another tool$/],
      ["empty.json", /empty\.json": expected a report, got an empty file$/],
      ["torn.jsonl", /line 2 of ".*torn\.jsonl": expected a record in JSON/],
      ["missing.json", /missing\.json": there is no such file$/],
      ["sweep.json", /expected a combination that both have, got none$/],
    ];
    for (const [name, message] of failures) {
      const error = await refusal(good, path(name));
      assert.match(error.message, message);
      assert.ok(!(error instanceof UsageError) && !error.message.includes("\n"), error.message);
    }
    const usage: [args: string[], message: RegExp][] = [
      [[], /^compare needs two files, or BASE… -- NEW…, got 0 files$/],
      [[good], /got 1 file$/],
      [[good, good, good], /got 3 files$/],
      [[good, good, "--"], /got 2 files and none on one side of --$/],
      [["--", good], /none on one side/],
      [[good, "--", good, "--", good], /^compare takes one --, got two$/],
      [[good, good, "--fail-below", "0"], /^--fail-below: expected a number above 0, got "0"$/],
      [[good, good, "--json-out", good], /^--json-out would overwrite the report/],
    ];
    for (const [args, message] of usage) {
      const error = await refusal(...args);
      assert.match(error.message, message);
      assert.ok(error instanceof UsageError, error.stack);
    }
    assert.equal(await Deno.readTextFile(good), files["good.json"]);
  }));

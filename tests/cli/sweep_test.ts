/** Sweeps of `bench`: combinations, rows, formats, an interrupt. */
import assert from "node:assert/strict";
import { combinationsOf, groupsOf } from "../../cli/combinations.ts";
import { UsageError } from "../../cli/flags.ts";
import { parseArguments } from "../../cli/parse.ts";
import { readHistory } from "../../cli/report_files.ts";
import { timeLeft } from "../../cli/progress.ts";
import { isFailure } from "../../engine/measure/history.ts";
import { assertRecords } from "../engine/measure/schema.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { hasTerminal, runOnTerminal } from "./on_terminal.ts";
import { runCli } from "./run.ts";

const LEARNED = fixture("labcore/learned");
const GPT2 = fixture("tiny/gpt2"); // has no tokenizer, and a context of 128

const CONFIG = { generation: {}, warnings: [] };

async function combinations(...args: string[]) {
  return await combinationsOf(parseArguments(args), CONFIG);
}

Deno.test("combinationsOf() multiplies lists, and gives a backend without threads one row", async () => {
  const found = await combinations(
    ...[LEARNED, GPT2, "--device", "wasm,js", "--threads", "1,2", "--gen-tokens", "4,8"],
  );
  assert.deepEqual(
    found.filter(({ chosen }) => chosen.id === GPT2)
      .map(({ given }) => [given.device, given.threads, given["gen-tokens"]]),
    [
      ...[["wasm", 1, 4], ["wasm", 1, 8], ["wasm", 2, 4], ["wasm", 2, 8]],
      ...[["js", undefined, 4], ["js", undefined, 8]],
    ],
  );
  assert.equal(found.length, 12);
  assert.equal(found[0].label, `${LEARNED}, wasm, 1 thread, 4 tokens`);
  const groups = groupsOf(found, () => Promise.reject(new Error("not loaded here")));
  assert.deepEqual(groups.map(({ members }) => members.length), Array(6).fill(2));
});

Deno.test("combinationsOf() takes each combination once, by whatever name", async () => {
  assert.equal((await combinations(LEARNED, "--device", "cpu,wasm", "--threads", "1,1")).length, 1);
  assert.equal((await combinations(LEARNED, `${LEARNED}/`, "--dtype", "f32,F32")).length, 1);
  const [single] = await combinations(LEARNED, "--device", "cpu");
  assert.equal(single.given.device, "cpu", "a single value stays as it is");
});

Deno.test("combinationsOf() asks for --yes beyond 200, before it looks at any model", async () => {
  const many = [
    ...["nowhere/model", "--threads", Array.from({ length: 64 }, (_, i) => i + 1).join()],
    ...["--gen-tokens", "1,2,3,4", "--device", "js,wasm"],
  ];
  await assert.rejects(
    combinations(...many),
    (error) =>
      error instanceof UsageError &&
      /^a sweep of 260 combinations needs --yes; without it, at most 200 run$/.test(error.message),
  );
  const found = await combinations(...many, "--yes");
  assert.equal(found.length, 260);
  assert.ok(found.every(({ error }) => error instanceof Error), "the model is missing");
});

/** Iterations that no test waits for. */
const MANY = 10_000_000;
const SHORT = ["--iters", "2", "--gen-tokens", "2", "--warmup-tokens", "1"];

Deno.test("a sweep prints a row a combination, also where half of them cannot run", () =>
  inTempFolder(async (folder) => {
    const [json, history] = ["s.json", "h.jsonl"].map((name) => `${folder}/${name}`);
    const { code, stdout, stderr } = await runCli([
      ...[LEARNED, `${folder}/missing`, "--device", "js,wasm", "--threads", "1", ...SHORT],
      ...["--kv-dtype", "F16", "--json-out", json, "--append", history, "--seed", "5"],
    ]);
    assert.equal(code, 0, stderr);
    const rows = stdout.trimEnd().split("\n");
    assert.equal(rows.length, 6, stdout);
    assert.match(
      rows[2],
      /\| 2 \| [\d.]+ \| N\/A \| js \| 1 \| F32 \| 6 \| .*labcore\/learned \|$/,
    );
    assert.match(rows[5], /^\| wasm \| local \| – \| on \| 2 \| – .* not run: Cannot .*missing/);
    assert.match(stderr, /a sweep of 4 combinations/);
    assert.equal(stderr.match(/^note: .*not run: Cannot/gm)?.length, 2);
    const records = await readHistory(json);
    assert.deepEqual(records.map(isFailure), [false, false, true, true]);
    const kvDtypes = records.map((record) => "kv_dtype" in record.engine && record.engine.kv_dtype);
    assert.deepEqual(kvDtypes, ["F16", "F16", "F16", "F16"]);
    assert.deepEqual(await readHistory(history), records);
  }));

Deno.test("a sweep whose every combination fails prints its rows and exits 1", async () => {
  const { code, stdout, stderr } = await runCli([
    ...[GPT2, "--device", "js", "--prompt-tokens", "200,300", "--iters", "1", "-o", "csv"],
  ]);
  assert.equal(code, 1);
  assert.match(stdout, /^schema_version,timestamp,error,engine.name.*\r\n(1,.*\r\n){2}$/);
  assert.match(stderr, /\nerror: Cannot measure: none of the combinations could run\n$/);
});

Deno.test({
  name: "Ctrl-C ends a sweep with the rows of finished iterations",
  ignore: !hasTerminal,
  fn: () =>
    inTempFolder(async (folder) => {
      const { code, screen } = await runOnTerminal(
        [
          ...[LEARNED, "--device", "js,wasm", "--threads", "1", "--iters", `${MANY}`],
          ...["--gen-tokens", "2", "--warmup-tokens", "1", "-o", "jsonl"],
        ],
        [
          ["", /: wasm, iteration ([2-9]|\d\d)/], // both have finished one
          ["\x03", /\^C/],
        ],
        { TERM: "xterm" },
        (words) => `stty cols 200; ${words} >'${folder}/out'`,
      );
      assert.equal(code, 130, screen);
      const out = await Deno.readTextFile(`${folder}/out`);
      const reports = out.trimEnd().split("\n").map((line) => JSON.parse(line));
      assertRecords(reports);
      assert.deepEqual(reports.map(({ engine }) => engine.backend), ["js", "wasm"]);
      for (const { results } of reports) {
        assert.ok(results.iters >= 1 && results.iters < MANY);
        assert.equal(results.per_iter.length, results.iters);
      }
    }),
});

Deno.test("timeLeft() counts seconds, then minutes", () => {
  assert.deepEqual([0, 1, 59_001, 119_001, 601_000].map(timeLeft), [
    ...["0 s left", "1 s left", "60 s left", "2 min left", "11 min left"],
  ]);
});

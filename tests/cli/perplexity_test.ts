import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { perplexity } from "../../engine/measure/perplexity.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

const MODEL = fixture("labcore/learned");

Deno.test("perplexity prints the scores of a text, and those against another dtype", () =>
  inTempFolder(async (folder) => {
    const text = "abcabcabc bca";
    const [file, json] = [`${folder}/text.txt`, `${folder}/out/scores.json`];
    await Deno.writeTextFile(file, text);
    const flags = ["--device", "js", "--stride", "4", "--against-dtype", "BF16"];
    const result = await runCli(["perplexity", MODEL, file, ...flags, "--json-out", json]);
    assert.equal(result.code, 0, result.stderr);
    await using model = await loadModel(MODEL, { device: "js" });
    await using reference = await loadModel(MODEL, { device: "js", dtype: "BF16" });
    const expected = await perplexity(model, text, { stride: 4, reference });
    const { model: name, against, ...scores } = JSON.parse(await Deno.readTextFile(json));
    assert.deepEqual(scores, expected);
    assert.deepEqual([name, against], [`${MODEL}, F32 on js`, `${MODEL}, BF16 on js`]);
    assert.match(result.stdout, /^ {2}perplexity +\d+\.\d{4}$/m);
    assert.match(result.stdout, /^ {2}same top token +\d+\.\d\d %$/m);
  }));

Deno.test("perplexity refuses a missing, empty or binary text in one sentence", () =>
  inTempFolder(async (folder) => {
    await Deno.writeFile(`${folder}/binary`, Uint8Array.of(0xff, 0xfe));
    const cases: [words: string[], input: string, code: number, message: RegExp][] = [
      [[], "", 2, /perplexity needs a text: name a file, or - for standard input/],
      [[MODEL, `${folder}/none`], "", 1, /Cannot read ".*none": there is no such file/],
      [[MODEL, `${folder}/binary`], "", 1, /expected UTF-8, got other bytes/],
      [[MODEL, "-"], "", 1, /Cannot score "-": expected a text, got an empty file/],
    ];
    for (const [words, input, status, message] of cases) {
      const { code, stdout, stderr } = await runCli(["perplexity", ...words], { input });
      assert.deepEqual([code, stdout], [status, ""]);
      assert.match(stderr, message);
      assert.match(stderr, /^error: [^\n]+\n$/);
    }
  }));

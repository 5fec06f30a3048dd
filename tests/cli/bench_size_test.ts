/** The defaults of `bench` on short contexts, and refusals before a weight is read. */
import assert from "node:assert/strict";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

const GPT2 = fixture("tiny/gpt2"); // a context of 128, no tokenizer
const ONE = ["--iters", "1", "--device", "js"];

async function sizes(...args: string[]): Promise<[number, number, number, string]> {
  return await inTempFolder(async (folder) => {
    const json = `${folder}/b.json`;
    const result = await runCli(["bench", ...args, ...ONE, "--json-out", json]);
    assert.equal(result.code, 0, result.stderr);
    const { generation } = JSON.parse(await Deno.readTextFile(json));
    const { prompt_tokens, warmup_tokens, gen_tokens } = generation;
    // Notes on a busy machine depend on the machine.
    const note = /^note: (?!other |the iterations ).*$/m.exec(result.stderr)?.[0] ?? "";
    return [prompt_tokens, warmup_tokens, gen_tokens, note];
  });
}

Deno.test("bench shrinks its defaults to the context, and says so", async () => {
  const [prompt, warmup, gen, note] = await sizes(GPT2);
  assert.deepEqual([prompt, warmup, gen], [64, 64, 64]);
  assert.equal(
    note,
    "note: the context of 128 tokens is too short for the defaults: " +
      "took a prompt of 64, 64 to warm up and 64 in each iteration",
  );
  assert.deepEqual((await sizes(GPT2, "--context", "2")).slice(0, 3), [1, 1, 1]);
  // What a flag asks for stays, and the rest is used up.
  assert.deepEqual((await sizes(GPT2, "--gen-tokens", "3")).slice(0, 3), [125, 3, 3]);
  assert.deepEqual((await sizes(GPT2, "--prompt-tokens", "100")).slice(0, 3), [100, 28, 28]);
  const short = ["--gen-tokens", "3", "--prompt-tokens", "5", "--warmup-tokens", "2"];
  assert.deepEqual(await sizes(GPT2, ...short), [5, 2, 3, ""]);
});

Deno.test("bench takes any length on a window that goes on past the context", async () => {
  const asked = ["--prompt-tokens", "70", "--gen-tokens", "80", "--warmup-tokens", "1"];
  const sliding = await sizes(fixture("labcore/learned"), ...asked);
  assert.deepEqual(sliding, [70, 1, 80, ""]);
  const cropping = await sizes(fixture("nanogpt/with-bias.pt"), ...asked);
  assert.deepEqual(cropping, [70, 1, 80, ""]);
});

Deno.test("bench refuses what does not fit before a weight is read", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    await Deno.copyFile(`${GPT2}/config.json`, `${folder}/config.json`);
    const bytes = await Deno.readFile(`${GPT2}/model.safetensors`);
    const header = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    bytes.fill(0xff, header); // no number: a run would find it
    await Deno.writeFile(path, bytes);
    const cases: [args: string[], message: RegExp][] = [
      [["--gen-tokens", "128"], /the prompt's 1 tokens and 128 more to fit the context of 128\n/],
      [
        ["--prompt-tokens", "128"],
        /the prompt's 128 tokens and 1 more to fit the context of 128\n/,
      ],
      [["--prompt-tokens", "100", "--warmup-tokens", "29"], /100 tokens and 29 more/],
      [["--prompt", "text"], /has no tokenizer; name one with --meta FILE.* --prompt-tokens N\n/],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await runCli(["bench", folder, ...args, ...ONE]);
      assert.match(stderr, message);
      assert.match(stderr, /^error: [^\n]+\n$/); // and no line on a loaded model
      assert.deepEqual([code, stdout], [1, ""]);
    }
  }));

Deno.test("bench draws ids where the vocabulary cannot spell its default prompt", () =>
  inTempFolder(async (folder) => {
    const vocab = Array.from({ length: 65 }, (_, i) => String.fromCharCode(0x4e00 + i));
    const meta = `${folder}/meta.json`;
    await Deno.writeTextFile(meta, JSON.stringify({ tokenizer: { type: "char", vocab } }));
    const args = [fixture("labcore/learned"), "--meta", meta, "--gen-tokens", "2"];
    const [prompt, , gen, note] = await sizes(...args, "--warmup-tokens", "1");
    assert.deepEqual([prompt, gen], [128, 2]);
    assert.match(note, /^note: the vocabulary cannot spell "ROMEO:": took 128 random ids/);
  }));

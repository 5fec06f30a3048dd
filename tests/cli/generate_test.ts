/** `generate` as its users meet it: prompts, endings, and models without a tokenizer. */
import assert from "node:assert/strict";
import { withChatModel } from "../chat_model.ts";
import { run } from "../process.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture, readJson } from "../testing.ts";
import { cliArguments, runCli } from "./run.ts";

const LEARNED = fixture("labcore/learned");
const GPT2 = fixture("tiny/gpt2"); // has no tokenizer
const FEW = ["--max-tokens", "8", "--seed", "1", "--device", "js"];
const NO_PROMPT =
  /^error: generate needs a prompt: give --prompt TEXT, --ids 1,2,3, or text on standard input/;

Deno.test("generate continues standard input as it does --prompt, less one end of line", async () => {
  const asked = await runCli(["generate", LEARNED, "--prompt", "ROMEO:", ...FEW]);
  assert.deepEqual([asked.code, asked.stderr], [0, ""]);
  for (const input of ["ROMEO:", "ROMEO:\n", "ROMEO:\r\n"]) {
    assert.deepEqual(await runCli(["generate", LEARNED, ...FEW], { input }), asked, input);
  }
  const twoLines = ["generate", LEARNED, "--prompt", "ROMEO:\nOn", ...FEW];
  const piped = await runCli(["generate", LEARNED, ...FEW], { input: "ROMEO:\nOn\n" });
  assert.deepEqual(piped, await runCli(twoLines));
  const both = await runCli(["generate", LEARNED, "--prompt", "ROMEO:", ...FEW], { input: "x" });
  assert.deepEqual(both, asked); // a flag beats standard input
});

Deno.test("generate takes empty input as none: the demo has a default prompt, no other model", async () => {
  const named = await runCli(["generate", fixture("../../bench/demo"), ...FEW]);
  assert.deepEqual([named.code, named.stderr], [0, ""]);
  for (const input of [undefined, "", "\n"]) {
    assert.deepEqual(await runCli(["generate", ...FEW], { input }), named);
    const other = await runCli(["generate", LEARNED, ...FEW], { input });
    assert.deepEqual([other.code, other.stdout], [2, ""]);
    assert.match(other.stderr, NO_PROMPT);
  }
});

Deno.test("generate runs with standard input closed", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const args = cliArguments(["generate", ...FEW]);
  const script = 'exec "$0" "$@" <&-';
  const { code, stdout, stderr } = await run("sh", ["-c", script, Deno.execPath(), ...args]);
  assert.equal(code, 0, stderr);
  const asked = await runCli(["generate", "--prompt", "ROMEO:", ...FEW]);
  assert.equal(stdout, asked.stdout);
});

Deno.test("generate refuses input that is no UTF-8", async () => {
  const input = new Uint8Array([0x61, 0xff, 0xfe]);
  const { code, stdout, stderr } = await runCli(["generate", LEARNED, ...FEW], { input });
  assert.deepEqual([code, stdout], [1, ""]);
  assert.equal(stderr, "error: Cannot read standard input: expected UTF-8, got other bytes\n");
});

Deno.test("generate says why it ended before the number of tokens asked for", async () => {
  const args = ["generate", LEARNED, "--prompt", "ROMEO:", "--temperature", "0"];
  const golden = readJson<{ greedy_kv_on: number[] }>("labcore/learned/golden.json");
  const { tokenizer } = readJson<{ tokenizer: { vocab: string[] } }>("labcore/learned/meta.json");
  assert.ok(golden.greedy_kv_on.length > 4);
  const { stdout } = await runCli([...args, "--max-tokens", "4"]);
  const stop = stdout[2];
  assert.ok(tokenizer.vocab.includes(stop));
  const stopped = await runCli([...args, "--max-tokens", "20", "--stop", stop]);
  assert.equal(stopped.code, 0);
  assert.match(stopped.stderr, /^ended after [123] tokens?: a --stop text came up\n$/);

  const llama = fixture("tiny/llama");
  const ids = Array.from({ length: 120 }, (_, i) => i).join(",");
  const full = await runCli(["generate", llama, "--ids", ids, "--seed", "1"]);
  assert.equal(full.code, 0);
  const end =
    /^ended after (\d+) tokens?: (the context of 128 tokens is full|the model ended its text)\n$/;
  assert.match(full.stderr, end);

  await inTempFolder(async (folder) => {
    for (const name of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(`${llama}/${name}`, `${folder}/${name}`);
    }
    // Every id ends the text.
    const every = { eos_token_id: Array.from({ length: 320 }, (_, i) => i) };
    await Deno.writeTextFile(`${folder}/generation_config.json`, JSON.stringify(every));
    const ended = await runCli(["generate", folder, "--ids", "1,2", ...FEW]);
    assert.equal(ended.stderr, "ended after 1 token: the model ended its text\n");
  });
});

Deno.test("generate prints ids, as --ids takes them, when there is no tokenizer", async () => {
  const args = ["generate", GPT2, "--temperature", "0", "--device", "js"];
  const { code, stdout, stderr } = await runCli([...args, "--ids", "1,2,3", "--max-tokens", "3"]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^\d+,\d+,\d+\n$/);
  const [first, ...rest] = stdout.trim().split(",");
  const again = await runCli([...args, "--ids", `1,2,3,${first}`, "--max-tokens", "2"]);
  assert.equal(again.stdout, `${rest.join(",")}\n`);
});

Deno.test("generate refuses bad ids, and text without a tokenizer, with the flag that helps", async () => {
  const cases: [args: string[], code: number, message: RegExp][] = [
    [["--ids", "1,320"], 1, /^error: Cannot run id 320: expected an integer from 0 to 319\n$/],
    [["--ids", "1,x"], 2, /^error: --ids: expected ids separated by commas, got "1,x"/],
    [["--ids", "1", "--prompt", "a"], 2, /--prompt and --ids contradict/],
    [
      ["--prompt", "a"],
      1,
      /^error: ".*gpt2" has no tokenizer; name one with --meta FILE .*, or give ids with --ids\n$/,
    ],
    [["--ids", "1", "--stop", "a"], 1, /has no tokenizer; name one with --meta/],
  ];
  for (const [args, expected, message] of cases) {
    const { code, stdout, stderr } = await runCli(["generate", GPT2, ...args, ...FEW]);
    assert.match(stderr, message);
    assert.deepEqual([code, stdout], [expected, ""]);
  }
});

Deno.test("OWNER/NAME that is no path hints at the hub; a path with an ending does not", async () => {
  for (const command of ["generate", "bench", "inspect", "kernels"]) {
    const { code, stdout, stderr } = await runCli([command, "owner/name-1.5B"]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.equal(
      stderr,
      'error: Cannot open "owner/name-1.5B": there is no such file or folder; ' +
        "name a model of the hub hf:owner/name-1.5B\n",
    );
  }
  assert.doesNotMatch((await runCli(["inspect", "out/ckpt.pt"])).stderr, /hf:/);
  assert.doesNotMatch((await runCli(["inspect", "/a/b"])).stderr, /hf:/);
});

Deno.test("a model's control characters go into a pipe as they are, and names do not steer", () =>
  withChatModel(async (folder) => {
    // Each drawn character is one that steers a terminal.
    const path = `${folder}/tokenizer.json`;
    const tokenizer = JSON.parse(await Deno.readTextFile(path));
    const steering = ["\x1b", "\x07", "\x9b", "\u202e", "\u2066"];
    const drawn = Object.entries<number>(tokenizer.model.vocab).filter(([, id]) => id >= 98);
    tokenizer.model.vocab = Object.fromEntries(
      Object.entries(tokenizer.model.vocab).filter(([, id]) => (id as number) < 98),
    );
    tokenizer.added_tokens.push(...drawn.map(([, id], i) => ({
      id,
      content: steering[i % 5] + String.fromCharCode(0x4e00 + i),
      special: false,
    })));
    await Deno.writeTextFile(path, JSON.stringify(tokenizer));
    const args = ["--prompt", "hi", "--max-tokens", "40", "--seed", "1", "--device", "js"];
    const { code, stdout } = await runCli(["generate", folder, ...args]);
    assert.equal(code, 0);
    assert.match(stdout.trimEnd(), /[\p{Cc}\u202e\u2066]/u);
    const missing = await runCli(["inspect", `${folder}/a\x1b[31m\u202eb`]);
    assert.equal(missing.code, 1);
    assert.doesNotMatch(missing.stderr.trimEnd(), /[\p{Cc}\u202e]/u);
    assert.match(missing.stderr, /a \[31m<U\+202E>b/);
  }));

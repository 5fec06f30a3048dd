/** The command line as a process: streams, files, exit status. */
import assert from "node:assert/strict";
import { toMarkdown } from "../../engine/measure/formats.ts";
import { VERSION } from "../../engine/measure/report.ts";
import { type Output, Process, run as runProcess } from "../process.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture, readJson } from "../testing.ts";
import { SCHEMA } from "./report_keys.ts";
import { cliArguments, runCli } from "./run.ts";

const LEARNED = fixture("labcore/learned");
const GPT2 = fixture("tiny/gpt2"); // has no tokenizer
/** Flags of the shortest benchmark, on the backend that starts first. */
const SHORT = ["--iters", "1", "--gen-tokens", "2", "--warmup-tokens", "0", "--device", "js"];
const unix = { ignore: Deno.build.os === "windows" };
const linux = { ignore: Deno.build.os !== "linux" };

const env = { NO_COLOR: "" }; // an empty NO_COLOR is none

const run = (...args: string[]) => runCli(args, { env });
const start = (...args: string[]) => new Process(Deno.execPath(), cliArguments(args), { env });

/** Expects one line on standard error and none on standard output. */
function assertFails({ code, stdout, stderr }: Output, expectedCode: number, message: RegExp) {
  assert.match(stderr, message);
  assert.equal(stderr.match(/^error: /gm)?.length, 1, stderr);
  assert.doesNotMatch(stderr, /^\s+at /m);
  assert.equal(stdout, "");
  assert.equal(code, expectedCode);
}

function leaves(value: unknown, path = ""): [string, unknown][] {
  if (typeof value !== "object" || value === null) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) =>
    leaves(inner, path ? `${path}.${key}` : key)
  );
}

function assertSchema(report: unknown): void {
  const found = leaves(report).filter(([path]) =>
    !/(per_iter|token_ms|passes_ms|load_average|memory)\.[1-9]/.test(path) &&
    !path.startsWith("engine.v8_flags") // a list that is usually empty
  ).map(([path, value]) => [path.replace("load_average.0", "load_average"), value] as const);
  assert.deepEqual(found.map(([path]) => path), Object.keys(SCHEMA));
  for (const [path, value] of found) {
    const type = value === null ? "null" : typeof value;
    assert.ok(SCHEMA[path].split(" ").includes(type), `${path} is ${type}`);
  }
}

Deno.test("bench prints only the table, and writes table and report into new folders", () =>
  inTempFolder(async (folder) => {
    const json = `${folder}/made/too/b.json`;
    const md = `${folder}/made/b.md`;
    const { code, stdout, stderr } = await run(
      "bench",
      LEARNED,
      "--iters",
      "2",
      "--gen-tokens",
      "5",
      "--warmup-tokens",
      "3",
      "--seed=11",
      "--prompt",
      "ROME",
      "--json-out",
      json,
      "--md-out",
      md,
    );
    assert.equal(code, 0, stderr);
    const report = JSON.parse(await Deno.readTextFile(json));
    assertSchema(report);
    assert.equal(stdout, toMarkdown(report));
    assert.equal(await Deno.readTextFile(md), stdout);
    assert.match(
      stdout.split("\n")[2],
      /^\| .+ \((cpu|webgpu)\) \| local \| 0\.0\d\d \| on \| 5 \| \d+\.\d\d \| (N\/A|\d+\.\d) \|$/,
    );
    assert.doesNotMatch(stdout + stderr, /[\p{Cc}--\n]/v);
    assert.match(stderr, /^warm-up: 3 tokens, .* tok\/s$/m);
    assert.match(stderr, /^iteration 1 of 2: 5 tokens, .* tok\/s$/m);
    assert.match(stderr, /^iteration 2 of 2: 5 tokens/m);
    assert.match(report.timestamp, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.equal(report.schema_version, 1);
    assert.equal(report.engine.version, VERSION);
    assert.equal(report.model.id, LEARNED);
    assert.deepEqual(
      { ...report.generation },
      {
        prompt: "ROME",
        prompt_tokens: 4,
        gen_tokens: 5,
        context_length: 32,
        temperature: 0.9,
        top_k: 40,
        top_p: 1,
        repetition_penalty: 1,
        use_kv_cache: true,
        stream: false,
        seed: 11,
        deterministic: false,
        warmup_tokens: 3,
      },
    );
    const iterations: { seed: number; token_ms: number[] }[] = report.results.per_iter;
    assert.deepEqual(iterations.map(({ seed }) => seed), [11, 12]);
    assert.ok(iterations.every(({ token_ms }) => token_ms.length === 5));
    // No temporary file is left.
    assert.deepEqual([...Deno.readDirSync(`${folder}/made/too`)].map((e) => e.name), ["b.json"]);
  }));

Deno.test("bench without a model measures the demo", () =>
  inTempFolder(async (folder) => {
    const few = ["--iters", "1", "--gen-tokens", "2", "--warmup-tokens", "0"];
    const { code, stderr } = await run(...few, "--json-out", `${folder}/b.json`);
    assert.equal(code, 0, stderr);
    const { model, generation } = JSON.parse(await Deno.readTextFile(`${folder}/b.json`));
    assert.deepEqual([model.id, model.source, model.vocab_size], ["demo", "local", 65]);
    assert.deepEqual([generation.prompt, generation.seed], ["ROMEO:", null]);
  }));

Deno.test("a flag overrides --config, which overrides the default; an unknown key warns", () =>
  inTempFolder(async (folder) => {
    const config = `${folder}/c.toml`;
    await Deno.writeTextFile(
      config,
      "[generation]\nseed = 5\ntop_k = 7\nuse_kv_cache = true\nstream = true\nwhat = 1\n",
    );
    const { code, stderr } = await run(
      ...SHORT,
      "--checkpoint",
      `${LEARNED}/model.safetensors`,
      "--config",
      config,
      "--no-use-kv-cache",
      "--seed",
      "9",
      "--stream",
      "--json-out",
      `${folder}/b.json`,
    );
    assert.equal(code, 0, stderr);
    const { generation } = JSON.parse(await Deno.readTextFile(`${folder}/b.json`));
    assert.deepEqual(
      [generation.seed, generation.top_k, generation.use_kv_cache, generation.temperature],
      [9, 7, false, 0.9],
    );
    assert.equal(generation.stream, false);
    assert.match(stderr, /^note: .*key what in \[generation\]/m);
    assert.match(stderr, /^note: --stream .*never streams$/m);
  }));

Deno.test("a model without a tokenizer is measured on --prompt-tokens random ids", () =>
  inTempFolder(async (folder) => {
    const json = `${folder}/b.json`;
    const { code, stderr } = await run(...SHORT, GPT2, "--prompt-tokens", "5", "--json-out", json);
    assert.equal(code, 0, stderr);
    const { generation } = JSON.parse(await Deno.readTextFile(json));
    assert.deepEqual([generation.prompt, generation.prompt_tokens], [null, 5]);
    assertFails(await run(...SHORT, GPT2, "--prompt", "text"), 1, /^error: .*tokenizer/m);
  }));

Deno.test("a shape with random weights needs no files", () =>
  inTempFolder(async (folder) => {
    const config = `${folder}/c.toml`;
    await Deno.writeTextFile(
      config,
      "[model]\nvocab_size = 11\nblock_size = 16\nn_layer = 1\nn_head = 2\nn_embd = 8\n",
    );
    const json = `${folder}/b.json`;
    const args = [...SHORT, "--random-weights", "--config", config, "--json-out", json];
    const { code, stderr } = await run(...args);
    assert.equal(code, 0, stderr);
    const { model, generation } = JSON.parse(await Deno.readTextFile(json));
    assert.deepEqual([model.vocab_size, generation.prompt_tokens], [11, 128]);
    await Deno.writeTextFile(config, "[generation]\n");
    assertFails(await run(...args), 1, /section \[model\]/);
  }));

Deno.test("a missing device falls back to the CPU with a note, or fails under --strict", async () => {
  // The outcome depends on whether this machine has a GPU.
  const { code, stdout, stderr } = await run(...SHORT, LEARNED, "--device", "webgpu");
  assert.equal(code, 0, stderr);
  if (/\(cpu\)/.test(stdout)) {
    assert.match(stderr, /^note: falling back to the CPU: /m);
    assertFails(await run(LEARNED, "--device", "cuda", "--strict"), 1, /^error: /m);
  }
});

const processors = navigator.hardwareConcurrency;
const manyProcessors = { ignore: processors >= 64 }; // the most that --threads takes

Deno.test("a note warns of more threads than processors", manyProcessors, async () => {
  const args = ["generate", LEARNED, "--prompt", "a", "--max-tokens", "1", "--device", "wasm"];
  const many = await run(...args, "--threads", `${processors + 1}`);
  assert.equal(many.code, 0, many.stderr);
  assert.match(many.stderr, /^note: \d+ threads wait for \d+ processors?: .*--threads is faster\n/);
  assert.doesNotMatch((await run(...args, "--threads", `${processors}`)).stderr, /^note: /m);
});

Deno.test("a note on a key of a configuration cannot steer the terminal", () =>
  inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/c.toml`, String.raw`"a\u001b[31m\u009bm\nb" = 1`);
    const args = ["generate", LEARNED, "--prompt", "a", "--max-tokens", "1"];
    const { code, stderr } = await run(...args, "--config", `${folder}/c.toml`);
    assert.equal(code, 0, stderr);
    assert.equal(
      stderr.match(/^note: .*$/m)?.[0].replace(/^.*": /, ""),
      "the key a [31m m b has no effect",
    );
  }));

Deno.test("bad usage is one line and exit status 2", async () => {
  assertFails(await run("--iters", "0"), 2, /^error: --iters: expected .*at least 1, got "0"/m);
  assertFails(await run("generate", "--max-tokenz", "3"), 2, /did you mean --max-tokens\?/);
  assertFails(await run("--source", "hf"), 2, /--source hf needs a model: .*--repo-id/);
  assertFails(await run("genrate"), 2, /did you mean generate\?/);
});

Deno.test("an unsupported dtype and a missing chat template are refused in a sentence", async () => {
  assertFails(await run(...SHORT, LEARNED, "--dtype", "Q7"), 2, /Q7/);
  assertFails(await run("generate", LEARNED, "--chat", "--prompt", "a"), 1, /chat template/);
});

Deno.test("missing and damaged files are named, with exit status 1", () =>
  inTempFolder(async (folder) => {
    assertFails(await run("--checkpoint", `${folder}/none`), 1, /none": there is no such file/);
    await Deno.writeTextFile(`${folder}/c.toml`, "[generation]\nseed = = 1\n");
    assertFails(await run("--config", `${folder}/c.toml`), 1, /c\.toml.*line 2, column \d+/);
    await Deno.writeTextFile(`${folder}/x.pt`, "not a checkpoint");
    assertFails(await run(`${folder}/x.pt`), 1, /x\.pt/);
    assertFails(await run("generate", LEARNED, "--prompt", ""), 1, /empty prompt/);
  }));

Deno.test("--verbose adds the stack of an error", async () => {
  const { code, stderr } = await run("/nowhere", "--verbose");
  assert.equal(code, 1);
  assert.match(stderr, /^\s+at /m);
});

Deno.test("an output that cannot be written is refused before the benchmark", () =>
  inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const result = await run(...SHORT, LEARNED, "--json-out", `${folder}/file/b.json`);
    assertFails(result, 1, /Cannot write "[^"]*file\/b\.json"/);
    assert.doesNotMatch(result.stderr, /iteration/);
    assertFails(await run(...SHORT, LEARNED, "--md-out", folder), 1, /it is a folder/);
    const same = ["--json-out", `${folder}/b`, "--md-out", `${folder}/./b`];
    assertFails(await run(...SHORT, LEARNED, ...same), 2, /the same file/);
  }));

Deno.test("a full disk fails, and the row is still printed", linux, async () => {
  const { code, stdout, stderr } = await run(...SHORT, LEARNED, "--json-out", "/dev/full");
  assert.equal(code, 1);
  assert.match(stderr, /^error: Cannot write "\/dev\/full": No space left/m);
  assert.equal(stdout.split("\n").length, 4);
});

Deno.test(
  "a report can go to standard output, even if that is a file",
  linux,
  () =>
    inTempFolder(async (folder) => {
      const args = cliArguments([...SHORT, LEARNED, "--json-out", "/dev/stdout"]);
      const script = `exec "$0" "$@" > "${folder}/out"`;
      const { code, stderr } = await runProcess("sh", ["-c", script, Deno.execPath(), ...args]);
      assert.equal(code, 0, stderr);
      const text = await Deno.readTextFile(`${folder}/out`);
      const end = text.indexOf("\n}\n") + 3;
      assert.equal(text.slice(end), toMarkdown(JSON.parse(text.slice(0, end))));
    }),
);

Deno.test("generate streams the text that a seed draws, and ends it with a newline", async () => {
  const args = ["generate", LEARNED, "--prompt", "ROMEO:", "--max-tokens", "20", "--seed", "3"];
  const [first, again] = [await run(...args), await run(...args)];
  assert.equal(first.code, 0, first.stderr);
  assert.equal(first.stderr, "");
  assert.equal(first.stdout, again.stdout);
  assert.ok([20, 21].includes(first.stdout.length), JSON.stringify(first.stdout));
  assert.ok(first.stdout.endsWith("\n"));
});

Deno.test("generate at temperature 0 gives the golden text", async () => {
  const golden = readJson<{ prompt: string; greedy_kv_on: number[] }>(
    "labcore/learned/golden.json",
  );
  const { tokenizer } = readJson<{ tokenizer: { vocab: string[] } }>("labcore/learned/meta.json");
  const text = golden.greedy_kv_on.slice(0, 16).map((id) => tokenizer.vocab[id]).join("");
  const { stdout, stderr } = await run(
    "generate",
    LEARNED,
    `--prompt=${golden.prompt}`,
    "--temperature",
    "0",
    "--max-tokens",
    "16",
  );
  assert.equal(stdout.trimEnd(), text.trimEnd(), stderr);
});

Deno.test("a reader that closes the pipe ends generate in silence", unix, async () => {
  const args = cliArguments(["generate", "--max-tokens", "500"]);
  const script = '{ "$0" "$@"; echo "ended with $?" >&2; } | head -c 1 > /dev/null';
  const { stderr } = await runProcess("sh", ["-c", script, Deno.execPath(), ...args], { env });
  assert.equal(stderr, "ended with 0\n");
});

Deno.test(
  "an interrupt ends bench with 130 and leaves no file behind",
  unix,
  () =>
    inTempFolder(async (folder) => {
      const size = ["--gen-tokens", "10000000", "--warmup-tokens", "1"];
      const bench = start(...size, "--json-out", `${folder}/b.json`);
      await bench.shows("stderr", /warm-up/);
      bench.kill("SIGINT");
      const { code, stdout, stderr } = await bench.output();
      assert.equal(code, 130, stderr);
      assert.equal(stdout, "");
      assert.doesNotMatch(stderr, /error/);
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    }),
);

Deno.test("an interrupt ends generate with 130 and its line with a newline", unix, async () => {
  const generate = start("generate", "--max-tokens", "10000000");
  await generate.shows("stdout", /./s);
  generate.kill("SIGINT");
  const { code, stdout, stderr } = await generate.output();
  assert.equal(code, 130);
  assert.match(stderr, /^ended after \d+ tokens?: interrupted\n$/);
  assert.ok(stdout.endsWith("\n"));
});

Deno.test("inspect shows tensors, parameters and memory", async () => {
  const { code, stdout, stderr } = await run("inspect", LEARNED, "--context", "16");
  assert.equal(code, 0, stderr);
  for (
    const fact of [/^ {2}parameters +\d+ \(/m, /context of 16$/m, /keys and values +\d/, /F32 +\[/]
  ) {
    assert.match(stdout, fact);
  }
  assertFails(await run("inspect", "--context", "9999"), 1, /context/);
});

Deno.test("devices lists every backend and the machine's limits", async () => {
  const { code, stdout, stderr } = await run("devices");
  assert.equal(code, 0, stderr);
  for (const name of ["webgpu", "wasm", "js"]) {
    assert.match(stdout, new RegExp(`^  ${name} .*(runs|not here).*: `, "m"));
  }
  const sections = stdout.split(/\n\n/).filter((text) => /^(webgpu|wasm|js): /.test(text));
  assert.deepEqual(
    sections.map((text) => text.match(/^\w+/)![0]),
    /^ {2}webgpu .*runs/m.test(stdout) ? ["webgpu", "wasm", "js"] : ["wasm", "js"],
  );
  for (const section of sections) {
    assert.match(section, /^ {2}reads +[\d.]+ GB\/s$/m);
    assert.match(section, /^ {2}calculates +[\d.]+ GFLOP\/s$/m);
    if (section.startsWith("webgpu")) assert.match(section, /^ {2}binding +at most .*iB/m);
  }
});

Deno.test("--help and --version answer on standard output", async () => {
  const help = await run("--help");
  assert.equal(help.code, 0);
  assert.equal(help.stderr, "");
  assert.match(help.stdout, /--gen-tokens N/);
  assert.match(help.stdout, /^ {2}generate /m);
  assert.doesNotMatch(help.stdout, /[\p{Cc}--\n]/v);
  assert.deepEqual(await run("--version"), { code: 0, stdout: `${VERSION}\n`, stderr: "" });
});

/**
 * The npm package on Node 22, Node 24 and Bun; the variable WGSLM_RUNTIMES is the folder of these,
 * which `tests/soak/npm/get_runtimes.sh` makes.
 */
import assert from "node:assert/strict";
import * as kernels from "../../kernels/mod.ts";
import * as library from "../../mod.ts";
import { withChatModel } from "../chat_model.ts";
import { hasTerminal, runOnTerminal } from "../cli/on_terminal.ts";
import { runCli } from "../cli/run.ts";
import { DEMO, type DemoGolden } from "../engine/demo.ts";
import { assertRecords } from "../engine/measure/schema.ts";
import { withHub } from "../hub_server.ts";
import { type Output, Process, type ProcessOptions, run } from "../process.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture, readJson } from "../testing.ts";
import { hasRuntimes, install, type Installed, RUNTIMES, TOOLS } from "./npm/install.ts";
import { MAIN, TYPED } from "./npm/programs.ts";
import { results } from "./npm/results.js";

/** Registers a test of the installed package. */
function npmTest(name: string, test: (installed: Installed) => Promise<void>): void {
  Deno.test({
    name: `npm: ${name}`,
    ignore: !hasRuntimes,
    fn: async () => await test(await install()),
  });
}

/** Registers a test for each runtime; the command line is run by `wgslm`. */
function onEach(
  name: string,
  test: (runtime: {
    readonly program: string;
    readonly installed: Installed;
    wgslm(args: readonly string[], options?: ProcessOptions): Promise<Output>;
  }) => Promise<void>,
): void {
  for (const runtime of RUNTIMES) {
    npmTest(`${runtime.name}: ${name}`, (installed) =>
      test({
        program: runtime.program,
        installed,
        wgslm: (args, options) => run(runtime.program, [installed.bin, ...args], options),
      }));
  }
}

const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");

/** What `results` reads: checkpoints of each format, and tokenizers of each kind. */
const PATHS = {
  demo: DEMO,
  fixtures: {
    folder: fixture("").replace(/\/$/, ""),
    golden: { prompt },
    tokenizers: ["byte-bpe", "llama3", "qwen2", "unigram", "wordpiece"].map((name) =>
      `tokenizers/${name}`
    ),
    checkpoints: {
      "nanogpt/with-bias.pt": [1, 2, 3],
      "gguf/llama-w256-q4_k_m.gguf": [1, 2, 3],
      "gguf/qwen2-q4_0.gguf": [5, 6],
      "tiny/gemma2.capped": [1, 2],
      "tiny/qwen3-bf16": [1, 2],
    },
  },
};

/** Results, as far as this file looks into them. */
interface Results {
  readonly demos: readonly { name: string; threads: number; greedy: { ids: number[] } }[];
  readonly withoutSimd: readonly string[];
}

let expected: Promise<Results> | undefined;

/** The results on Deno, as JSON has them. */
async function onDeno(): Promise<Results> {
  return JSON.parse(JSON.stringify(await (expected ??= results(library, kernels, PATHS))));
}

onEach("the library's results are those on Deno, and the program ends by itself", async (
  { program, installed: { folder } },
) => {
  await Deno.writeTextFile(`${folder}/main.js`, MAIN);
  await Deno.copyFile(new URL("./npm/results.js", import.meta.url), `${folder}/results.js`);
  const args = ["main.js", JSON.stringify(PATHS)];
  const { code, stdout, stderr } = await run(program, args, { cwd: folder });
  assert.equal(code, 0, stderr);
  const got: Results = JSON.parse(stdout);
  assert.deepEqual(got, await onDeno());
  const greedy = F16.greedy_kv_on.slice(0, 24);
  const demos = got.demos.map(({ name, threads, greedy }) => [name, threads, greedy.ids]);
  assert.deepEqual(demos, [["js", 1, greedy], ["wasm", 1, greedy], ["wasm", 2, greedy]]);
  const note = "runs as JavaScript: no WebAssembly with 128-bit SIMD";
  assert.deepEqual(got.withoutSimd, ["js", note]);
});

onEach("a program that never disposes of its model ends all the same", async (
  { program, installed: { folder } },
) => {
  const script = `import { loadModel } from "wgslm";
    const model = await loadModel(${JSON.stringify(DEMO)}, { device: "wasm", threads: 2 });
    for await (const { text } of model.generate("ROMEO:", { maxNewTokens: 2, seed: 1 })) void text;
    console.log(model.backend.threads);`;
  await Deno.writeTextFile(`${folder}/careless.js`, script);
  const { code, stdout } = await run(program, ["careless.js"], { cwd: folder });
  assert.deepEqual([code, stdout], [0, "2\n"]);
});

const DRAW = ["generate", DEMO, "--seed", "1337", "--max-tokens", "30"];

onEach(
  "generate prints Deno's text, of a prompt from a flag and from a pipe",
  async ({ wgslm }) => {
    const deno = await runCli([...DRAW, "--prompt", "ROMEO:"]);
    const flag = await wgslm([...DRAW, "--prompt", "ROMEO:"]);
    assert.deepEqual([flag.code, flag.stdout, flag.stderr], [0, deno.stdout, deno.stderr]);
    assert.equal((await wgslm(DRAW, { input: "ROMEO:\n" })).stdout, deno.stdout);
  },
);

onEach(
  "bench prints its row, and writes a report of the schema",
  ({ wgslm, program }) =>
    inTempFolder(async (folder) => {
      const report = `${folder}/made/report.json`;
      const short = ["--iters", "1", "--gen-tokens", "8", "--warmup-tokens", "2", "--threads", "2"];
      const { code, stdout, stderr } = await wgslm(
        ["bench", DEMO, ...short, "--json-out", report],
      );
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^\| .+ \(cpu\) \| local \| 4\.887 \| on \| 8 \| [\d.]+ \| N\/A \|$/m);
      const written = JSON.parse(await Deno.readTextFile(report));
      assertRecords(written, report);
      assert.equal(written.engine.threads, 2);
      assert.notEqual(written.results.check.passed, false); // null if there was no time for it
      const { stdout: version } = await run(program, ["--version"]);
      const { platform: { deno, node, bun } } = written;
      assert.deepEqual([deno, node ?? bun], [null, version.trim().replace(/^v/, "")]);
    }),
);

onEach(
  "inspect, kernels, devices and perplexity run",
  ({ wgslm }) =>
    inTempFolder(async (folder) => {
      const text = `${folder}/text`;
      await Deno.writeTextFile(text, "Good morrow, gentle friends, and all the rest.\n");
      const commands: readonly [string[], RegExp][] = [
        [["inspect", DEMO], /4\.887/],
        [["kernels", DEMO, "--dump", `${folder}/dump`], /matmul/],
        [["devices"], /wasm\s+the CPU, WebAssembly\s+runs models: .*thread/],
        [["perplexity", DEMO, text], /perplexity\s+\d/],
        [["--version"], /^\d+\.\d+\.\d+$/m],
        [["--help"], /Usage\n {2}npx wgslm /],
      ];
      for (const [args, shown] of commands) {
        const { code, stdout, stderr } = await wgslm(args);
        assert.equal(code, 0, `${args[0]}: ${stderr}`);
        assert.match(stdout, shown);
      }
      assert.ok([...Deno.readDirSync(`${folder}/dump`)].length > 3);
    }),
);

onEach(
  "histories of two processes at once lose nothing, and are read again",
  ({ wgslm }) =>
    inTempFolder(async (folder) => {
      const report = `${folder}/r.json`;
      const short = ["--iters", "1", "--gen-tokens", "4", "--warmup-tokens", "1", "--threads", "1"];
      await wgslm(["bench", DEMO, ...short, "--json-out", report]);
      for (const name of ["h.jsonl", "h.sqlite"]) {
        const args = ["append", `${folder}/${name}`, ...new Array(20).fill(report)];
        const both = await Promise.all([wgslm(args), wgslm(args)]);
        for (const { code, stderr } of both) {
          assert.equal(code, 0, stderr);
          assert.doesNotMatch(stderr, /Experimental|\n {4}at /);
        }
        const page = `${folder}/page.html`;
        const { code, stderr } = await wgslm(["report", `${folder}/${name}`, "--html-out", page]);
        assert.equal(code, 0, stderr);
        assert.match(await Deno.readTextFile(page), /^<!DOCTYPE html>/i);
      }
      const lines = (await Deno.readTextFile(`${folder}/h.jsonl`)).trimEnd().split("\n");
      assert.equal(lines.length, 40);
      lines.forEach((line) => assertRecords(JSON.parse(line)));
    }),
);

onEach("an error is one sentence, without a stack trace", async ({ wgslm }) => {
  const refused: readonly [string[], number, RegExp][] = [
    [["bench", "/no/such/model.pt"], 1, /^error: Cannot open "\/no\/such\/model\.pt": .+\n$/],
    [["generate", DEMO, "--frobnicate"], 2, /^error: generate has no flag --frobnicate .+\n$/],
    [["generate", DEMO, "--prompt", "x", "--top-k", "many"], 2, /^error: --top-k.+\n$/],
    [["bench"], 2, /^error: bench needs a model.+\n$/],
    [["inspect", DEMO, "--json-out", "/proc/none/x.json"], 1, /^error: Cannot write ".+\n$/],
    [["perplexity", DEMO, DEMO], 1, /^error: Cannot read ".+": expected a file, got a folder\n$/],
  ];
  for (const [args, status, sentence] of refused) {
    const { code, stdout, stderr } = await wgslm(args);
    assert.deepEqual([code, stdout], [status, ""], `${args.join(" ")}: ${stderr}`);
    assert.match(stderr, sentence);
  }
});

onEach("a closed pipe ends the program in silence", async ({ program, installed: { bin } }) => {
  const line = `"$0" "$1" generate "$2" --prompt ROMEO: --seed 1 --max-tokens 5000 | head -c 9`;
  const { code, stdout, stderr } = await run("bash", [
    "-c",
    `set -o pipefail; ${line}`,
    program,
    bin,
    DEMO,
  ]);
  assert.deepEqual([code, stdout.length, stderr], [0, 9, ""]);
});

onEach("an interrupt ends a generation with status 130, and so do two", async (
  { program, installed },
) => {
  const endless = [...DRAW.slice(0, -1), "1000000", "--prompt", "ROMEO:"];
  for (const count of [1, 2]) {
    const child = new Process(program, [installed.bin, ...endless]);
    await child.shows("stdout", /./);
    for (let i = 0; i < count; i++) child.kill("SIGINT");
    const { code, stdout, stderr } = await child.output();
    assert.equal(code, 130, stderr);
    // The second does not wait for the end of a chunk, and of the line.
    if (count === 1) assert.ok(stdout.endsWith("\n"));
    assert.doesNotMatch(stderr, /\n {4}at /);
  }
});

for (const runtime of hasTerminal ? RUNTIMES : []) {
  npmTest(
    `${runtime.name}: a conversation on a terminal has a line editor`,
    ({ bin }) =>
      withChatModel(async (folder) => {
        const args = ["generate", folder, "--chat", "--device", "js", "--max-tokens", "6"];
        const words = [runtime.program, bin, ...args].map((word) => `'${word}'`);
        const { code, screen } = await runOnTerminal(
          args,
          [
            ["", /> /],
            ["Hj\x7fi\r", /\n[^]*> /], // a key, and the key that takes it back
            ["\x1b[A\r", /\n[^]*> /], // the line before
            ["\x04", /\n/],
          ],
          { TERM: "xterm", HOME: folder },
          () => words.join(" "), // in place of Deno's command line
        );
        assert.equal(code, 0, screen);
        assert.ok(screen.includes("Hi"), JSON.stringify(screen));
      }),
  );
}

onEach(
  "a model of the hub is downloaded into the cache that Deno uses",
  ({ wgslm }) =>
    withHub({ files: fixture("tiny/llama") }, async (hub) => {
      const args = ["generate", "hf:owner/name", "--ids", "1,2,3", "--max-tokens", "5"];
      const greedy = [...args, "--temperature", "0"];
      const first = await wgslm(greedy, { env: hub.env });
      assert.equal(first.code, 0, first.stderr);
      const requests = hub.server.requests.length;
      assert.ok(requests > 3);
      const again = await runCli([...greedy, "--offline"], { env: hub.env });
      assert.deepEqual([again.code, again.stdout], [0, first.stdout]);
      assert.equal(hub.server.requests.length, requests);
    }),
);

npmTest("the package's program is found by its name", async ({ folder }) => {
  const path = RUNTIMES[0].program.replace(/\/node$/, "");
  const env = { PATH: `${path}:${Deno.env.get("PATH")}` };
  const { code, stdout } = await run(`${folder}/node_modules/.bin/wgslm`, ["--version"], { env });
  assert.deepEqual([code, stdout], [0, `${library.VERSION}\n`]);
});

npmTest("the types pass tsc --strict as bundlers and as Node resolve them", async ({ folder }) => {
  await Deno.writeTextFile(`${folder}/typed.ts`, TYPED);
  const common = ["--strict", "--noEmit", "--target", "es2022"];
  for (const [module, resolution] of [["esnext", "bundler"], ["nodenext", "nodenext"]]) {
    for (const lib of [[], ["--lib", "es2022,dom"]]) {
      const { code, stdout } = await run(RUNTIMES[1].program, [
        `${TOOLS}/typescript/bin/tsc`,
        ...common,
        ...["--module", module, "--moduleResolution", resolution],
        ...lib,
        "typed.ts",
      ], { cwd: folder });
      assert.equal(code, 0, `${resolution} ${lib}: ${stdout}`);
    }
  }
});

npmTest("the package has no dependency, no source and no demo", async ({ folder }) => {
  const root = `${folder}/node_modules/wgslm`;
  const manifest = JSON.parse(await Deno.readTextFile(`${root}/package.json`));
  assert.equal(manifest.dependencies, undefined);
  assert.deepEqual(Object.keys(manifest.exports), [".", "./kernels", "./package.json"]);
  for (const conditions of [manifest.exports["."], manifest.exports["./kernels"]]) {
    for (const path of Object.values<string>(conditions)) Deno.statSync(`${root}/${path}`);
    assert.deepEqual(
      Object.keys(conditions),
      ["types", "deno", "bun", "browser", "node", "default"],
    );
  }
  const names = [...Deno.readDirSync(root)].map(({ name }) => name).sort();
  assert.deepEqual(names, [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "THIRD_PARTY.md",
    "node",
    "package.json",
    "types",
    "web",
  ]);
});

npmTest(
  "webgpu on Node is the package of that name, if the user has it",
  async ({ folder, bin }) => {
    const args = [bin, ...DRAW, "--prompt", "ROMEO:", "--device", "webgpu", "--strict"];
    const without = await run(RUNTIMES[1].program, args);
    assert.equal(without.code, 1);
    assert.match(
      without.stderr,
      /^error: Cannot open "webgpu": expected navigator\.gpu, got none;/m,
    );
    await Deno.symlink(`${TOOLS}/webgpu`, `${folder}/node_modules/webgpu`);
    const { code, stdout, stderr } = await run(RUNTIMES[1].program, args);
    assert.doesNotMatch(stderr, /expected navigator\.gpu/);
    if (code === 0) {
      assert.equal(stdout, (await runCli([...DRAW, "--prompt", "ROMEO:"])).stdout);
    } else {
      assert.match(stderr, /^error: Cannot open "webgpu": .+$/m);
      console.warn("npm_test.ts: webgpu on Node SKIPPED, since its package finds no adapter here");
    }
  },
);

/**
 * The engine in a browser: Chromium, whose executable WGSLM_CHROMIUM names, with its software
 * WebGPU. Its compiler takes every shader; models give PyTorch's numbers in a page, in a worker,
 * and where memory cannot be shared; and a bundle of `mod.ts` loads in a page.
 */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- in deno.json, every user would download it
import type { Browser } from "npm:playwright-core@1.65.1";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, loadTokenizer } from "../../mod.ts";
import { FAMILY_FOLDERS } from "../engine/families.ts";
import { assertClose, fixture, TOLERANCE } from "../testing.ts";
import { bundleLibrary } from "./browser/bundle.ts";
import type { Encoding } from "./browser/bundled.ts";
import type { Answers, Opening, Question } from "./browser/page.ts";
import { serveProject } from "./browser/server.ts";
import type { Compiled } from "./browser/shaders.ts";

const CHROMIUM = Deno.env.get("WGSLM_CHROMIUM") ?? "";
if (CHROMIUM === "") {
  console.warn("browser_test.ts: SKIPPED, since WGSLM_CHROMIUM names no Chromium");
}

/** Longer than any test here takes; what hangs ends in a failure. */
const PATIENCE_MS = 120_000;

/** Without a sandbox, which root cannot have and which nothing foreign is run in. */
const ARGS = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** Calls an export of a module below `browser/`. */
type Call = <T>(module: string, name: string, ...args: unknown[]) => Promise<T>;

/** Where the engine is run. */
type Place = "isolated page" | "plain page" | "worker";

/** Runs a test with what calls into a place of a browser. */
function inBrowser(
  name: string,
  place: Place,
  test: (call: Call) => Promise<void>,
  bundle?: () => Promise<ReadonlyMap<string, string>>,
): void {
  Deno.test({
    name: `in a browser, ${place}: ${name}`,
    ignore: CHROMIUM === "",
    fn: async () => {
      const { chromium } = await import("playwright-core"); // nobody else has to have it
      await using server = serveProject(await bundle?.());
      const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
      // Closing the browser ends what the page is asked for.
      const timer = setTimeout(() => void browser.close(), PATIENCE_MS);
      try {
        await test(
          await callInto(browser, server[place === "plain page" ? "plain" : "isolated"], place),
        );
      } finally {
        clearTimeout(timer);
        await browser.close();
      }
    },
  });
}

async function callInto(browser: Browser, url: string, place: Place): Promise<Call> {
  const page = await browser.newPage();
  await page.goto(url);
  const work = async ([path, name, args]: readonly [string, string, readonly unknown[]]) =>
    await (await import(path))[name](...args);
  if (place !== "worker") {
    return (module, name, ...args) => page.evaluate(work, [pathOf(module), name, args] as const);
  }
  const started = page.waitForEvent("worker");
  await page.evaluate((path) => void new Worker(path, { type: "module" }), pathOf("page.ts"));
  const worker = await started;
  return (module, name, ...args) => worker.evaluate(work, [pathOf(module), name, args] as const);
}

function pathOf(module: string): string {
  return `/tests/soak/browser/${module}`;
}

/**
 * Asks models of the fixtures and holds what they say to PyTorch's; the threads that there were.
 */
async function checkModels(call: Call, opening: Opening, names: readonly string[]) {
  const questions: Question[] = [];
  const expected: { logits: Float32Array; greedy: number[] }[] = [];
  for (const name of names) {
    const folder = `tiny/${name}`;
    using golden = await openCheckpoint(fixture(`${folder}/golden.safetensors`));
    const { context } = JSON.parse(Deno.readTextFileSync(fixture(`${folder}/golden.json`)));
    const greedy = [...await golden.read("greedy")].slice(0, 8);
    const ids = [...await golden.read("ids")];
    questions.push({ folder, context, ids, draws: greedy.length });
    expected.push({ logits: await golden.read("logits"), greedy });
  }
  const { threads, answers } = await call<Answers>("page.ts", "ask", opening, questions);
  for (const [i, { logits, greedy }] of answers.entries()) {
    assertClose(logits, expected[i].logits, TOLERANCE.logits, names[i]);
    assert.deepEqual(greedy, expected[i].greedy, names[i]);
  }
  assert.equal(answers.length, names.length);
  return threads;
}

/** Families whose weights are one file. */
const MODELS = FAMILY_FOLDERS.filter((name) =>
  [...Deno.readDirSync(fixture(`tiny/${name}`))].some((file) => file.name === "model.safetensors")
);

/**
 * Few of them, for WebGPU in software: norms of both kinds, gates, windows, caps, norms of heads,
 * 16 bits.
 */
const FEW = ["gemma2.capped", "qwen3-bf16", "opt.post"];

for (const software of [true, false]) {
  inBrowser(
    `its compiler takes every shader, as for ${software ? "a processor" : "a GPU"}`,
    "isolated page",
    async (call) => {
      const folders = FAMILY_FOLDERS.map((name) => `tiny/${name}`);
      const compiled = await call<Compiled>("shaders.ts", "compileAll", software, folders);
      assert.deepEqual(compiled.messages, []);
      assert.ok(compiled.shaders > 300, `${compiled.shaders} shaders`);
      assert.ok(compiled.pipelines > 50, `${compiled.pipelines} pipelines`);
      assert.ok(compiled.withSubgroups > 0);
    },
  );
}

for (const options of [{}, { software: false, tune: false }]) {
  inBrowser(
    `webgpu gives PyTorch's numbers ${JSON.stringify(options)}`,
    "isolated page",
    async (call) => {
      await checkModels(call, { name: "webgpu", options }, FEW);
    },
  );
}

inBrowser(
  "wasm gives PyTorch's numbers on two threads, of which the page's spins",
  "isolated page",
  async (call) => {
    assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, MODELS), 2);
    assert.ok(await checkModels(call, { name: "wasm" }, FEW) >= 1);
  },
);

inBrowser("wasm gives PyTorch's numbers on two threads", "worker", async (call) => {
  assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, MODELS), 2);
});

inBrowser("wasm has one thread, since memory cannot be shared", "plain page", async (call) => {
  assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, FEW), 1);
});

Deno.test("a bundle of mod.ts for pages imports no built-in module, at once or later", async () => {
  const bundle = await bundleLibrary();
  assert.ok(bundle.has("mod.js"));
  const builtin = /\b(?:from|import|require)\s*\(?\s*["'`]node:[^"'`]*/g;
  assert.deepEqual([...bundle.values()].flatMap((text) => text.match(builtin) ?? []), []);
});

/** Records that tokenizers are made of without a file. */
const RECORDS = [
  { type: "char", vocab: [..." ,!Hdelorw"] },
  { type: "bpe", encoding_name: "gpt2" },
];

inBrowser(
  "the bundle of mod.ts encodes, runs a model, and says what it cannot",
  "plain page",
  async (call) => {
    const text = "Hello, world!";
    for (const record of RECORDS) {
      const expected = await loadTokenizer(record);
      const { vocabSize, ids } = { vocabSize: expected.vocabSize, ids: expected.encode(text) };
      assert.deepEqual(await call<Encoding>("bundled.ts", "encode", record, text), {
        vocabSize,
        ids,
        text,
      });
    }
    const config = {
      model_type: "gpt2",
      vocab_size: 100,
      n_embd: 16,
      n_head: 2,
      n_layer: 2,
      n_positions: 32,
    };
    await using model = await loadModel({ config }, { device: "js" });
    const expected = await model.logits([1, 2, 3]);
    for (const device of ["js", "wasm"]) {
      const logits = await call<number[]>("bundled.ts", "logits", config, device, [1, 2, 3]);
      assertClose(Float32Array.from(logits), expected, TOLERANCE.logits, device);
    }
    assert.equal(
      await call<string>("bundled.ts", "refusal", "model.pt"),
      'CheckpointError: Cannot open "model.pt": ' +
        "expected a runtime with files, got one without; run it on Deno",
    );
  },
  bundleLibrary,
);

/**
 * The engine in Chromium with software WebGPU; the variable WGSLM_CHROMIUM is its executable.
 *
 * The browser's compiler accepts every shader; models return PyTorch's numbers in an isolated page,
 * in a worker, and in a page without shared memory; a bundle of `mod.ts` works in a page.
 */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Browser } from "npm:playwright-core@1.65.1";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, loadTokenizer } from "../../mod.ts";
import { FAMILY_FOLDERS } from "../engine/families.ts";
import { assertClose, fixture, TOLERANCE } from "../testing.ts";
import { bundleLibrary } from "./browser/bundle.ts";
import type { Encoding } from "./browser/bundled.ts";
import type { BackendChoice, Results, Task } from "./browser/page.ts";
import { CHROMIUM, SWIFTSHADER, withBrowser } from "./browser/launch.ts";
import { serveProject } from "./browser/server.ts";
import type { Compiled } from "./browser/shaders.ts";

/** Calls an export of a module in `browser/`. */
type Call = <T>(module: string, name: string, ...args: unknown[]) => Promise<T>;

/** JavaScript context that the engine runs in. */
type Context = "isolated page" | "plain page" | "worker";

/** Registers a test that calls into a context of a new browser. */
function inBrowser(
  name: string,
  context: Context,
  test: (call: Call) => Promise<void>,
  bundle?: () => Promise<ReadonlyMap<string, string>>,
): void {
  Deno.test({
    name: `in a browser, ${context}: ${name}`,
    ignore: CHROMIUM === "",
    fn: async () => {
      await using server = serveProject(await bundle?.());
      const url = context === "plain page" ? server.plain : server.isolated;
      await withBrowser(
        SWIFTSHADER,
        async (browser) => await test(await callInto(browser, url, context)),
      );
    },
  });
}

async function callInto(browser: Browser, url: string, context: Context): Promise<Call> {
  const page = await browser.newPage();
  page.setDefaultTimeout(0); // the test has a deadline
  await page.goto(url);
  const work = async ([path, name, args]: readonly [string, string, readonly unknown[]]) =>
    await (await import(path))[name](...args);
  if (context !== "worker") {
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

/** Compares models of the fixtures with PyTorch; returns the backend's number of threads. */
async function checkModels(call: Call, choice: BackendChoice, names: readonly string[]) {
  const tasks: Task[] = [];
  const expected: { logits: Float32Array; greedy: number[] }[] = [];
  for (const name of names) {
    const folder = `tiny/${name}`;
    using golden = await openCheckpoint(fixture(`${folder}/golden.safetensors`));
    const { context } = JSON.parse(Deno.readTextFileSync(fixture(`${folder}/golden.json`)));
    const greedy = [...await golden.read("greedy")].slice(0, 8);
    const ids = [...await golden.read("ids")];
    tasks.push({ folder, context, ids, draws: greedy.length });
    expected.push({ logits: await golden.read("logits"), greedy });
  }
  const { threads, results } = await call<Results>("page.ts", "runModels", choice, tasks);
  for (const [i, { logits, greedy }] of results.entries()) {
    assertClose(logits, expected[i].logits, TOLERANCE.logits, names[i]);
    assert.deepEqual(greedy, expected[i].greedy, names[i]);
  }
  assert.equal(results.length, names.length);
  return threads;
}

/** Families with one weight file. */
const MODELS = FAMILY_FOLDERS.filter((name) =>
  [...Deno.readDirSync(fixture(`tiny/${name}`))].some((file) => file.name === "model.safetensors")
);

/**
 * A few of them, since software WebGPU is slow: both kinds of norms, gates, windows, soft caps,
 * QK-norm, 16 bits.
 */
const FEW = ["gemma2.capped", "qwen3-bf16", "opt.post"];

for (const software of [true, false]) {
  inBrowser(
    `its compiler accepts every shader for ${software ? "a software adapter" : "a GPU"}`,
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
    `webgpu returns PyTorch's numbers, options ${JSON.stringify(options)}`,
    "isolated page",
    async (call) => {
      await checkModels(call, { name: "webgpu", options }, FEW);
    },
  );
}

inBrowser(
  "wasm returns PyTorch's numbers on two threads; the page's thread must spin",
  "isolated page",
  async (call) => {
    assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, MODELS), 2);
    assert.ok(await checkModels(call, { name: "wasm" }, FEW) >= 1);
  },
);

inBrowser("wasm returns PyTorch's numbers on two threads", "worker", async (call) => {
  assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, MODELS), 2);
});

inBrowser("wasm uses one thread when memory cannot be shared", "plain page", async (call) => {
  assert.equal(await checkModels(call, { name: "wasm", options: { threads: 2 } }, FEW), 1);
});

Deno.test("a bundle of mod.ts for pages imports no built-in module", async () => {
  const bundle = await bundleLibrary();
  assert.ok(bundle.has("mod.js"));
  const builtin = /\b(?:from|import|require)\s*\(?\s*["'`]node:[^"'`]*/g;
  assert.deepEqual([...bundle.values()].flatMap((text) => text.match(builtin) ?? []), []);
});

/** Tokenizer records that need no further file. */
const RECORDS = [
  { type: "char", vocab: [..." ,!Hdelorw"] },
  { type: "bpe", encoding_name: "gpt2" },
];

inBrowser(
  "the bundle of mod.ts encodes, runs a model, and refuses to open a file",
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
        "expected a URL, hf:owner/name, or files that were chosen",
    );
  },
  bundleLibrary,
);

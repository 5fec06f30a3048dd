/**
 * `loadModel` in a page, from a server at another origin: same ids as in Deno, cache, resumption,
 * refusals. The variable WGSLM_CHROMIUM is Chromium's executable.
 */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Page } from "npm:playwright-core@1.65.1";
import { loadModel, type LoadOptions, type Perplexity, perplexity } from "../../mod.ts";
import type { DemoGolden } from "../engine/demo.ts";
import { HubServer } from "../hub_server.ts";
import { until } from "../patience.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../testing.ts";
import { bundleLibrary } from "./browser/bundle.ts";
import { routeHub } from "./browser/hub.ts";
import { CHROMIUM, SWIFTSHADER, withPage } from "./browser/launch.ts";
import { serveModel } from "./browser/model_server.ts";
import type { Loaded } from "./browser/page_calls.ts";
import { type ProjectServer, serveProject } from "./browser/server.ts";

/** Timeout of a test in milliseconds, longer than any of them takes. */
const TIMEOUT_MS = 240_000;

const DEMO = new URL("../../bench/demo/", import.meta.url);

let bundle: Promise<ReadonlyMap<string, string>> | undefined;

/** Registers a test with a page of a new browser. */
function inPage(
  name: string,
  test: (page: Page, site: ProjectServer) => Promise<void>,
  flags = SWIFTSHADER,
): void {
  Deno.test({
    name: `in a page: ${name}`,
    ignore: CHROMIUM === "",
    fn: async () => {
      await using site = serveProject(await (bundle ??= bundleLibrary()));
      await withPage(flags, (page) => test(page, site), { mostMs: TIMEOUT_MS });
    },
  });
}

async function callIn<T>(page: Page, name: string, ...args: unknown[]): Promise<T> {
  return await page.evaluate(
    async ([name, args]) =>
      await (await import("/tests/soak/browser/page_calls.ts"))[name](...args),
    [name, args] as const,
  );
}

/** Loads a model in a page and generates. */
async function load(page: Page, source: unknown, options: object = {}): Promise<Loaded> {
  const loaded = await callIn<Loaded | string>(page, "load", source, options);
  assert.ok(typeof loaded !== "string", loaded as string);
  return loaded;
}

/** The sentence of a load that fails. */
async function refusal(page: Page, source: unknown, options: object = {}): Promise<string> {
  const sentence = await callIn<Loaded | string>(page, "load", source, options);
  assert.equal(typeof sentence, "string");
  return sentence as string;
}

const { F16 } = readJson<DemoGolden>("demo/golden.json");

/** PyTorch's first ids, which Deno gives as well. */
const IDS = F16.greedy_kv_on.slice(0, 12);

inPage(
  "the demo from another origin gives Deno's ids, then comes from the cache",
  async (page, site) => {
    const server = serveModel(DEMO);
    const { url } = server;
    await page.goto(site.isolated);
    const first = await load(page, url, { device: "wasm", threads: 2 });
    assert.deepEqual(first.ids, IDS);
    assert.equal(first.threads, 2);
    assert.equal(first.encoded.length, 6);
    assert.equal(first.progress["download model.safetensors"], 9780064);
    const requests = server.requests.length;
    const second = await load(page, url, { device: "webgpu" });
    assert.deepEqual(second.ids, IDS);
    assert.equal(second.backend, "webgpu");
    assert.deepEqual(server.requests.slice(requests).filter((line) => line.startsWith("GET")), []);
    await server[Symbol.asyncDispose]();
    const third = await load(page, url, { device: "wasm" });
    assert.deepEqual(third.ids, IDS);
    assert.match(third.notes.join(" "), /Loaded from the cache: cannot reach/);
  },
);

inPage(
  "without isolation it runs on one thread and says so; a worker of the page loads too",
  async (page, isolated) => {
    await using site = serveProject(await bundle, false);
    await using server = serveModel(DEMO);
    await page.goto(site.plain);
    const plain = await load(page, server.url, { device: "wasm" });
    assert.deepEqual([plain.ids, plain.threads], [IDS, 1]);
    assert.match(plain.notes.join(" "), /one thread: .*Cross-Origin-Opener-Policy/);
    await using closed = serveModel(DEMO);
    closed.behaviour.cors = false;
    assert.match(await refusal(page, closed.url), /does not allow this page to read it \(CORS\)/);
    server.behaviour.cors = true;
    await page.goto(isolated.isolated);
    const started = page.waitForEvent("worker");
    await page.evaluate(() =>
      void new Worker("/tests/soak/browser/page_calls.ts", { type: "module" })
    );
    const worker = await started;
    const inWorker = await worker.evaluate(
      async (url) => await (await import("/tests/soak/browser/page_calls.ts")).load(url),
      server.url,
    );
    assert.ok(typeof inWorker !== "string", inWorker);
    assert.deepEqual(inWorker.ids, IDS);
  },
);

inPage("a torn download resumes where it broke, and a full quota is told", async (page, site) => {
  await using server = serveModel(DEMO);
  await page.goto(site.isolated);
  server.behaviour.breakAfter = 1 << 20;
  server.behaviour.answers.set("config.json", () => new Response("{}", { status: 500 }));
  assert.match(await refusal(page, server.url, JS), /answered 500, 5 times; try again later/);
  server.behaviour.answers.clear();
  const torn = await load(page, server.url, JS);
  assert.equal(torn.ids.length, 12);
  const ranges = server.requests.filter((line) => line.startsWith("GET model.safetensors"))
    .map((line) => Number(/=(\d+)-/.exec(line)![1]));
  assert.ok(ranges.length >= 9, `${ranges}`);
  assert.deepEqual(ranges, ranges.toSorted((a, b) => a - b)); // no byte is fetched twice
  assert.equal(new Set(ranges).size, ranges.length);

  server.behaviour.breakAfter = Infinity;
  await using other = serveModel(DEMO);
  const session = await page.context().newCDPSession(page);
  const [origin] = /^http:\/\/[^/]+/.exec(page.url())!;
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 18_000_000 });
  assert.match(
    await refusal(page, other.url, JS),
    /expected room for 9\.3 MiB in the page's storage, got .*; remove a model from the cache/,
  );
  assert.deepEqual(await callIn<string[]>(page, "cachedSources"), [server.url]);
  assert.equal((await load(page, other.url, { ...JS, cache: false })).ids.length, 12);
  assert.ok(other.requests.some((line) => /^GET model.safetensors bytes=\d+-\d+$/.test(line)));
});

const JS = { device: "js" };

inPage("each refusal is one sentence, and leaves nothing in the cache", async (page, site) => {
  await using server = serveModel(DEMO);
  const { answers } = server.behaviour;
  server.behaviour.cors = false;
  await page.goto(site.isolated); // it cannot tell a refusal from no connection
  assert.match(await refusal(page, server.url, JS), /cannot reach .* allows this page \(CORS\)$/);
  server.behaviour.cors = true;
  for (
    const [source, expected] of [
      [`${server.url}nothing/`, /expected a model\.safetensors in it/],
      [`${server.url}none.gguf`, /there is no such file/],
      ["http://127.0.0.1:9/model/", /cannot reach http:\/\/127\.0\.0\.1:9/],
      ["ftp://host/model", /expected an http or https URL/],
      [[], /expected some, got none/],
    ] as const
  ) assert.match(await refusal(page, source, JS), expected);
  const html = () => new Response("<!DOCTYPE html>", { headers: { "Content-Type": "text/html" } });
  answers.set("model.safetensors", html);
  assert.match(await refusal(page, server.url, JS), /expected a model\.safetensors in it/);
  answers.set("model.safetensors", () => new Response("not a model".repeat(9)));
  assert.match(await refusal(page, server.url, JS), /Cannot (open|read) "http/);
  answers.set("config.json", () => Response.json({ model_type: "unheard-of" }));
  assert.match(await refusal(page, server.url, JS), /unheard-of/);
  assert.match(await refusal(page, { config: {} }, JS), /^\w*Error: Cannot /);
  answers.clear();
  assert.deepEqual(await callIn<string[]>(page, "cachedSources"), []);
  assert.equal((await load(page, server.url, JS)).ids.length, 12);
});

/** A tokenizer whose pattern takes 2ⁿ steps on a text of n letters. */
const SLOW_TOKENIZER = {
  model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [] },
  pre_tokenizer: {
    type: "Split",
    pattern: { Regex: "(a+)+c" },
    behavior: "Isolated",
    invert: false,
  },
  added_tokens: [],
};

inPage(
  "a hanging pattern ends its worker; WebGPU that is blocked is one sentence",
  async (page, site) => {
    await using server = serveModel(DEMO);
    await page.goto(site.isolated);
    assert.match(
      await refusal(page, server.url, { device: "webgpu" }),
      /^DeviceError: Cannot open "webgpu": expected/,
    );
    server.behaviour.answers.set("tokenizer.json", () => Response.json(SLOW_TOKENIZER));
    const sentence = await callIn<string>(page, "load", server.url, JS, "a".repeat(60));
    assert.match(sentence, /^CheckpointError: .* does not come to an end within \d seconds/);
    server.behaviour.answers.clear();
  },
  ["--disable-gpu", "--disable-features=WebGPU,Vulkan"],
);

inPage(
  "a repository of the hub is checked by its hashes, and then comes from the cache",
  async (page, site) => {
    const hub = new HubServer({ "owner/demo": { files: DEMO.pathname } });
    let damage = 1;
    hub.body = (bytes) => {
      const body = Uint8Array.from(bytes);
      body[body.length - 1] ^= damage;
      return body;
    };
    await routeHub(page, hub);
    await page.goto(site.isolated);
    assert.match(
      await refusal(page, "hf:owner/demo", JS),
      /arrived damaged twice: expected git sha1/,
    );
    damage = 0;
    const first = await load(page, "hf:owner/demo", JS);
    assert.deepEqual(first.ids, IDS);
    await hub[Symbol.asyncDispose]();
    const second = await load(page, "hf:owner/demo", JS);
    assert.deepEqual(second.ids, first.ids);
    assert.match(second.notes.join(" "), /Loaded from the cache: cannot reach/);
    assert.deepEqual(await callIn<string[]>(page, "cachedSources"), ["hf:owner/demo"]);
  },
);

inPage("a lost device fails one call, and the next loads the model again", async (page, site) => {
  await page.goto(site.isolated);
  await callIn(page, "keep", TINY);
  const before = await callIn<number[]>(page, "keptLogits");
  assert.equal(before.length, 150);
  const session = await page.context().browser()!.newBrowserCDPSession();
  await session.send("Browser.crashGpuProcess");
  assert.match(await callIn<string>(page, "keptLogits"), /^DeviceError: .*lost/);
  assert.deepEqual(await callIn(page, "keptLogits"), before);
});

/** The bundle, whose worker of the model begins with another statement. */
async function bundleWith(statement: string): Promise<Map<string, string>> {
  const texts = new Map(await (bundle ??= bundleLibrary()));
  return texts.set("engine.js", `${statement}\n${texts.get("engine.js")}`);
}

inPage("without WebAssembly's SIMD it runs as JavaScript and says so", async (page) => {
  await using server = serveModel(DEMO);
  for (
    const [statement, lack] of [
      ["WebAssembly.validate = () => false;", /JavaScript: no WebAssembly with 128-bit SIMD/],
      ["delete globalThis.WebAssembly;", /runs as JavaScript: no WebAssembly/],
    ] as const
  ) {
    await using site = serveProject(await bundleWith(statement));
    await page.goto(site.isolated);
    const loaded = await load(page, server.url);
    assert.deepEqual([loaded.ids, loaded.backend], [IDS, "js"]);
    assert.match(loaded.notes.join(" "), lack);
    const wasm = await refusal(page, server.url, { device: "wasm" });
    assert.match(wasm, /^DeviceError: Cannot open "wasm": expected WebAssembly.*--device js/);
  }
});

/** Configuration of a tiny model. */
const TINY = {
  model_type: "gpt2",
  vocab_size: 50,
  n_embd: 16,
  n_head: 2,
  n_layer: 1,
  n_positions: 16,
};

inPage("a policy that forbids WebAssembly makes it run as JavaScript", async (page, site) => {
  await page.context().route("**/bundle/engine.js", async (route) => {
    const response = await route.fetch();
    const policy = "script-src 'self'; connect-src *";
    const headers = { ...response.headers(), "content-security-policy": policy };
    await route.fulfill({ response, headers });
  });
  await page.goto(site.isolated);
  const loaded = await callIn<Loaded | string>(page, "load", { config: TINY }, {}, [1, 2, 3]);
  assert.ok(typeof loaded !== "string", loaded as string);
  assert.equal(loaded.backend, "js");
  assert.match(loaded.notes.join(" "), /no permission to compile WebAssembly/);
  const wasm = await refusal(page, { config: TINY }, { device: "wasm" });
  assert.match(wasm, /^DeviceError: Cannot open "wasm": expected permission to compile/);
});

inPage("a torn description in the cache counts as none", async (page, site) => {
  await using server = serveModel(DEMO);
  await page.goto(site.isolated);
  await load(page, server.url, JS);
  assert.equal(await callIn(page, "tearDescriptions"), 1);
  assert.equal((await callIn<string[]>(page, "cachedSources")).length, 1);
  assert.deepEqual((await load(page, server.url, JS)).ids, IDS);
  assert.deepEqual(await callIn<string[]>(page, "cachedSources"), [server.url]);
  const requests = server.requests.length;
  await load(page, server.url, JS);
  const gets = server.requests.slice(requests).filter((line) => line.startsWith("GET"));
  assert.deepEqual(gets, []);
});

/** The demo's files, at a server. */
const filesOf = (url: string, folder = "") =>
  Object.fromEntries(
    ["config.json", "tokenizer.json", "model.safetensors"].map((
      name,
    ) => [folder + name, url + name]),
  );

inPage("a chosen folder loads, on the page's thread and in a worker", async (page, site) => {
  await using server = serveModel(DEMO);
  await page.goto(site.isolated);
  const folder = (files: object, ...below: string[]) =>
    callIn<Loaded | string>(page, "loadFolder", files, JS, below);
  assert.match(String(await folder({})), /^CheckpointError: Cannot .*chosen/);
  const { "config.json": config, ...rest } = filesOf(server.url);
  assert.match(String(await folder(rest)), /^CheckpointError: Cannot .*config\.json/);
  const whole = await folder({ "config.json": config });
  assert.ok(typeof whole !== "string", whole as string);
  assert.deepEqual([whole.ids, whole.encoded.length], [IDS, 6]);
  const nested = await folder(filesOf(server.url, "a/b/"), "a", "b");
  assert.deepEqual(nested && (nested as Loaded).ids, IDS, String(nested));
  assert.match(String(await folder({}, "a")), /^CheckpointError: Cannot .*safetensors/);
  const started = page.waitForEvent("worker");
  await page.evaluate(() =>
    void new Worker("/tests/soak/browser/page_calls.ts", { type: "module" })
  );
  const inWorker = await (await started).evaluate(
    async (files) => await (await import("/tests/soak/browser/page_calls.ts")).loadFolder(files),
    filesOf(server.url),
  );
  assert.ok(typeof inWorker !== "string", inWorker);
  assert.deepEqual(inWorker.ids, IDS);
});

inPage("a model is compared with another one in a second worker", async (page, site) => {
  await using server = serveModel(DEMO);
  await page.goto(site.isolated);
  const text = "ROMEO:\nWhat light through yonder window breaks?";
  const got = await callIn<{ alone: Perplexity; both: Perplexity }>(
    page,
    "compare",
    server.url,
    text,
  );
  await using model = await loadModel(DEMO.pathname, { device: "wasm", dtype: "Q8_0" });
  await using reference = await loadModel(DEMO.pathname, { device: "js" });
  const expected = await perplexity(model, text, { context: 12, stride: 5, reference });
  assert.ok(typeof got !== "string", String(got));
  const { kl, sameTop, ...alone } = got.both;
  assert.deepEqual(got.alone, alone);
  assert.deepEqual([got.both.tokens, sameTop], [expected.tokens, expected.sameTop]);
  assertClose([got.both.nll, kl!], [expected.nll, expected.kl!], TOLERANCE.logits);
});

inPage("a tab that is frozen while it generates goes on afterwards", async (page, site) => {
  await using server = serveModel(DEMO);
  await page.goto(site.isolated);
  const count = 90;
  await callIn(page, "startDrawing", server.url, count);
  const some = () => callIn<number[]>(page, "drawnIds");
  await until("the first ids", async () => (await some()).length > 3);
  const session = await page.context().newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state: "frozen" });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await session.send("Page.setWebLifecycleState", { state: "active" });
  await until("the other ids", async () => (await some()).length === count);
  const ids = F16.greedy_kv_on.slice(0, count);
  assert.deepEqual((await some()).slice(0, ids.length), ids);
});

/** Greedy ids of a fixture on Deno. */
async function idsOnDeno(path: string): Promise<number[]> {
  await using model = await loadModel(fixture(path), JS as LoadOptions);
  const options = { temperature: 0, maxNewTokens: 12 };
  const tokens = await Array.fromAsync(model.generate([1, 2, 3], options));
  return tokens.flatMap(({ id }) => id ?? []);
}

inPage(
  "chosen files load: a folder, a GGUF or a .pt alone; others are refused",
  async (page, site) => {
    await using server = serveModel(DEMO);
    await page.goto(site.isolated);
    const choose = (files: object, prompt?: unknown) =>
      callIn<Loaded | string>(page, "loadFiles", files, JS, prompt);
    const demo = filesOf(server.url);
    assert.deepEqual((await choose(filesOf(server.url, "demo/")) as Loaded).ids, IDS);
    assert.deepEqual((await choose(filesOf(server.url, "demo/below/")) as Loaded).ids, IDS);
    const [gguf, pt] = ["gguf/llama-q8_0.gguf", "nanogpt/with-bias.pt"];
    for (const path of [gguf, pt]) {
      const got = await choose({ [path.replace(/.*\//, "")]: `/tests/fixtures/${path}` }, [
        1,
        2,
        3,
      ]);
      assert.deepEqual((got as Loaded).ids, await idsOnDeno(path), String(got));
    }
    const both = {
      "a.gguf": `/tests/fixtures/${gguf}`,
      "b.gguf": `/tests/fixtures/gguf/gpt2-q8_0.gguf`,
    };
    const text = { "notes.txt": "/tests/fixtures/gguf/README.md" };
    const { "model.safetensors": weights, ...others } = demo;
    for (
      const [files, sentence] of [
        [
          both,
          /^CheckpointError: Cannot open "files:.2 files.": expected one model in it, got a\.gguf/,
        ],
        [text, /^CheckpointError: Cannot open "files:.notes\.txt/],
        [{ "x.gguf": text["notes.txt"] }, /^CheckpointError: Cannot open "files:.*x\.gguf".*GGUF/],
        [{ "x.pt": text["notes.txt"] }, /^CheckpointError: Cannot (open|read) "files:.*x\.pt"/],
        [others, /^CheckpointError: Cannot open "files:.2 files.": expected a model\.safetensors/],
        [{ "model.safetensors": weights }, /^CheckpointError: Cannot open ".*config\.json/],
      ] as const
    ) assert.match(String(await choose(files)), sentence);
  },
);

inPage("a model beyond the adapter is one sentence, and a smaller one loads", async (page) => {
  await using server = serveModel(DEMO);
  const small = `Object.defineProperty(GPUDevice.prototype, "limits", { value:
    { maxStorageBufferBindingSize: 2 ** 17, maxBufferSize: 2 ** 17 } });`;
  await using site = serveProject(await bundleWith(small));
  await page.goto(site.isolated);
  assert.match(
    await refusal(page, server.url, { device: "webgpu" }),
    /^DeviceError: Cannot load .* on webgpu: expected no tensor of more than 131072 bytes/,
  );
  assert.deepEqual((await load(page, server.url, { device: "wasm" })).ids, IDS);
});

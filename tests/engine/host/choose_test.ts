/** The library without a host: a process without the globals `Deno` and `process`. */
import assert from "node:assert/strict";
import { findHost } from "../../../engine/host/choose.ts";
import { runDeno } from "../../process.ts";

const MOD = new URL("../../../mod.ts", import.meta.url).href;
const CONFIG = new URL("../../../deno.json", import.meta.url).pathname;

/** Lines printed by a script without a host; the library is in `wgslm`. */
async function withoutRuntime(script: string): Promise<string[]> {
  const code = `
    const { log } = console;
    for (const name of ["Deno", "process"]) {
      if (!Reflect.deleteProperty(globalThis, name) || name in globalThis) throw new Error(name);
    }
    const wgslm = await import(${JSON.stringify(MOD)});
    ${script}`;
  const { code: status, stdout, stderr } = await runDeno(["eval", "--config", CONFIG, code]);
  assert.equal(status, 0, stderr);
  return stdout.trimEnd().split("\n");
}

Deno.test("findHost() returns one host on Deno, with machine facts", async () => {
  const host = await findHost();
  assert.ok(host);
  assert.equal(await findHost(), host);
  assert.ok(host.totalMemory() > 2 ** 20);
  const { versions, commit } = await host.platform();
  assert.equal(versions.deno, Deno.version.deno);
  assert.ok(commit === null || /^[0-9a-f]{40}$/.test(commit));
});

Deno.test("loadModel() and loadTokenizer() work without a host", async () => {
  const lines = await withoutRuntime(`
    const chars = await wgslm.loadTokenizer({ type: "char", vocab: ["a", "b"] });
    log(chars.encode("ba").join());
    const gpt2 = await wgslm.loadTokenizer({ type: "bpe", encoding_name: "gpt2" });
    log(gpt2.encode("Hello world").join());
    const config = {
      model_type: "gpt2", vocab_size: 50, n_embd: 8, n_head: 2, n_layer: 1, n_positions: 16,
    };
    for (const device of ["js", "wasm"]) {
      await using model = await wgslm.loadModel({ config }, { device, threads: 2 });
      log(model.backend.threads, (await model.logits([1, 2])).length);
    }`);
  assert.deepEqual(lines, ["1,0", "15496,995", "1 100", "2 100"]);
});

Deno.test("a page opens no path of a file, and benchmarks in its worker", async () => {
  const lines = await withoutRuntime(`
    const show = (work) => work.then(() => log("done"), ({ name, message }) => log(name, message));
    const config = {
      model_type: "gpt2", vocab_size: 50, n_embd: 8, n_head: 2, n_layer: 1, n_positions: 16,
    };
    await show(wgslm.openCheckpoint("model.pt"));
    await show(wgslm.loadTokenizer("folder"));
    await show(wgslm.loadConfig("bench.toml"));
    await using model = await wgslm.loadModel({ config }, { device: "js" });
    await show(wgslm.benchmark(model, { prompt: [1], genTokens: 1, warmupTokens: 1 }));`);
  const refusals = ["model.pt", "folder", "bench.toml"].map((path) =>
    `CheckpointError Cannot open "${path}": ` +
    "expected a URL, hf:owner/name, or files that were chosen"
  );
  assert.deepEqual(lines, [...refusals, "done"]);
});

import assert from "node:assert/strict";
import { CheckpointError } from "../../engine/errors.ts";
import { describeCheckpoint, loadModel, type LoadOptions } from "../../engine/load.ts";
import type { DeviceError } from "../../kernels/mod.ts";
import { fixture } from "../testing.ts";

const LEARNED = fixture("labcore/learned");

Deno.test("loadModel() tracks what describeCheckpoint() told before, class by class, and frees it all", async () => {
  for (const path of ["labcore/learned", "labcore/rope66", "tiny/gpt2-f16", "tiny/gpt2-hub"]) {
    const { memory: told, parameters } = await describeCheckpoint(fixture(path));
    const model = await loadModel(fixture(path), { device: "js" });
    assert.equal(model.parameters, parameters);
    for (const [kind, { current }] of Object.entries(model.memory.classes)) {
      assert.equal(current, told.classes[kind as keyof typeof told.classes], `${path} ${kind}`);
    }
    assert.equal(model.memory.current, told.total);
    await model.logits([1, 2, 3]);
    await model[Symbol.asyncDispose]();
    await model[Symbol.asyncDispose]();
    assert.equal(model.memory.current, 0);
    for (const { current } of Object.values(model.memory.classes)) assert.equal(current, 0);
  }
});

Deno.test("loadModel() keeps weights in another dtype when asked, with the logits of those values", async () => {
  await using whole = await loadModel(LEARNED, { device: "js" });
  for (const dtype of ["F16", "BF16"] as const) {
    await using half = await loadModel(LEARNED, { device: "js", dtype });
    assert.equal(half.dtype, dtype);
    assert.ok(half.weightsBytes < 0.6 * whole.weightsBytes);
    const [a, b] = [await half.logits([1, 2, 3]), await whole.logits([1, 2, 3])];
    const worst = a.reduce((n, v, i) => Math.max(n, Math.abs(v - b[i])), 0);
    assert.ok(worst > 0 && worst < 0.05, `${dtype} differs by ${worst}`);
  }
});

Deno.test("loadModel() makes the same random weights for a seed", async () => {
  const config = {
    family: "gpt2",
    vocab_size: 50,
    block_size: 16,
    n_layer: 2,
    n_head: 2,
    n_embd: 8,
  };
  const logits = async (seed: number) => {
    await using model = await loadModel({ config, seed }, { device: "js" });
    return await model.logits([1, 2, 3]);
  };
  assert.deepEqual(await logits(1), await logits(1));
  assert.notDeepEqual(await logits(1), await logits(2));
});

Deno.test("loadModel() tells progress up to the last byte, and gives up when aborted", async () => {
  const seen: number[] = [];
  let total = 0;
  await using model = await loadModel(LEARNED, {
    device: "js",
    onProgress: (p) => {
      seen.push(p.loaded);
      total = p.total ?? 0;
    },
  });
  assert.equal(seen.at(-1), total);
  assert.equal(model.weightsBytes, total);
  await assert.rejects(loadModel(LEARNED, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

Deno.test("loadModel() refuses options that cannot be met, in one sentence", async () => {
  const cases: [
    LoadOptions,
    typeof RangeError | typeof DeviceError | typeof CheckpointError,
    RegExp,
  ][] = [
    [{ dtype: "Q8" }, RangeError, /Q8/],
    [{ threads: 0 }, RangeError, /threads/],
    [{ contextLength: 33 }, RangeError, /1 to 32 tokens, got 33/],
    [{ contextLength: 0 }, RangeError, /context/],
    [{ tokenizer: "bpe" }, CheckpointError, /vocabulary of at most 65, got 50257/],
    [{ tokenizer: "hf" }, CheckpointError, /hf/],
    [{ meta: "/nonexistent/meta.json" }, CheckpointError, /meta\.json/],
  ];
  for (const [options, type, message] of cases) {
    await assert.rejects(loadModel(LEARNED, options), (error: Error) => {
      assert.ok(error instanceof type, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  }
});

Deno.test("loadModel() refuses a model beyond the machine's memory before anything is allocated", async () => {
  const config = {
    family: "labcore",
    vocab_size: 65,
    block_size: 2 ** 30,
    n_layer: 2,
    n_head: 2,
    n_embd: 64,
    use_rope: true,
  };
  await assert.rejects(loadModel({ config }), { name: "DeviceError", message: /GiB.*context/ });
  await using model = await loadModel({ config }, { contextLength: 64 });
  assert.equal(model.contextLength, 64);
});

Deno.test("loadModel() refuses what WebAssembly's memory cannot hold before a weight is made", async () => {
  const config = {
    family: "gpt2",
    vocab_size: 50257,
    n_layer: 40,
    n_head: 25,
    n_embd: 1600,
  };
  const start = performance.now();
  await assert.rejects(
    loadModel({ config }, { device: "wasm" }),
    { name: "DeviceError", message: /at most 4\.0 GiB .*got \d+\.\d GiB; a 16-bit dtype/ },
  );
  assert.ok(performance.now() - start < 5000);
});

Deno.test("loadModel() refuses a shape of endless layers before it lists them", async () => {
  const config = { family: "gpt2", vocab_size: 50, n_layer: 2 ** 31 - 1, n_head: 2, n_embd: 8 };
  const refusal = { name: "RangeError", message: /at most 10000 layers, got 2147483647/ };
  await assert.rejects(loadModel({ config }), refusal);
});

Deno.test("loadModel() names what it does not read", async () => {
  for (const source of ["hf:owner/name", "/nonexistent", fixture("labcore/learned/golden.json")]) {
    await assert.rejects(loadModel(source), { name: "CheckpointError", message: /^Cannot open/ });
  }
});

Deno.test("logits() and generate() name the layer in which numbers stop being finite", async () => {
  const broken: [string, RegExp][] = [
    ["h.1.mlp.c_proj.weight", /first after layer h\.1 of 2/],
    ["h.0.ln_1.weight", /first after layer h\.0 of 2/],
    ["wpe.weight", /first after the embedding/],
    ["ln_f.bias", /final norm or the head/],
  ];
  const bytes = await Deno.readFile(`${LEARNED}/model.safetensors`);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const folder = await Deno.makeTempDir();
  try {
    for (const name of ["config.json", "tokenizer.json"]) {
      await Deno.copyFile(`${LEARNED}/${name}`, `${folder}/${name}`);
    }
    for (const [name, message] of broken) {
      const copy = bytes.slice();
      const at = 8 + length + header[name].data_offsets[0];
      new DataView(copy.buffer).setFloat32(at, NaN, true);
      await Deno.writeFile(`${folder}/model.safetensors`, copy);
      await using model = await loadModel(folder, { device: "js" });
      await assert.rejects(model.logits([0, 1, 2]), { name: "CheckpointError", message });
      await assert.rejects(
        Array.fromAsync(model.generate([0, 1, 2], { maxNewTokens: 2 })),
        { name: "CheckpointError", message },
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("logits() refuses more ids than the context holds", async () => {
  await using model = await loadModel(LEARNED, { device: "js" });
  await assert.rejects(model.logits(Array<number>(33).fill(1)), /at most 32 ids/);
  await assert.rejects(model.logits([]), /empty/);
});

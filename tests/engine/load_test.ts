import assert from "node:assert/strict";
import { type Architecture, readArchitecture } from "../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { CheckpointError } from "../../engine/errors.ts";
import { describeCheckpoint, loadModel, type LoadOptions } from "../../engine/load.ts";
import { checkpointWeights, uploadWeights } from "../../engine/weights/mod.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import type { DeviceError } from "../../kernels/mod.ts";
import { within } from "../patience.ts";
import { fixture, readJson } from "../testing.ts";

const LEARNED = fixture("labcore/learned");
const LLAMA = fixture("tiny/llama");

Deno.test("loadModel() tracks the bytes that describeCheckpoint() estimated", async () => {
  for (const path of ["labcore/learned", "labcore/rope66", "tiny/gpt2-f16", "tiny/gpt2-hub"]) {
    const { memory: estimate, parameters } = await describeCheckpoint(fixture(path));
    const model = await loadModel(fixture(path), { device: "js" });
    assert.equal(model.parameters, parameters);
    for (const [kind, { current }] of Object.entries(model.memory.classes)) {
      assert.equal(
        current,
        estimate.classes[kind as keyof typeof estimate.classes],
        `${path} ${kind}`,
      );
    }
    assert.equal(model.memory.current, estimate.total);
    await model.logits([1, 2, 3]);
    await model[Symbol.asyncDispose]();
    await model[Symbol.asyncDispose]();
    assert.equal(model.memory.current, 0);
    for (const { current } of Object.values(model.memory.classes)) assert.equal(current, 0);
  }
});

Deno.test("loadModel() narrows weights to the dtype asked for", async () => {
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

Deno.test("loadModel() makes equal random weights for equal seeds", async () => {
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

Deno.test("loadModel() reports progress up to the last byte, and stops when aborted", async () => {
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
    [{ dtype: "Q9" as "Q8" }, RangeError, /Q9/],
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

Deno.test("loadModel() refuses a model beyond the machine's memory at once", async () => {
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

Deno.test("loadModel() refuses a model beyond WebAssembly's memory at once", async () => {
  const config = {
    family: "gpt2",
    vocab_size: 50257,
    n_layer: 160,
    n_head: 25,
    n_embd: 1600,
  };
  // Weights of 20 GiB would take minutes.
  const message = /at most \d+\.\d GiB .*got \d+\.\d GiB; use a 16-bit dtype/;
  const refused = () =>
    assert.rejects(loadModel({ config }, { device: "wasm" }), { name: "DeviceError", message });
  await within("a refusal at once", refused);
});

Deno.test("loadModel() refuses a shape of too many layers before it lists them", async () => {
  const config = { family: "gpt2", vocab_size: 50, n_layer: 2 ** 31 - 1, n_head: 2, n_embd: 8 };
  const refusal = { name: "RangeError", message: /at most 10000 layers, got 2147483647/ };
  await assert.rejects(loadModel({ config }), refusal);
});

Deno.test("loadModel() names the source that it cannot open", async () => {
  for (const source of ["hf:owner/name", "/nonexistent", fixture("labcore/learned/golden.json")]) {
    await assert.rejects(loadModel(source, { offline: true }), {
      name: "CheckpointError",
      message: /^Cannot open/,
    });
  }
});

Deno.test("loadModel() and describeCheckpoint() refuse unknown options", async () => {
  const options = { device: "js", quantize: "Q4" } as LoadOptions;
  const refusal = {
    name: "TypeError",
    message: /^Cannot load: expected options of device dtype .* signal, got "quantize"$/,
  };
  await assert.rejects(loadModel(LLAMA, options), refusal);
  await assert.rejects(describeCheckpoint(LLAMA, options), refusal);
  // Before a file is looked for, and whatever the value.
  const unset = { quantize: undefined } as LoadOptions;
  await assert.rejects(loadModel("/nonexistent", unset), refusal);
  await assert.rejects(loadModel({ config: {} }, unset), refusal);
});

Deno.test("loadModel() accepts every option", async () => {
  const options: Required<Omit<LoadOptions, "meta">> = {
    config: {},
    adapters: [],
    device: "js",
    dtype: "F32",
    activations: "exact",
    kvDtype: "F16",
    threads: 1,
    contextLength: 16,
    tune: false,
    tokenizer: "char",
    revision: "main",
    token: "",
    cacheDir: "/nonexistent",
    cache: false,
    offline: true,
    onProgress: () => {},
    signal: new AbortController().signal,
  };
  await using model = await loadModel(fixture("labcore/learned"), options);
  assert.deepEqual([model.backend.name, model.dtype, model.contextLength], ["js", "F32", 16]);
});

Deno.test("loadModel() reports progress to the last byte of rotary tables", async () => {
  for (const name of ["tiny/llama", "tiny/gemma3", "tiny/llama-bf16"]) {
    const seen: number[] = [];
    const totals = new Set<number | undefined>();
    await using _model = await loadModel(fixture(name), {
      device: "js",
      onProgress: ({ loaded, total }) => {
        seen.push(loaded);
        totals.add(total);
      },
    });
    assert.deepEqual([...totals], [seen.at(-1)], name);
    assert.ok(seen.every((loaded, i) => i === 0 || loaded > seen[i - 1]), name);
  }
});

Deno.test("describeCheckpoint() sizes the run of its options", async () => {
  const whole = await describeCheckpoint(LLAMA);
  const half = await describeCheckpoint(LLAMA, { contextLength: 16, dtype: "F16" });
  assert.equal(half.contextLength, 16);
  assert.equal(half.parameters, whole.parameters);
  const changed = whole.memory.with({ contextLength: 16, dtype: "F16" });
  assert.deepEqual(
    [changed.classes, changed.total, changed.largest, changed.chunk],
    [half.memory.classes, half.memory.total, half.memory.largest, half.memory.chunk],
  );
  assert.ok(half.memory.total < whole.memory.total);
});

Deno.test("uploadWeights() gives the same layers from a cloned architecture record", async () => {
  const name = "tiny/gemma3";
  const a = readArchitecture(readJson(`${name}/config.json`), name);
  const layersOf = async (record: Architecture) => {
    await using backend = openJsBackend();
    using checkpoint = await openCheckpoint(fixture(name));
    const source = await checkpointWeights(checkpoint, record, "auto");
    const { h, embedScale } = await uploadWeights(backend, record, source, 9, () => {});
    const layers = await Promise.all(h.map(async ({ attn: { rope, scale, window } }) => ({
      table: rope && await backend.read(rope.table),
      scale,
      window,
    })));
    return { layers, embedScale, bytes: backend.memory.current };
  };
  const read = await layersOf(a);
  const windows = new Set(read.layers.map(({ window }) => window));
  assert.ok(windows.size > 1, "global and sliding layers");
  assert.notDeepEqual(read.layers[0].table, read.layers.at(-1)?.table, "two rotary tables");
  assert.deepEqual(await layersOf(structuredClone(a)), read);
  assert.deepEqual(await layersOf(JSON.parse(JSON.stringify(a))), read);
});

Deno.test("loadModel() and describeCheckpoint() refuse wrong adapters", async () => {
  const cases: [adapters: unknown, message: RegExp][] = [
    ["x", /^Cannot load: expected adapters to be a list of \{ path, scale \}, got "x"$/],
    [{ path: "x" }, /expected adapters to be a list .*, got an object$/],
    [null, /expected adapters to be a list .*, got null$/],
    [["x"], /expected each adapter to be an object \{ path, scale \}, got "x"$/],
    [[null], /expected each adapter .*, got null$/],
    [new Array(1), /expected each adapter .*, got undefined$/],
    [[{}], /expected an adapter's path to be a text, got undefined$/],
    [[{ path: 7 }], /expected an adapter's path to be a text, got 7$/],
    [[{ path: "x", scale: "2" }], /expected an adapter's scale to be a number, got "2"$/],
    [[{ path: "x", weight: 2 }], /to have path and scale alone, got "weight"$/],
  ];
  for (const [adapters, message] of cases) {
    const options = { adapters } as LoadOptions;
    await assert.rejects(loadModel(LLAMA, options), { name: "TypeError", message });
    await assert.rejects(describeCheckpoint(LLAMA, options), { name: "TypeError", message });
  }
  const missing = { adapters: [{ path: "/nonexistent" }] };
  const refusal = { name: "CheckpointError", message: /nonexistent.*adapter_config\.json/ };
  await assert.rejects(describeCheckpoint(LLAMA, missing), refusal);
});

Deno.test("describeCheckpoint() takes adapters, as loadModel() does", async () => {
  const folder = fixture("lora/llama-patterns");
  const [given, own] = [
    await describeCheckpoint(LLAMA, { adapters: [{ path: folder, scale: 0.5 }] }),
    await describeCheckpoint(folder),
  ];
  assert.deepEqual(given.tensors, own.tensors);
  assert.equal(given.memory.total, own.memory.total);
  assert.equal(given.parameters, (await describeCheckpoint(LLAMA)).parameters);
});

Deno.test("loadModel() refuses sources and options of the wrong type in one sentence", async () => {
  const load = loadModel as (...args: unknown[]) => Promise<unknown>;
  const cases: [args: unknown[], name: string, message: RegExp][] = [
    [[], "TypeError", /source to be a text or an object \{ config, seed \}, got undefined$/],
    [[7], "TypeError", /expected a source .*, got 7$/],
    [[{}], "TypeError", /expected a source .*, got an object$/],
    [[{ config: {}, seed: "1" }], "TypeError", /expected seed to be a number, got "1"$/],
    [[LLAMA, null], "TypeError", /expected options to be an object, got null$/],
    [[LLAMA, { ["x".repeat(999)]: 1 }], "TypeError", /got "x{200}…"$/],
    [[LLAMA, { device: "gpu" }], "RangeError", /device to be one of auto cpu .*, got "gpu"$/],
    [[LLAMA, { device: 1 }], "RangeError", /device to be one of .*, got 1$/],
    [[LLAMA, { dtype: "int4" }], "RangeError", /dtype to be one of auto F32 .*, got "int4"$/],
    [[LLAMA, { tokenizer: "sp" }], "RangeError", /tokenizer to be one of char bpe hf, got "sp"$/],
    [[LLAMA, { threads: "2" }], "TypeError", /threads to be a positive integer, got "2"$/],
    [[LLAMA, { contextLength: "64" }], "TypeError", /contextLength to be .*, got "64"$/],
    [[LLAMA, { tune: 1 }], "TypeError", /tune to be true or false, got 1$/],
    [[LLAMA, { meta: {} }], "TypeError", /meta to be a text, got an object$/],
    [[LLAMA, { config: [] }], "TypeError", /config to be an object, got a list$/],
    [[LLAMA, { offline: "yes" }], "TypeError", /offline to be true or false, got "yes"$/],
    [[LLAMA, { onProgress: {} }], "TypeError", /onProgress to be a function, got an object$/],
    [[LLAMA, { signal: true }], "TypeError", /signal to be an AbortSignal, got true$/],
  ];
  for (const [args, name, message] of cases) {
    await assert.rejects(load(...args), { name, message });
  }
  const describe = describeCheckpoint as (...args: unknown[]) => Promise<unknown>;
  const refusal = { name: "TypeError", message: /expected a source to be a text, got an object$/ };
  await assert.rejects(describe({ config: {} }), refusal);
});

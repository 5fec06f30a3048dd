import assert from "node:assert/strict";
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { loadModel } from "../../../engine/load.ts";
import {
  checkpointWeights,
  randomWeights,
  specTree,
  uploadWeights,
  type Weights,
  weightSpecs,
} from "../../../engine/weights/mod.ts";
import type { Backend } from "../../../kernels/backend.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import type { Weight, WeightDtype } from "../../../kernels/formats/mod.ts";
import { bytesOf, sizeOf, type Tensor } from "../../../kernels/tensor.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { fixture, randomNumbers, readJson } from "../../testing.ts";

type Tensors = Record<string, WrittenTensor>;

/** Loads a fixture with changed tensors. */
async function loadChanged(name: string, change: (t: Tensors) => void, config = {}) {
  const folder = await Deno.makeTempDir();
  try {
    const tensors: Tensors = {};
    {
      using checkpoint = await openCheckpoint(fixture(name));
      for (const t of checkpoint.tensors()) {
        const data = await checkpoint.read(t.name);
        tensors[t.name] = { dtype: "F32", shape: t.shape, data };
      }
    }
    change(tensors);
    const old = JSON.parse(await Deno.readTextFile(fixture(`${name}/config.json`)));
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...old, ...config }));
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    return await loadModel(folder, { device: "js" });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const refuses = (name: string, change: (t: Tensors) => void, message: RegExp, config = {}) =>
  assert.rejects(loadChanged(name, change, config), { name: "CheckpointError", message });

const LEARNED = "labcore/learned";

Deno.test("loadModel() names missing, unexpected and misshapen tensors", async () => {
  await refuses(LEARNED, (t) => delete t["ln_f.bias"], /missing: ln_f\.bias$/);
  await refuses(
    LEARNED,
    (t) => delete t["lm_head.weight"],
    /missing: wte\.weight or lm_head\.weight/,
  );
  await refuses(LEARNED, (t) => t["h.9.extra"] = t["ln_f.bias"], /unexpected: h\.9\.extra$/);
  await refuses(
    LEARNED,
    (t) => t["h.0.mlp.c_fc.weight"] = { ...t["h.0.mlp.c_fc.weight"], shape: [32, 128] },
    /h\.0\.mlp\.c_fc\.weight is \[32,128\], expected \[128,32\]/,
  );
  await refuses(LEARNED, () => {}, /missing: h\.2\..* and 6 more/, { n_layer: 3 });
  await refuses(LEARNED, () => {}, /for each of 2147483647 layers, got \d+ tensors$/, {
    n_layer: 2 ** 31 - 1,
  });
  await refuses(LEARNED, () => {}, /wpe\.weight/, { use_rope: true });
  await refuses(LEARNED, () => {}, /wpe\.weight is \[32,32\]/, { block_size: 64 });
});

Deno.test("loadModel() stores tied tensors once and refuses ties that differ", async () => {
  await using once = await loadModel(fixture(LEARNED), { device: "js" });
  const copy = (t: Tensors) => t["wte.weight"] = t["lm_head.weight"];
  await using twice = await loadChanged(LEARNED, copy);
  assert.equal(twice.weightsBytes, once.weightsBytes);
  assert.equal(twice.parameters, once.parameters);
  await refuses(LEARNED, (t) => {
    const other = (t["lm_head.weight"].data as Float32Array).slice();
    other[7]++;
    t["wte.weight"] = { ...t["lm_head.weight"], data: other };
  }, /tied, but differ/);
});

Deno.test("loadModel() loads an untied GPT-2", async () => {
  const zeros = (t: Tensors) => {
    const { shape, dtype } = t["transformer.wte.weight"];
    t["lm_head.weight"] = { shape, dtype, data: new Float32Array(shape[0] * shape[1]) };
  };
  await using model = await loadChanged("tiny/gpt2", zeros, { tie_word_embeddings: false });
  assert.deepEqual(await model.logits([1]), new Float32Array(320));
  await refuses("tiny/gpt2", () => {}, /missing: lm_head/, { tie_word_embeddings: false });
});

Deno.test("loadModel() reads integer and F64 weights as F32", async () => {
  await using model = await loadChanged(LEARNED, (t) => {
    for (const [name, w] of Object.entries(t)) {
      t[name] = { ...w, dtype: "F64", data: Float64Array.from(w.data as Float32Array) };
    }
  });
  await using plain = await loadModel(fixture(LEARNED), { device: "js" });
  assert.deepEqual(await model.logits([1, 2, 3]), await plain.logits([1, 2, 3]));
});

Deno.test("loadModel() names the invalid key of a config", async () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ model_type: "mixtral" }, /model_type.*got "mixtral"/],
    [{ model_type: null }, /model_type/],
    [{ n_head: 0 }, /n_head.*got 0/],
    [{ n_head: 5 }, /n_embd.*multiple of n_head/],
    [{ n_layer: -1 }, /n_layer/],
    [{ vocab_size: 1e12 }, /vocab_size/],
    [{ n_embd: "32" }, /n_embd/],
    [{ bias: 1 }, /bias/],
    [{ activation: "swiglu" }, /activation/],
  ];
  for (const [config, message] of cases) await refuses(LEARNED, () => {}, message, config);
});

/** A model small enough to write it for each case. */
const TINY = readArchitecture(
  {
    ...{ model_type: "gpt2", vocab_size: 7, n_positions: 5, n_layer: 2, n_head: 2, n_embd: 4 },
    scale_attn_by_inverse_layer_idx: true,
  },
  "config.json",
);
const UNTIED: Architecture = { ...TINY, tied: false };

/** Random tensors with all names and shapes of a model's file. */
function tensorsOf(a: Architecture, prefix = ""): Tensors {
  const named = weightSpecs(specTree(a)).map(({ names: [name], shape, stored }, i) => {
    const data = randomNumbers(sizeOf(shape), i);
    const order = stored === "KN" ? shape.toReversed() : shape;
    // transformers does not prefix the head.
    const full = name === "lm_head.weight" ? name : prefix + name;
    return [full, { dtype: "F32", shape: order, data }] as const;
  });
  return Object.fromEntries(named);
}

/** Uploads tensors to a new backend through a file. */
async function put(
  a: Architecture,
  tensors: Tensors,
  dtype: WeightDtype | "auto" = "auto",
): Promise<{ backend: Backend; weights: Weights }> {
  const backend = openJsBackend();
  const weights: Weights[] = [];
  await inTempFolder(async (folder) => {
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    using checkpoint = await openCheckpoint(folder);
    const source = await checkpointWeights(checkpoint, a, dtype);
    weights.push(await uploadWeights(backend, a, source, 3, () => {}));
  });
  return { backend, weights: weights[0] };
}

const refusesTiny = (tensors: Tensors, faults: RegExp, a = TINY): Promise<void> =>
  assert.rejects(put(a, tensors), { name: "CheckpointError", message: faults });

/** The numbers [N, K] of a weight: its product with the identity, whose sums have one term. */
async function numbersOf(backend: Backend, weight: Weight): Promise<number[][]> {
  const [N, K] = weight.shape;
  const x = backend.tensor([K, K], "F32", "activations");
  const y = backend.tensor([K, N], "F32", "activations");
  backend.write(x, Float32Array.from({ length: K * K }, (_, i) => i % (K + 1) ? 0 : 1));
  using plan = await backend.record((k) => k.matmul(y, x, weight));
  plan.run({ rows: K, position: 0, slot: 0, length: K });
  const product = await backend.read(y);
  return Array.from(
    { length: N },
    (_, n) => Array.from({ length: K }, (_, k) => product[k * N + n]),
  );
}

/** All numbers of a model, by path. */
async function everyNumber(backend: Backend, weights: Weights): Promise<Map<string, unknown>> {
  const all = new Map<string, unknown>();
  const walk = async (value: unknown, path: string): Promise<void> => {
    if (typeof value !== "object" || value === null) all.set(path, value);
    else if (!("dtype" in value)) {
      for (const [key, inner] of Object.entries(value)) await walk(inner, `${path}.${key}`);
    } else {
      const { shape } = value as Tensor;
      const isTensor = shape.length === 1 || path.endsWith(".table");
      all.set(
        path,
        isTensor
          ? [...await backend.read(value as Tensor)]
          : await numbersOf(backend, value as Weight),
      );
    }
  };
  await walk(weights, "");
  return all;
}

/** Rows of a written tensor. */
function rowsOf({ shape: [rows, length], data }: WrittenTensor): number[][] {
  const values = [...data as Float32Array];
  return Array.from({ length: rows }, (_, r) => values.slice(r * length, (r + 1) * length));
}

/** Bytes of a model: `bytes` per number of linear layers and tables, vectors in F32. */
function expectedBytes(a: Architecture, bytes: number, positions: number): number {
  const table = a.rope ? 4 * positions * a.rope.rotaryDim : 0;
  return weightSpecs(specTree(a)).reduce(
    (sum, { shape }) => sum + sizeOf(shape) * (shape.length === 1 ? 4 : bytes),
    table,
  );
}

const FIXTURES = [
  ["labcore/learned", 4],
  ["labcore/rope66", 4],
  ["labcore/rope-bias", 4],
  ["tiny/gpt2", 4],
  ["tiny/gpt2-hub", 4],
  ["tiny/gpt2-f16", 2],
] as const;

for (const [name, bytes] of FIXTURES) {
  Deno.test(`uploadWeights() reports all bytes of ${name}`, async () => {
    const a = readArchitecture(readJson(`${name}/config.json`), "config.json");
    const backend = openJsBackend();
    let reported = 0;
    {
      using checkpoint = await openCheckpoint(fixture(name));
      const source = await checkpointWeights(checkpoint, a, "auto");
      const weights = await uploadWeights(backend, a, source, 16, (n) => void (reported += n));
      assert.equal(weights.h.length, a.nLayer);
      assert.equal(weights.lmHead, weights.wte);
      assert.equal(weights.wpe === undefined, a.rope !== null);
      for (const { attn: { rope } } of weights.h) {
        assert.deepEqual(rope?.table.shape, a.rope ? [16, a.headDim] : undefined);
      }
    }
    const expected = expectedBytes(a, bytes, 16);
    assert.equal(backend.memory.classes.weights.current, expected);
    assert.equal(backend.memory.current, expected);
    assert.equal(reported, expected - (a.rope ? 4 * 16 * a.headDim : 0));
    await backend[Symbol.asyncDispose]();
    assert.equal(backend.memory.current, 0);
  });
}

Deno.test("uploadWeights() puts each number in place, for Conv1D and Linear", async () => {
  const labcore = readArchitecture(
    { family: "labcore", vocab_size: 7, block_size: 5, n_layer: 2, n_head: 2, n_embd: 4 },
    "preset.toml",
  );
  for (const a of [TINY, labcore]) {
    const tensors = tensorsOf(a);
    const { backend, weights } = await put(a, tensors);
    await using _ = backend;
    const { wte, wpe, h: [, { ln1, attn, ln2, mlp }], lnF } = weights;
    const scales = a.layers.map(({ attentionScale }) => attentionScale);
    assert.deepEqual(weights.h.map(({ attn }) => attn.scale), scales);
    const pairs: [Weight, string][] = [
      [wte, "wte"],
      [wpe!, "wpe"],
      [attn.cAttn[0].weight, "h.1.attn.c_attn"],
      [attn.cProj.weight, "h.1.attn.c_proj"],
      [mlp.cFc.weight, "h.1.mlp.c_fc"],
      [mlp.cProj.weight, "h.1.mlp.c_proj"],
    ];
    for (const [weight, name] of pairs) {
      const rows = rowsOf(tensors[`${name}.weight`]);
      const isTransposed = a === TINY && name.startsWith("h.");
      const expected = isTransposed ? rows[0].map((_, n) => rows.map((row) => row[n])) : rows;
      assert.deepEqual(await numbersOf(backend, weight), expected, name);
    }
    const vectors: [Tensor | undefined, string][] = [
      [ln1?.weight, "h.1.ln_1.weight"],
      [ln1?.bias, "h.1.ln_1.bias"],
      [ln2?.weight, "h.1.ln_2.weight"],
      [ln2?.bias, "h.1.ln_2.bias"],
      [attn.cAttn[0].bias, "h.1.attn.c_attn.bias"],
      [attn.cProj.bias, "h.1.attn.c_proj.bias"],
      [mlp.cFc.bias, "h.1.mlp.c_fc.bias"],
      [mlp.cProj.bias, "h.1.mlp.c_proj.bias"],
      [lnF?.weight, "ln_f.weight"],
      [lnF?.bias, "ln_f.bias"],
    ];
    for (const [vector, name] of vectors) {
      assert.deepEqual(await backend.read(vector!), tensors[name].data, name);
    }
  }
});

Deno.test("checkpointWeights() ignores GPT-2's prefix and masks", async () => {
  const plain = await put(UNTIED, tensorsOf(UNTIED));
  await using _plain = plain.backend;
  const prefixed = tensorsOf(UNTIED, "transformer.");
  const mask = { dtype: "U8", shape: [1, 1, 5, 5], data: new Uint8Array(25) };
  const filler = { dtype: "F32", shape: [], data: new Float32Array(1) };
  for (const i of [0, 1]) {
    prefixed[`transformer.h.${i}.attn.bias`] = mask;
    prefixed[`transformer.h.${i}.attn.masked_bias`] = filler;
  }
  const other = await put(UNTIED, prefixed);
  await using _other = other.backend;
  assert.deepEqual(
    await everyNumber(other.backend, other.weights),
    await everyNumber(plain.backend, plain.weights),
  );
  // A name that only resembles a mask's is unexpected.
  for (const name of ["h.0.attn.biases", "h.x.attn.bias", "transformer.h.0.bias"]) {
    await refusesTiny({ ...tensorsOf(TINY), [name]: mask }, /unexpected: .*(bias|h\.)/);
  }
});

Deno.test("checkpointWeights() lists all faults by name", async () => {
  const tensors = tensorsOf(TINY);
  delete tensors["h.1.ln_2.bias"];
  delete tensors["wpe.weight"];
  tensors["h.2.ln_1.bias"] = tensors["ln_f.bias"];
  // The transpose has as many bytes: only its shape differs.
  tensors["h.0.mlp.c_fc.weight"] = { ...tensors["h.0.mlp.c_fc.weight"], shape: [16, 4] };
  tensors["ln_f.weight"] = { ...tensors["ln_f.weight"], shape: [1, 4] };
  await refusesTiny(
    tensors,
    /^Cannot load ".*model\.safetensors" as gpt2: missing: wpe\.weight, h\.1\.ln_2\.bias; unexpected: h\.2\.ln_1\.bias; misshapen: h\.0\.mlp\.c_fc\.weight is \[16,4\], expected \[4,16\], ln_f\.weight is \[1,4\], expected \[4\]$/,
  );
});

Deno.test("checkpointWeights() accepts either name of a tied tensor, or both", async () => {
  const tensors = tensorsOf(TINY);
  const { "wte.weight": wte, ...rest } = tensors;
  const expected = expectedBytes(TINY, 4, 0);
  for (const names of [["wte.weight"], ["lm_head.weight"], ["wte.weight", "lm_head.weight"]]) {
    const tied = Object.fromEntries(names.map((name) => [name, wte]));
    const { backend, weights } = await put(TINY, { ...rest, ...tied });
    await using _ = backend;
    assert.equal(weights.lmHead, weights.wte);
    assert.equal(backend.memory.current, expected);
    assert.deepEqual(await numbersOf(backend, weights.wte), rowsOf(wte));
  }
});

Deno.test("checkpointWeights() unties a head if a bit or a dtype differs", async () => {
  // More than a megabyte: the last bit is in another chunk than the first.
  const a: Architecture = { ...TINY, vocabSize: 70_000 };
  const tensors = tensorsOf(a);
  const wte = tensors["wte.weight"];
  const last = (wte.data as Float32Array).slice();
  new Uint32Array(last.buffer)[last.length - 1] ^= 1;
  const data = new Float16Array(last.length);
  for (const twin of [{ ...wte, data: last }, { dtype: "F16", shape: wte.shape, data }]) {
    const { lmHead, wte } = (await put(a, { ...tensors, "lm_head.weight": twin })).weights;
    assert.notEqual(lmHead, wte);
  }
  const short = { ...wte, shape: [4, 70_000] };
  await refusesTiny(
    { ...tensors, "lm_head.weight": short },
    /misshapen: lm_head\.weight is \[4,70000\], expected \[70000,4\]$/,
    a,
  );
});

Deno.test("checkpointWeights() keeps the head of an untied model", async () => {
  const tensors = tensorsOf(UNTIED, "transformer.");
  const { backend, weights } = await put(UNTIED, tensors);
  await using _ = backend;
  assert.notEqual(weights.lmHead, weights.wte);
  assert.deepEqual(await numbersOf(backend, weights.lmHead), rowsOf(tensors["lm_head.weight"]));
  assert.equal(backend.memory.classes.weights.current, expectedBytes(UNTIED, 4, 0));
});

Deno.test("checkpointWeights() converts weights to the given dtype", async () => {
  // Eighths below 2 are exact in every dtype: all must give the same numbers.
  const exact = tensorsOf(TINY);
  for (const t of Object.values(exact)) {
    (t.data as Float32Array).forEach((v, i, all) => all[i] = Math.round(8 * v) / 8);
  }
  const plain = await put(TINY, exact);
  await using _plain = plain.backend;
  const numbers = await everyNumber(plain.backend, plain.weights);
  const stored = (dtype: string, from: (v: Float32Array) => ArrayBufferView): Tensors =>
    Object.fromEntries(
      Object.entries(exact).map(([name, { shape, data }]) => [
        name,
        { dtype, shape, data: from(data as Float32Array) },
      ]),
    );
  const files: [Tensors, WeightDtype][] = [
    [exact, "F32"],
    [stored("F16", (v) => new Float16Array(v)), "F16"],
    [stored("F64", (v) => new Float64Array(v)), "F32"],
  ];
  for (const [tensors, auto] of files) {
    for (const dtype of ["auto", "F32", "F16", "BF16"] as const) {
      const { backend, weights } = await put(TINY, tensors, dtype);
      await using _ = backend;
      const kept = dtype === "auto" ? auto : dtype;
      assert.equal(weights.wte.dtype, kept);
      assert.equal(weights.lnF?.weight.dtype, "F32"); // norms need the precision
      assert.equal(backend.memory.current, expectedBytes(TINY, kept === "F32" ? 4 : 2, 0));
      assert.deepEqual(await everyNumber(backend, weights), numbers);
    }
  }
});

Deno.test("checkpointWeights() refuses more layers than tensors before listing them", async () => {
  const a: Architecture = { ...TINY, nLayer: 2 ** 31 - 1 };
  await refusesTiny(tensorsOf(TINY), /for each of 2147483647 layers, got 28 tensors$/, a);
});

Deno.test("uploadWeights() throws CheckpointError if the file shrinks meanwhile", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    await writeSafetensors(path, tensorsOf(TINY));
    using checkpoint = await openCheckpoint(folder);
    const source = await checkpointWeights(checkpoint, TINY, "auto");
    await Deno.truncate(path, (await Deno.stat(path)).size - 1);
    await using backend = openJsBackend();
    await assert.rejects(uploadWeights(backend, TINY, source, 0, () => {}), CheckpointError);
  });
});

Deno.test("uploadWeights() stops if onBytes throws; dispose then frees all memory", async () => {
  const backend = openJsBackend();
  const enough = new DOMException("enough", "AbortError");
  let runs = 0;
  await assert.rejects(
    uploadWeights(backend, TINY, randomWeights(TINY, 1, "F32"), 0, () => {
      if (++runs === 5) throw enough;
    }),
    enough,
  );
  assert.equal(runs, 5);
  assert.ok(backend.memory.current > 0);
  await backend[Symbol.asyncDispose]();
  assert.equal(backend.memory.current, 0);
});

/** Numbers of a random model. */
async function randomNumbersOf(seed: number, dtype: WeightDtype): Promise<Map<string, unknown>> {
  await using backend = openJsBackend();
  const weights = await uploadWeights(
    backend,
    UNTIED,
    randomWeights(UNTIED, seed, dtype),
    0,
    () => {},
  );
  assert.equal(backend.memory.current, expectedBytes(UNTIED, dtype === "F32" ? 4 : 2, 0));
  return await everyNumber(backend, weights);
}

Deno.test("randomWeights() returns the same numbers for the same seed only", async () => {
  const one = await randomNumbersOf(1, "F32");
  assert.deepEqual(await randomNumbersOf(1, "F32"), one);
  for (const seed of [0, 2, -1]) {
    assert.notDeepEqual((await randomNumbersOf(seed, "F32")).get(".wte"), one.get(".wte"));
  }
  assert.notDeepEqual(one.get(".wte"), one.get(".lmHead"));
  assert.deepEqual(one.get(".lnF.weight"), [1, 1, 1, 1]);
  assert.deepEqual(one.get(".lnF.bias"), [0, 0, 0, 0]);
  assert.deepEqual(one.get(".h.0.attn.cAttn.0.bias"), Array(12).fill(0));
  for (const dtype of ["F16", "BF16"] as const) {
    assert.notDeepEqual((await randomNumbersOf(1, dtype)).get(".wte"), one.get(".wte"));
  }
});

Deno.test("randomWeights() has GPT-2's deviation, in a bounded range", () => {
  const spec = { names: ["wte.weight"], shape: [1000, 100], stored: "NK" } as const;
  for (const seed of [0, 1, 2 ** 31, 2 ** 53 - 1, 0x811c9dc5]) {
    const values = new Float32Array(100_000);
    const fill = randomWeights(TINY, seed, "F32").fill(spec, "F32");
    // In two chunks, as a backend reads them: the second continues the first.
    fill(0, 500, bytesOf(values.subarray(0, 50_000)));
    fill(500, 500, bytesOf(values.subarray(50_000)));
    const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    const square = values.reduce((sum, v) => sum + v * v, 0) / values.length;
    // Within five standard errors; the fourth moment of a uniform distribution is 9/5
    // of its variance squared.
    const errors = 5 / Math.sqrt(values.length);
    assert.ok(Math.abs(mean) < 0.02 * errors, `mean ${mean}`);
    assert.ok(Math.abs(square / 0.02 ** 2 - 1) < Math.sqrt(4 / 5) * errors, `square ${square}`);
    assert.ok(values.every((v) => Math.abs(v) <= Math.fround(0.02 * Math.sqrt(3))));
    assert.notDeepEqual(values.subarray(0, 50_000), values.subarray(50_000));
  }
});

/**
 * What a program gets from the library, as plain data: the same on every runtime.
 *
 * @module
 */

/** Ids and texts of a generation. */
async function generated(model, prompt, options) {
  const [ids, texts] = [[], []];
  let reason;
  for await (const { id, text, finishReason } of model.generate(prompt, options)) {
    if (id !== undefined) ids.push(id);
    texts.push(text);
    reason = finishReason;
  }
  return { ids, texts, reason };
}

/** The error of an act. Each runtime words an abort in its own way. */
async function refusal(act) {
  try {
    await act();
    return "none";
  } catch ({ name, message }) {
    return name === "AbortError" ? name : `${name}: ${message}`;
  }
}

const GREEDY = { temperature: 0, maxNewTokens: 24 };

/** The demo on a device: its greedy ids, and a text that is drawn. */
async function demo({ loadModel }, { demo, fixtures }, options) {
  const model = await loadModel(demo, options);
  const { prompt } = fixtures.golden;
  const greedy = await generated(model, prompt, GREEDY);
  const drawn = await generated(model, "ROMEO:", { maxNewTokens: 40, seed: 1337 });
  const stopped = new AbortController();
  const aborted = [];
  for await (const token of model.generate(prompt, { ...GREEDY, signal: stopped.signal })) {
    aborted.push(token.finishReason ?? "on");
    if (aborted.length === 3) stopped.abort();
  }
  const { name, threads } = model.backend;
  await model[Symbol.asyncDispose]();
  return { name, threads, greedy, drawn, ended: aborted.at(-1), left: model.memory.current };
}

/** Greedy ids of a checkpoint. */
async function checkpoint({ loadModel }, source, prompt, options = {}) {
  const model = await loadModel(source, { device: "wasm", threads: 2, ...options });
  const { ids } = await generated(model, prompt, GREEDY);
  await model[Symbol.asyncDispose]();
  return ids;
}

/** y = x · Wᵀ by the compute layer alone. */
async function product({ bytesOf, openBackend }) {
  const backend = await openBackend("wasm", { threads: 2 });
  const W = new Float32Array([1, 2, 3, 4, 5, 6]);
  const weight = await backend.weight([2, 3], "F32", (row, count, into) => {
    into.set(bytesOf(W.subarray(3 * row, 3 * (row + count))));
  }, { stored: "NK" });
  const [x, y] = [3, 2].map((width) => backend.tensor([1, width], "F32", "activations"));
  const plan = await backend.record((k) => k.matmul(y, x, weight));
  backend.write(x, new Float32Array([1, 0, 1]));
  plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
  const numbers = [...await backend.read(y)];
  await backend[Symbol.asyncDispose]();
  return numbers;
}

/** Backend and notes on an engine without SIMD. */
async function withoutSimd({ loadModel }, folder) {
  const { validate } = WebAssembly;
  WebAssembly.validate = () => false;
  try {
    const model = await loadModel(folder, { device: "cpu" });
    const { backend, notes } = model;
    await model[Symbol.asyncDispose]();
    return [backend.name, ...notes];
  } finally {
    WebAssembly.validate = validate;
  }
}

const TEXT = "Hello, WORLD's 12345 naïve\n\n  tokens 你好 🙂";

/**
 * Everything.
 * @param library the exports of `wgslm`.
 * @param kernels the exports of `wgslm/kernels`.
 * @param paths the folder of the demo, the fixtures, and a few of their facts.
 */
export async function results(library, kernels, paths) {
  const { demo: folder, fixtures } = paths;
  const { loadModel, loadTokenizer, openCheckpoint } = library;
  const devices = [
    { device: "js" },
    { device: "wasm", threads: 1 },
    { device: "wasm", threads: 2 },
  ];
  const demos = [];
  for (const options of devices) demos.push(await demo(library, paths, options));
  const encoded = {};
  for (const name of fixtures.tokenizers) {
    const tokenizer = await loadTokenizer(`${fixtures.folder}/${name}`);
    const ids = tokenizer.encode(TEXT);
    encoded[name] = [ids, tokenizer.decode(ids)];
  }
  const gpt2 = await loadTokenizer({ type: "bpe", encoding_name: "gpt2" });
  const file = await openCheckpoint(`${folder}/model.safetensors`);
  const [first] = file.tensors();
  const tensor = [first, (await file.read(first.name)).slice(0, 4)];
  file[Symbol.dispose]();
  const checkpoints = {};
  for (const [name, prompt] of Object.entries(fixtures.checkpoints)) {
    checkpoints[name] = await checkpoint(library, `${fixtures.folder}/${name}`, prompt);
  }
  return {
    demos,
    encoded,
    gpt2: gpt2.encode(TEXT),
    tensor,
    checkpoints,
    halved: await checkpoint(library, folder, "ROMEO:", { dtype: "Q8_0", kvDtype: "F16" }),
    product: await product(kernels),
    withoutSimd: await withoutSimd(library, folder),
    refusals: [
      await refusal(() => loadModel(`${folder}/none.pt`)),
      await refusal(() => loadModel(folder, { device: "cuda9" })),
      await refusal(() => loadModel(folder, { signal: AbortSignal.abort() })),
      await refusal(() => loadModel(`${folder}/config.json`)),
    ],
  };
}

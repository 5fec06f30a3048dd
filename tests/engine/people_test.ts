/** Output folders of trainers, compared with PyTorch, PEFT and transformers. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, type LoadOptions } from "../../engine/load.ts";
import type { Model } from "../../engine/model.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../testing.ts";

/** A model as its trainer saved it; paths are below tests/fixtures/people. */
interface Case {
  readonly name: string;
  readonly source: string;
  /** Other sources of the same model. */
  readonly also?: readonly string[];
  readonly options?: LoadOptions;
  /** An adapter's folder: opened as a model, it finds its base and gives the same model. */
  readonly folder?: string;
  /** Name of the expected values in goldens/. */
  readonly golden: string;
  /** `cli`: needs flags of the command line. */
  readonly kind: "nanogpt" | "hf" | "lora" | "cli";
  /** Whether the source has no vocabulary, so that prompts are ids. */
  readonly no_text?: boolean;
}

/** Greedy ids and text after a prompt, and after one whose continuation passes the context. */
interface Golden {
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly greedy: number[];
  readonly text: string;
  readonly long_prompt?: string;
  readonly long_prompt_ids?: number[];
  readonly long_greedy?: number[];
  readonly long_text?: string;
}

const CASES = readJson<Case[]>("people/cases.json").filter(({ kind }) => kind !== "cli");
const ignoreGpu = await ignoreWithoutAdapter("people_test.ts");

/** Opens a source of tests/fixtures/people. */
function open(source: string, options: LoadOptions = {}): Promise<Model> {
  const adapters = options.adapters?.map((adapter) => ({
    ...adapter,
    path: fixture(`people/${adapter.path}`),
  }));
  return loadModel(fixture(`people/${source}`), { ...options, ...adapters && { adapters } });
}

/** Every way to open the model of a case. */
function sourcesOf({ source, also = [], options, folder }: Case) {
  const sources = [source, ...also].map((path) => ({ path, options }));
  return folder ? [...sources, { path: folder, options: { dtype: "F32" } as const }] : sources;
}

async function expectLogits(model: Model, golden: string): Promise<void> {
  using file = await openCheckpoint(fixture(`people/goldens/${golden}.safetensors`));
  const expected = await file.read("logits"); // [T, V], or the last row [V] of a large vocabulary
  const logits = await model.logits([...await file.read("ids")]); // [T, V]
  assertClose(logits.subarray(logits.length - expected.length), expected, TOLERANCE.logits);
}

/**
 * Expects greedy ids, and their text if given, with the cache and without. Typed arrays take
 * seconds without the cache, so only their road with it is walked.
 */
async function expectGreedy(
  model: Model,
  prompt: string | number[],
  ids: readonly number[],
  text?: string,
): Promise<void> {
  for (const useKvCache of model.backend.name === "js" ? [true] : [true, false]) {
    const drawn: number[] = [];
    let written = "";
    const options = { temperature: 0, maxNewTokens: ids.length, ignoreEos: true, useKvCache };
    for await (const token of model.generate(prompt, options)) {
      if (token.id !== undefined) drawn.push(token.id);
      written += token.text;
    }
    assert.deepEqual(drawn, ids);
    if (text !== undefined) assert.equal(written, text);
  }
}

/** Expects the greedy continuations of a golden, of text or (`no_text`) of ids. */
async function expectContinuations(model: Model, golden: Golden, { no_text }: Case): Promise<void> {
  const { prompt, prompt_ids, greedy, text } = golden;
  const { long_prompt, long_prompt_ids, long_greedy, long_text } = golden;
  if (no_text) {
    await expectGreedy(model, prompt_ids, greedy);
    if (long_greedy) await expectGreedy(model, long_prompt_ids!, long_greedy);
  } else {
    assert.deepEqual(model.tokenizer.encode(prompt), prompt_ids);
    await expectGreedy(model, prompt, greedy, text);
    if (long_greedy) await expectGreedy(model, long_prompt!, long_greedy, long_text);
  }
}

for (const device of ["js", "wasm"] as const) {
  for (const one of CASES) {
    Deno.test(`${device}: ${one.name} gives its trainer's logits and ids`, async () => {
      const golden = readJson<Golden>(`people/goldens/${one.golden}.json`);
      for (const { path, options } of sourcesOf(one)) {
        await using model = await open(path, { ...options, device });
        await expectLogits(model, one.golden);
        await expectContinuations(model, golden, one);
      }
    });
  }
}

Deno.test({
  name: "webgpu: every trainer's model gives its logits",
  ignore: ignoreGpu,
  fn: async () => {
    for (const { source, options, golden } of CASES) {
      await using model = await open(source, { ...options, device: "webgpu" });
      await expectLogits(model, golden);
    }
  },
});

Deno.test("loadModel() takes the number of heads from its options", async () => {
  // A state dict without a configuration: every other size follows from the tensors.
  const source = "nanogpt/state-dict-toml/weights.pt";
  const refusal = { name: "CheckpointError", message: /expected the number of heads, .* n_head/ };
  await assert.rejects(open(source, { device: "js" }), refusal);
  await using model = await open(source, { device: "js", config: { n_head: 4 } });
  await expectLogits(model, "state-dict");
});

Deno.test("loadModel() reports the checkpoint it chose and the tensors it left out", async () => {
  await using run = await open("trainer/run", { device: "js" });
  assert.match(run.notes.join(), /is a trainer's output: opened .*checkpoint-500$/);
  await using best = await open("trainer/run-best", { device: "js" }); // has a model of its own
  assert.deepEqual(best.notes, []);
  await using module = await open("lightning/last.ckpt", { device: "js" });
  assert.match(
    module.notes.join(),
    /^left out tensors that are not part of the model, "model": "train_loss/,
  );
});

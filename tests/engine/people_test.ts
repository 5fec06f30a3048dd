/** Output folders of trainers, compared with PyTorch, PEFT and transformers. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, type LoadOptions } from "../../engine/load.ts";
import type { Model } from "../../engine/model.ts";
import type { Device } from "../../kernels/mod.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../testing.ts";

/** A source that a trainer wrote, and other sources of the same model. */
interface Case {
  readonly name: string;
  readonly source: string;
  readonly golden: string;
  readonly kind: "nanogpt" | "hf" | "lora" | "cli";
  readonly also?: readonly string[];
  readonly options?: LoadOptions;
  /** The adapter's folder, which as a source opens the same model. */
  readonly folder?: string;
  /** Whether the folder has no vocabulary. */
  readonly no_text?: boolean;
}

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

/** Every source of a case with its options, adapters relative to the fixtures. */
function sourcesOf({ source, also = [], options = {}, folder }: Case): [string, LoadOptions][] {
  const adapters = options.adapters?.map((adapter) => ({
    ...adapter,
    path: fixture(`people/${adapter.path}`),
  }));
  const own = { ...options, ...adapters && { adapters } };
  const same = [source, ...also].map((path): [string, LoadOptions] => [path, own]);
  return folder ? [...same, [folder, { dtype: "F32" }]] : same;
}

async function expectLogits(model: Model, golden: string): Promise<void> {
  using file = await openCheckpoint(fixture(`${golden}.safetensors`));
  const expected = await file.read("logits");
  const logits = await model.logits([...await file.read("ids")]);
  // For the largest vocabulary, the golden has only the last row.
  assertClose(logits.subarray(logits.length - expected.length), expected, TOLERANCE.logits);
}

async function expectText(
  model: Model,
  prompt: string | number[],
  ids: readonly number[],
  text?: string,
): Promise<void> {
  for (const useKvCache of [true, false]) {
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

for (const device of ["js", "wasm"] as const satisfies readonly Device[]) {
  for (const one of CASES) {
    Deno.test(`${device}: ${one.name} gives its trainer's logits and ids`, async () => {
      const golden = readJson<Golden>(`people/goldens/${one.golden}.json`);
      for (const [source, options] of sourcesOf(one)) {
        await using model = await loadModel(fixture(`people/${source}`), { ...options, device });
        await expectLogits(model, `people/goldens/${one.golden}`);
        const { prompt, prompt_ids, long_prompt, long_prompt_ids } = golden;
        if (one.no_text) {
          await expectText(model, prompt_ids, golden.greedy);
        } else {
          assert.deepEqual(model.tokenizer.encode(prompt), prompt_ids);
          await expectText(model, prompt, golden.greedy, golden.text);
        }
        if (!golden.long_greedy) continue;
        const long = one.no_text ? long_prompt_ids! : long_prompt!;
        await expectText(
          model,
          long,
          golden.long_greedy,
          one.no_text ? undefined : golden.long_text,
        );
      }
    });
  }
}

Deno.test({
  name: "webgpu: every trainer's folder gives the logits of its own program",
  ignore: ignoreGpu,
  fn: async () => {
    for (const one of CASES) {
      const [[source, options]] = sourcesOf(one);
      await using model = await loadModel(fixture(`people/${source}`), {
        ...options,
        device: "webgpu",
      });
      await expectLogits(model, `people/goldens/${one.golden}`);
    }
  },
});

Deno.test("loadModel() takes the number of heads from its options", async () => {
  const path = fixture("people/nanogpt/state-dict-toml/weights.pt");
  const refusal = { name: "CheckpointError", message: /expected the number of heads, .* n_head/ };
  await assert.rejects(loadModel(path, { device: "js" }), refusal);
  await using model = await loadModel(path, { device: "js", config: { n_head: 4 } });
  await expectLogits(model, "people/goldens/state-dict");
});

Deno.test("loadModel() reports the checkpoint it chose and the tensors it left out", async () => {
  await using run = await loadModel(fixture("people/trainer/run"), { device: "js" });
  assert.match(run.notes.join(), /is a trainer's output: opened .*checkpoint-500$/);
  await using best = await loadModel(fixture("people/trainer/run-best"), { device: "js" });
  assert.deepEqual(best.notes, []);
  await using module = await loadModel(fixture("people/lightning/last.ckpt"), { device: "js" });
  assert.match(
    module.notes.join(),
    /^left out tensors that are not part of the model, "model": "train_loss/,
  );
});

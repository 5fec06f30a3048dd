import assert from "node:assert/strict";
import {
  type Checkpoint,
  openCheckpoint,
  openWeights,
} from "../../../engine/checkpoint/checkpoint.ts";
import { modelNames, modelPrefix } from "../../../engine/checkpoint/model_names.ts";
import { inTempFolder, writeSafetensors } from "../../safetensors.ts";

/** Names of a GPT with its head, in two forms. */
const GPT2 = ["transformer.wte.weight", "transformer.h.0.ln_1.weight", "lm_head.weight"];
const LLAMA = ["model.embed_tokens.weight", "model.layers.0.a.weight", "lm_head.weight"];

const within = (prefix: string, names: string[]) => names.map((name) => prefix + name);
const found = (names: string[], holder?: "lightning" | "state_dict") => {
  const model = modelNames(names, holder);
  return { names: [...model.names.values()], notes: model.notes };
};

Deno.test("modelNames() removes wrappers and attributes in any order", () => {
  const prefixes = [
    "",
    "module.",
    "_orig_mod.module.",
    "_forward_module.model.",
    "_module.",
    "model._orig_mod.",
    "model.module.",
    "module.model.net.",
    "ema_model.module.",
  ];
  for (const names of [GPT2, LLAMA]) {
    for (const prefix of prefixes) {
      assert.deepEqual(found(within(prefix, names)), { names, notes: [] }, prefix);
    }
  }
});

Deno.test("modelNames() takes the model and no mean, teacher, metric or loss beside it", () => {
  const layers = Array.from({ length: 9 }, (_, i) => `transformer.h.${i}.w`);
  const beside = [
    within("ema_model.module.", GPT2),
    ["ema_model.n_averaged"],
    within("teacher.", [...GPT2, ...layers]),
    ["val_acc.total", "loss.weight"],
  ];
  for (const others of beside) {
    for (
      const names of [[...others, ...within("gpt.", GPT2)], [...within("gpt.", GPT2), ...others]]
    ) {
      const model = found(names, "lightning");
      assert.deepEqual(model.names, GPT2);
      assert.match(
        model.notes.join(),
        /^left out tensors that are not part of the model, "gpt": "/,
      );
    }
  }
});

Deno.test("modelNames() keeps a head outside the model, and names of no GPT", () => {
  const names = ["net.transformer.wte.weight", "net.transformer.h.0.w", "lm_head.weight"];
  assert.deepEqual(found(names).names, GPT2.map((name) => name.replace("ln_1.weight", "w")));
  const others = [
    "encoder.layers.0.w",
    "head.w",
    "base_model.model.model.layers.0.q.lora_A.weight",
  ];
  assert.deepEqual(found(others), { names: others, notes: [] });
  assert.equal(modelPrefix(others), undefined);
});

Deno.test("openWeights() removes the wrappers of a model's .safetensors, openCheckpoint() does not", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    const tensor = { dtype: "F32", shape: [1], data: new Float32Array(1) };
    const wrapped = within("_orig_mod.", GPT2);
    await writeSafetensors(path, Object.fromEntries(wrapped.map((name) => [name, tensor])));
    const namesOf = (checkpoint: Checkpoint) => checkpoint.tensors().map(({ name }) => name);
    using model = await openWeights(path, true);
    assert.deepEqual(namesOf(model), GPT2);
    using file = await openCheckpoint(path);
    assert.deepEqual(namesOf(file), wrapped);
  });
});

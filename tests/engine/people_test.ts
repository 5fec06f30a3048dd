/** Output folders of trainers, compared with PyTorch, PEFT and transformers. */
import assert from "node:assert/strict";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { CASES, expectLogits, isSlowOnJs, open, testPeople, testPeopleOnGpu } from "./people.ts";

const ignoreGpu = await ignoreWithoutAdapter("people_test.ts");

testPeople("js", CASES.filter((one) => !isSlowOnJs(one)));
testPeople("wasm", CASES);

// One case of each architecture and kind of source; the soak tests have all.
const ON_GPU = /^(state-dict|lora-gpt2-c_attn|lora-llama-all|trainer-newest)$/;
testPeopleOnGpu(CASES.filter(({ name }) => ON_GPU.test(name)), ignoreGpu);

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

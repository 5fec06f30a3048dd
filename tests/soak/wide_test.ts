/** A model beyond 4 GiB on wasm, by the typed arrays, which keep each weight by itself. */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import type { BackendName } from "../../kernels/mod.ts";
import { assertClose, TOLERANCE } from "../testing.ts";

const GIB = 2 ** 30;

/** The token table alone, of 4.6 GiB in F32, exceeds 32-bit addresses; 6.1 GiB in all. */
const CONFIG = {
  model_type: "gpt2",
  n_embd: 4096,
  n_layer: 2,
  n_head: 32,
  n_positions: 64,
  vocab_size: 300_000,
  layer_norm_epsilon: 1e-5,
};
/** Bytes that must be free: the model's, and some for the process. */
const NEEDED = 7.5 * GIB;

/** Ids of both ends of the table. */
const PROMPT = [1, 299_999, 288_000];

const { available } = Deno.systemMemoryInfo();
const isSkipped = available < NEEDED;
if (isSkipped) {
  console.warn(
    `SKIPPED: a model of 6.1 GiB: ${(available / GIB).toFixed(1)} GiB of memory are available, ` +
      `${NEEDED / GIB} are needed`,
  );
}

/** The logits of the prompt, and the ids after it. */
async function run(device: BackendName) {
  await using model = await loadModel(
    { config: CONFIG, seed: 1 },
    { device, threads: 2, dtype: "F32" },
  );
  const ids: number[] = [];
  for await (const { id } of model.generate(PROMPT, { maxNewTokens: 2, temperature: 0 })) {
    if (id !== undefined) ids.push(id);
  }
  const weights = model.memory.classes.weights.current;
  return { logits: await model.logits(PROMPT), ids, notes: model.notes, weights };
}

Deno.test({
  name: "a model beyond 4 GiB has the logits and ids of typed arrays (wasm)",
  ignore: isSkipped,
  fn: async () => {
    const wide = await run("wasm");
    assert.ok(wide.weights > 6 * GIB, `${wide.weights}`);
    assert.ok(wide.notes.includes("64-bit addresses: the run needs 6.1 GiB"), wide.notes.join());
    const expected = await run("js");
    assertClose(wide.logits, expected.logits, TOLERANCE.logits);
    assert.deepEqual(wide.ids, expected.ids);
  },
});

/**
 * Models quantised at load: WebAssembly against typed arrays, which compute with the same blocks.
 */
import assert from "node:assert/strict";
import { loadModel, type LoadOptions } from "../../mod.ts";
import { assertClose, fixture, TOLERANCE } from "../testing.ts";

const IDS = [1, 5, 17, 33, 60, 22, 9, 41, 7, 3];

/** Logits of all ids, and greedy ids after them, with and without the cache. */
async function resultsOf(source: string, options: LoadOptions) {
  await using model = await loadModel(source, { ...options, contextLength: 32 });
  const logits = await model.logits(IDS);
  const greedy: number[][] = [];
  for (const useKvCache of [true, false]) {
    const ids: number[] = [];
    const settings = { temperature: 0, maxNewTokens: 3, ignoreEos: true, useKvCache };
    for await (const { id } of model.generate(IDS, settings)) ids.push(id!);
    greedy.push(ids);
  }
  return { dtype: model.dtype, activations: model.activations, logits, greedy };
}

// GPT-2's matrices are stored transposed, the demo's are not.
const CASES = [
  [fixture("tiny/gpt2"), "Q8_0"],
  [fixture("tiny/gpt2"), "Q4_0"],
  ["bench/demo", "Q4"],
] as const;

for (const [source, dtype] of CASES) {
  Deno.test(`a model quantised to ${dtype} gives the same text on wasm and js`, async () => {
    const plain = await resultsOf(source, { device: "js", dtype });
    const wasm = await resultsOf(source, { device: "wasm", dtype, threads: 1 });
    assert.equal(wasm.dtype, plain.dtype);
    assertClose(wasm.logits, plain.logits, TOLERANCE.quantisedLogits, `${source} ${dtype}`);
    assert.deepEqual(wasm.greedy, plain.greedy);
  });
}

Deno.test("activations of 8 bits change logits a little, and the report's key", async () => {
  const options = { device: "wasm", dtype: "Q4_0", threads: 1 } as const;
  const exact = await resultsOf("bench/demo", options);
  const int8 = await resultsOf("bench/demo", { ...options, activations: "int8" });
  assert.deepEqual([exact.activations, int8.activations], ["exact", "int8"]);
  const most = Math.max(...exact.logits.map((v, i) => Math.abs(v - int8.logits[i])));
  assert.ok(most > 0 && most < 0.5, `${most}`);
});

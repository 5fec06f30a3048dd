import assert from "node:assert/strict";
import { loadModel } from "../../../engine/load.ts";
import { perplexity } from "../../../engine/measure/perplexity.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../../testing.ts";

interface Golden {
  readonly model: string;
  readonly reference: string;
  readonly ids: number[];
  readonly context: number;
  readonly stride: number;
  readonly tokens: number;
  readonly nll: number;
  readonly kl: number;
  readonly sameTop: number;
}

const open = (name: string, device: "js" | "wasm") =>
  loadModel(fixture(`tiny/${name}`), { device, threads: 1 });

for (const golden of readJson<Golden[]>("perplexity/golden.json")) {
  const { model: name, reference: other, context, stride, ids, tokens, sameTop } = golden;
  Deno.test(`perplexity() equals transformers' for ${name} in windows of ${context}, stride ${stride}`, async () => {
    await using model = await open(name, "wasm");
    await using reference = await open(other, "js");
    const result = await perplexity(model, ids, { context, stride, reference });
    assert.deepEqual([result.tokens, result.sameTop], [tokens, sameTop]);
    assertClose([result.nll, result.kl!], [golden.nll, golden.kl], TOLERANCE.logits);
    assert.ok(Math.abs(result.kl! - golden.kl) < 1e-6 + 1e-4 * golden.kl); // some are tiny
    const alone = await perplexity(model, ids, { context, stride });
    assert.deepEqual(alone, {
      nll: result.nll,
      perplexity: Math.exp(result.nll),
      tokens,
      context,
      stride,
    });
  });
}

Deno.test("perplexity() refuses what it cannot score in one sentence", async () => {
  await using model = await open("llama", "js");
  const score = (text: unknown, options?: unknown) =>
    perplexity(model, text as string, options as Record<string, never>);
  const cases: [Promise<unknown>, string, RegExp][] = [
    [score([5]), "RangeError", /^Cannot score: expected at least 2 tokens, got 1$/],
    [score([]), "RangeError", /at least 2 tokens, got 0/],
    [score([1, 320]), "RangeError", /Cannot run id 320: expected an integer from 0 to 319/],
    [score(5), "TypeError", /expected a text to be text or token ids, got 5/],
    [score([1, 2], 5), "TypeError", /expected options to be an object, got 5/],
    [score("text"), "CheckpointError", /tokenizer/],
    [score([1, 2], { context: 1 }), "RangeError", /context to be an integer from 2 to \d+, got 1/],
    [score([1, 2], { context: 1e9 }), "RangeError", /context to be an integer from 2 to \d+, got/],
    [score([1, 2], { context: 8, stride: 9 }), "RangeError", /stride to be .* 1 to 8, got 9/],
    [score([1, 2], { stride: 0 }), "RangeError", /stride to be .*, got 0/],
    [score([1, 2], { reference: model }), "RangeError", /expected another model/],
    [score([1, 2], { signal: AbortSignal.abort(new Error("no")) }), "Error", /^no$/],
  ];
  for (const [run, name, message] of cases) await assert.rejects(run, { name, message });
  await using reference = await loadModel(fixture("labcore/learned"), { device: "js" });
  await assert.rejects(perplexity(model, [1, 2], { reference }), {
    name: "RangeError",
    message: /expected the same vocabulary, got 320 and \d+ tokens$/,
  });
});

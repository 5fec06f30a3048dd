import assert from "node:assert/strict";
import { loadModel } from "../../../engine/load.ts";
import type { Model } from "../../../engine/model.ts";
import { ignoreWithoutAdapter } from "../../kernels/adapter.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../../testing.ts";

interface Golden {
  /** A folder of tests/fixtures/tiny. */
  readonly name: string;
  /** O: the original context, in tokens. */
  readonly original: number;
  /** O + 1 ids. */
  readonly text: number[];
  /** Logits [V] after the first `tokens` ids of the text: O − 1, O and O + 1 of them. */
  readonly last: readonly { readonly tokens: number; readonly logits: readonly number[] }[];
  /** O − 6: the first ids of the text, which `greedy` continues to O + 8 tokens. */
  readonly prompt_tokens: number;
  readonly greedy: readonly number[];
}

const { cases } = readJson<{ cases: readonly Golden[] }>("longrope/golden.json");

/** Checks the last logits for each length of the text, in the given order. */
async function assertLogits(model: Model, { text, last, name }: Golden, order: readonly number[]) {
  const V = model.config.vocabSize;
  for (const i of order) {
    const { tokens, logits } = last[i];
    const rows = await model.logits(text.slice(0, tokens)); // [tokens, V]
    assertClose(rows.subarray(-V), logits, TOLERANCE.logits, `${name}, ${tokens} tokens`);
  }
}

for (const golden of cases) {
  const { name, original, text, greedy: expected } = golden;
  const prompt = text.slice(0, golden.prompt_tokens);
  for (const device of ["js", "wasm"] as const) {
    const open = (contextLength?: number) =>
      loadModel(fixture(`tiny/${name}`), { device, threads: 1, contextLength });

    Deno.test(`${device}: logits() chooses LongRoPE's factors by the number of ids on ${name}`, async () => {
      await using model = await open();
      await assertLogits(model, golden, [0, 1, 2, 1, 0, 2]);
    });

    Deno.test(`${device}: generate() crosses LongRoPE's original context as transformers on ${name}`, async () => {
      await using model = await open();
      for (const options of [{}, { useKvCache: false }, { deterministic: true }]) {
        const ids = await greedy(model, prompt, expected.length, options);
        assert.deepEqual(ids, expected, JSON.stringify(options));
      }
    });

    Deno.test(`${device}: generate() reuses no keys of LongRoPE's other factors on ${name}`, async () => {
      await using model = await open();
      const options = { reusePrompt: "all" } as const;
      // From the long factors back to the short ones, and on from a prompt of the long ones.
      for (const drawn of [0, 0, 8, 5, 9, 2]) {
        const ids = await greedy(
          model,
          [...prompt, ...expected.slice(0, drawn)],
          expected.length - drawn,
          options,
        );
        assert.deepEqual(ids, expected.slice(drawn), `after ${drawn} of the drawn ids`);
      }
    });

    Deno.test(`${device}: generate() in the original context uses the short factors on ${name}`, async () => {
      await using model = await open(original);
      // Id 7 follows from O tokens and ends the text, because the context is full.
      assert.deepEqual(await greedy(model, prompt, expected.length), expected.slice(0, 7));
    });
  }
}

Deno.test({
  name: "webgpu: logits() and generate() choose LongRoPE's factors by the number of ids",
  ignore: await ignoreWithoutAdapter("long_rope_test.ts"),
  fn: async () => {
    const [golden] = cases;
    await using model = await loadModel(fixture(`tiny/${golden.name}`), { device: "webgpu" });
    await assertLogits(model, golden, [0, 2, 1]);
    const prompt = golden.text.slice(0, golden.prompt_tokens);
    // Draws are queued by 1, 2, 4, …: only the second prompt has O within a queue.
    for (const drawn of [0, 1]) {
      const ids = [...prompt, ...golden.greedy.slice(0, drawn)];
      const expected = golden.greedy.slice(drawn);
      assert.deepEqual(await greedy(model, ids, expected.length), expected);
    }
  },
});

/**
 * SmolLM2-135M-Instruct in BF16 against transformers, on the best CPU backend (minutes if that is
 * js). `tests/real/get_smollm2.sh` downloads the model; WGSLM_SMOLLM2 is its folder.
 */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { perplexity } from "../../engine/measure/perplexity.ts";
import type { Model } from "../../engine/model.ts";
import type { ChatMessage } from "../../engine/tokenizer/tokenizer.ts";
import { assertClose, greedy, readJson, TOLERANCE } from "../testing.ts";

/** A case of fixtures/smollm2/golden.json. */
interface Case {
  readonly ids: readonly number[];
  readonly top10_ids: readonly number[];
  readonly top10_logits: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly greedy_text: string;
  /** Margin of each greedy choice over the second-best id. */
  readonly margins: readonly number[];
}

interface Golden {
  readonly prompts: readonly (Case & { readonly prompt: string })[];
  readonly chats: readonly (Case & { messages: readonly ChatMessage[]; rendered: string })[];
  readonly likelihood: {
    readonly text: string;
    readonly tokens: number;
    readonly first_ids: readonly number[];
    readonly mean_nll: number;
  };
}

const FOLDER = Deno.env.get("WGSLM_SMOLLM2") ?? "";
if (FOLDER === "") {
  console.warn(
    "SKIPPED: a real model, since WGSLM_SMOLLM2 is not set; run tests/real/get_smollm2.sh",
  );
}

/** Margins below this allow another correct engine to draw another id. */
const MIN_MARGIN = 0.02;

/** Registers a test of the model. */
function withModel(name: string, test: (model: Model, golden: Golden) => Promise<void>): void {
  Deno.test({
    name,
    ignore: FOLDER === "",
    fn: async () => {
      await using model = await loadModel(FOLDER, { device: "cpu", contextLength: 1024 });
      await test(model, readJson<Golden>("smollm2/golden.json"));
    },
  });
}

/** Compares the ten highest logits of the last position, and the greedy ids and text. */
async function check(model: Model, golden: Case): Promise<void> {
  const V = model.config.vocabSize;
  const logits = (await model.logits(golden.ids)).subarray(-V);
  const highest = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 10);
  assert.deepEqual(highest, golden.top10_ids);
  assertClose(highest.map((id) => logits[id]), golden.top10_logits, TOLERANCE.logits);
  const unsure = golden.margins.findIndex((margin) => margin < MIN_MARGIN);
  const count = unsure < 0 ? golden.greedy_ids.length : unsure;
  const expected = golden.greedy_ids.slice(0, count);
  assert.deepEqual(await greedy(model, [...golden.ids], count), expected);
  const text = model.tokenizer.decode(expected);
  assert.ok(
    text === golden.greedy_text || unsure >= 0 && golden.greedy_text.startsWith(text),
    text,
  );
}

withModel(
  "SmolLM2: prompts give transformers' ids, logits and greedy texts",
  async (model, golden) => {
    assert.equal(model.dtype, "BF16");
    for (const { prompt, ...one } of golden.prompts) {
      assert.deepEqual(model.tokenizer.encode(prompt), one.ids);
      await check(model, one);
    }
  },
);

withModel(
  "SmolLM2: chats give transformers' texts, ids, logits and greedy answers",
  async (model, golden) => {
    for (const { messages, rendered, ...one } of golden.chats) {
      const text = model.tokenizer.applyChatTemplate(messages);
      assert.equal(text, rendered);
      assert.deepEqual(model.tokenizer.encode(text, { addSpecialTokens: false }), one.ids);
      await check(model, one);
      // Without `ignoreEos`, generation ends at the end of the chat turn.
      const options = { temperature: 0, maxNewTokens: one.greedy_ids.length + 5 };
      const tokens = await Array.fromAsync(model.generate(one.ids, options));
      assert.equal(tokens.at(-1)?.finishReason, "eos");
      assert.equal(tokens.map(({ text }) => text).join(""), one.greedy_text);
    }
  },
);

withModel(
  "SmolLM2: a text of 740 tokens has transformers' mean negative log-likelihood",
  async (model, golden) => {
    const { text, tokens, first_ids, mean_nll } = golden.likelihood;
    const ids = model.tokenizer.encode(text);
    assert.equal(ids.length, tokens);
    assert.deepEqual(ids.slice(0, first_ids.length), first_ids);
    const { nll } = await perplexity(model, text);
    assertClose([nll], [mean_nll], { atol: 1e-4, rtol: 0 });
  },
);

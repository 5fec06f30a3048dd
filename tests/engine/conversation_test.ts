import assert from "node:assert/strict";
import { encodeChat } from "../../engine/conversation.ts";
import { loadModel } from "../../engine/load.ts";
import { loadTokenizer } from "../../engine/tokenizer/load.ts";
import { CHAT_TOKENIZER, withChatModel } from "../chat_model.ts";
import { fixture } from "../testing.ts";

const MESSAGES = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi" },
];

/** Has every encoded text begin with the end-of-text token, as Llama's begins with its own. */
const PREFIX = {
  post_processor: {
    type: "TemplateProcessing",
    single: [
      { SpecialToken: { id: "<|endoftext|>", type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
    ],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
    special_tokens: {
      "<|endoftext|>": { id: "<|endoftext|>", ids: [0], tokens: ["<|endoftext|>"] },
    },
  },
};

Deno.test("encodeChat() adds no special tokens to those of the template", () =>
  withChatModel(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/tokenizer.json`,
      JSON.stringify({ ...CHAT_TOKENIZER, ...PREFIX }),
    );
    const tokenizer = await loadTokenizer(folder);
    const text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n" +
      "<|im_start|>assistant\n";
    const ids = encodeChat(tokenizer, MESSAGES);
    assert.deepEqual([0, ...ids], tokenizer.encode(text), "a text of its own gets one more");
    assert.deepEqual(ids.filter((id) => id < 3), [1, 2, 1, 2, 1]);
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), text);
    const open = encodeChat(tokenizer, MESSAGES, { addGenerationPrompt: false });
    assert.deepEqual(open, ids.slice(0, open.length));
    assert.equal(
      tokenizer.decode(ids.slice(open.length), { skipSpecialTokens: false }),
      "<|im_start|>assistant\n",
    );
  }));

Deno.test("Model.chat() yields the same items as generate() on the encoded template", () =>
  withChatModel(async (folder) => {
    await using model = await loadModel(folder, { device: "js" });
    const options = { maxNewTokens: 12, seed: 3, temperature: 1.5, topK: 0 };
    const tokens = await Array.fromAsync(model.chat(MESSAGES, options));
    assert.equal(tokens.length, 12);
    assert.equal(tokens.at(-1)?.finishReason, "length");
    const ids = encodeChat(model.tokenizer, MESSAGES);
    assert.deepEqual(await Array.fromAsync(model.generate(ids, options)), tokens);
    const other = [...MESSAGES, { role: "user", content: "Who?" }];
    assert.notDeepEqual(await Array.fromAsync(model.chat(other, options)), tokens);
  }));

Deno.test("Model.chat() checks the conversation and the options before anything runs", () =>
  withChatModel(async (folder) => {
    await using model = await loadModel(folder, { device: "js" });
    assert.throws(() => model.chat(MESSAGES, { temperature: -1 }), /temperature/);
    assert.throws(() => model.chat([{ role: "user" } as never]), TypeError);
    const long = [{ role: "user", content: "a".repeat(model.contextLength) }];
    assert.throws(() => model.chat(long), /prompt of at most \d+ tokens \(the context\), got \d+/);
    await using characters = await loadModel(fixture("labcore/learned"), { device: "js" });
    assert.throws(() => characters.chat(MESSAGES), {
      name: "CheckpointError",
      message: /template/,
    });
    await using ids = await loadModel(fixture("tiny/gpt2"), { device: "js" });
    assert.throws(() => ids.chat(MESSAGES), { name: "CheckpointError" });
  }));

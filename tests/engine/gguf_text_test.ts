import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/load.ts";
import { fixture, readJson } from "../testing.ts";

/** A file with weights, vocabulary and chat template; expected values by transformers. */
interface Whole {
  readonly golden: string;
  readonly text: string;
  readonly greedy_text: string;
  readonly bos: number | null;
  readonly eos: number;
  readonly chat: { readonly user: string; readonly rendered: string; readonly ids: number[] };
}

const GOLDENS = readJson<Record<string, Whole>>("gguf/golden.json");

for (const file of ["whole-llama3.gguf", "whole-qwen2.gguf"]) {
  Deno.test(`text and chat of ${file} equal transformers'`, async () => {
    const { golden, text, greedy_text, bos, eos, chat } = GOLDENS[file];
    using values = await openCheckpoint(fixture(`gguf/${golden}`));
    const count = (await values.read("greedy")).length;
    await using model = await loadModel(fixture(`gguf/${file}`), { device: "cpu" });
    const { tokenizer } = model;
    assert.deepEqual(tokenizer.encode(text), [...await values.read("ids")]);
    assert.deepEqual([tokenizer.bosId, tokenizer.eosIds.includes(eos)], [bos, true]);
    const rendered = tokenizer.applyChatTemplate([{ role: "user", content: chat.user }]);
    assert.equal(rendered, chat.rendered);
    assert.deepEqual(tokenizer.encode(rendered, { addSpecialTokens: false }), chat.ids);
    const ids: number[] = [];
    const options = { temperature: 0, maxNewTokens: count, ignoreEos: true };
    for await (const { id } of model.generate(text, options)) if (id !== undefined) ids.push(id);
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), greedy_text);
  });
}

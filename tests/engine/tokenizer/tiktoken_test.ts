import assert from "node:assert/strict";
import type { Tokenizer } from "../../../engine/tokenizer/tokenizer.ts";
import { huggingFaceTokenizer } from "../../../engine/tokenizer/huggingface.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { gpt2File } from "../../../engine/tokenizer/tiktoken.ts";
import { within } from "../../patience.ts";
import { readJson } from "../../testing.ts";

/** Format: tests/fixtures/tokenizers/README.md. */
interface Golden {
  readonly cases: readonly {
    readonly text: string;
    readonly ids_ordinary: readonly number[];
    readonly ids_allowed_special: readonly number[];
    readonly encode: { readonly ids?: readonly number[] };
    readonly decoded: string;
    readonly decoded_allowed_special: string;
  }[];
  readonly decode: readonly { readonly ids: number[]; readonly decoded: string }[];
  readonly stream: readonly {
    readonly ids: readonly number[];
    readonly skip_special_tokens: boolean;
    readonly pieces: readonly (string | null)[];
    readonly matches_decode: boolean;
  }[];
}

const golden = readJson<Golden>("tokenizers/gpt2-tiktoken/golden.json");
const tokenizer = await loadTokenizer({ type: "bpe", encoding_name: "gpt2" });

/** GPT-2's tokenizer without its special token, so that "<|endoftext|>" is plain text. */
async function ordinary(): Promise<Tokenizer> {
  const made = await huggingFaceTokenizer({ ...await gpt2File(), added_tokens: [] }, {}, "ranks");
  assert.ok(typeof made !== "string");
  return made;
}

Deno.test("gpt2File() has GPT-2's vocabulary size, merges and special token", async () => {
  const { model } = await gpt2File() as { model: { vocab: object; merges: [string, string][] } };
  assert.equal(Object.keys(model.vocab).length, 50256);
  // First and last line of GPT-2's merges.txt.
  assert.equal(model.merges.length, 50000);
  assert.deepEqual([model.merges[0], model.merges.at(-1)], [["Ġ", "t"], ["Ġg", "azed"]]);
  assert.equal(tokenizer.vocabSize, 50257);
  assert.equal(tokenizer.bosId, 50256);
  assert.deepEqual(tokenizer.eosIds, [50256]);
});

Deno.test("the GPT-2 tokenizer gives tiktoken's ids when special tokens are allowed", () => {
  for (const { text, ids_allowed_special, encode } of golden.cases) {
    assert.deepEqual(tokenizer.encode(text), ids_allowed_special, text);
    if (encode.ids) assert.deepEqual(tokenizer.encode(text), encode.ids, text);
  }
});

Deno.test("the GPT-2 tokenizer gives tiktoken's ids when it has no special token", async () => {
  const made = await ordinary();
  for (const { text, ids_ordinary, decoded } of golden.cases) {
    assert.deepEqual(made.encode(text), ids_ordinary, text);
    assert.equal(made.decode(ids_ordinary), decoded, text);
  }
});

Deno.test("the GPT-2 tokenizer decodes as tiktoken, also when bytes are invalid UTF-8", () => {
  for (const { ids_allowed_special, decoded_allowed_special } of golden.cases) {
    const decoded = tokenizer.decode(ids_allowed_special, { skipSpecialTokens: false });
    assert.equal(decoded, decoded_allowed_special);
  }
  for (const { ids, decoded } of golden.decode) {
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), decoded);
  }
  assert.equal(tokenizer.decode([50256, 15496, 50256]), "Hello");
  assert.equal(tokenizer.decode([50257, 15496]), "Hello");
});

Deno.test("the GPT-2 tokenizer streams text no later than Hugging Face's tokenizers", () => {
  for (
    const { ids, skip_special_tokens: skipSpecialTokens, pieces, matches_decode } of golden.stream
  ) {
    const stream = tokenizer.stream({ skipSpecialTokens });
    let [text, theirs] = ["", ""];
    for (const [i, id] of ids.entries()) {
      text += stream.push(id);
      theirs += pieces[i] ?? "";
      assert.ok(text.startsWith(theirs));
    }
    text += stream.flush();
    assert.equal(text, tokenizer.decode(ids, { skipSpecialTokens }));
    if (matches_decode) assert.equal(text, theirs);
  }
});

Deno.test("the GPT-2 tokenizer encodes a word of 1 MB in seconds", async () => {
  // A quadratic algorithm would take an hour.
  await within("ids of a long word", () => {
    // "aaaa" is GPT-2's longest token of this letter.
    assert.deepEqual(tokenizer.encode("a".repeat(1e6)), Array(250_000).fill(24794));
    // A run of spaces is one word, and no merge joins two spaces.
    assert.deepEqual(tokenizer.encode(" ".repeat(1e6)), Array(1_000_000).fill(220));
  });
});

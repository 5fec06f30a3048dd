import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { withoutPossessive } from "../../../engine/tokenizer/possessive.ts";
import { readJson } from "../../testing.ts";

/** Written by tests/fixtures/tokenizers/kinds/make_kinds.py. */
interface Kinds {
  readonly texts: readonly string[];
  readonly kinds: Readonly<
    Record<string, {
      readonly tokenizer: Record<string, unknown>;
      readonly ids: readonly (readonly number[])[];
      readonly decoded: readonly string[];
      readonly padded: { readonly ids: readonly number[]; readonly text: string };
    }>
  >;
}

const { texts, kinds } = readJson<Kinds>("tokenizers/kinds/kinds.json");

for (const [kind, { tokenizer: file, ids, decoded, padded }] of Object.entries(kinds)) {
  Deno.test(`encode() and decode() equal Hugging Face's when it is ${kind}`, async () => {
    const tokenizer = await loadTokenizer(file);
    const streamed = (ids: readonly number[]) => {
      const stream = tokenizer.stream();
      return ids.map((id) => stream.push(id)).join("") + stream.flush();
    };
    for (const [i, text] of texts.entries()) {
      assert.deepEqual(tokenizer.encode(text), ids[i], JSON.stringify(text));
      assert.equal(tokenizer.decode(ids[i]), decoded[i]);
    }
    // Ids past the vocabulary: padding rows of the embedding.
    assert.equal(tokenizer.decode(padded.ids), padded.text);
    assert.equal(streamed(padded.ids), padded.text);
  });
}

Deno.test("encode() rejects an unknown word when WordLevel lacks its unk_token too", async () => {
  const model = { type: "WordLevel", vocab: { a: 0 }, unk_token: "<unk>" };
  const tokenizer = await loadTokenizer({ model, pre_tokenizer: { type: "WhitespaceSplit" } });
  assert.deepEqual(tokenizer.encode("a a"), [0, 0]);
  assert.throws(
    () => tokenizer.encode("a b"),
    (error) =>
      error instanceof CheckpointError && /a word of the vocabulary, got "b"/.test(error.message),
  );
});

Deno.test("withoutPossessive() wraps possessive atoms only if the pattern could backtrack", () => {
  for (const pattern of ["a+b*", "\\++", "[+*]+", "a{1,3}+", "\\(?>", "(?:a+)+", "a+?b"]) {
    assert.equal(withoutPossessive(pattern), pattern, pattern);
  }
  assert.equal(withoutPossessive("a++$"), "(?:(?=(?<_0>a+))\\k<_0>)$");
  assert.equal(withoutPossessive("a++|b"), "a+|b");
  assert.equal(withoutPossessive("[^\\]a]++[\\r\\n]*+"), "[^\\]a]+[\\r\\n]*");
  assert.throws(() => withoutPossessive("(a)\\1b++c"), /numbered references/);
  assert.ok(!new RegExp(`^${withoutPossessive("(?>a|ab)c")}`, "u").test("abc"));
});

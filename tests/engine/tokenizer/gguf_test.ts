import assert from "node:assert/strict";
import type { Metadata } from "../../../engine/checkpoint/gguf/metadata.ts";
import { CHARACTER_BYTES } from "../../../engine/tokenizer/byte_level.ts";
import { fromGguf } from "../../../engine/tokenizer/gguf.ts";
import { PRE_TOKENIZERS } from "../../../engine/tokenizer/gguf_patterns.ts";
import { findTokenizer, loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { fixture, readJson } from "../../testing.ts";
import { testVocabulary, type VocabularyCase } from "./gguf_vocabularies.ts";

for (const name of ["gpt-2", "llama-spm", "phi-3"]) testVocabulary(name);

const SMALL = readJson<Record<string, VocabularyCase[]>>("gguf-vocab/small.json");
for (const [name, cases] of Object.entries(SMALL)) {
  Deno.test(`loadTokenizer() encodes and decodes as Rust's tokenizers with ${name}.gguf`, async () => {
    const tokenizer = await loadTokenizer(fixture(`gguf-vocab/${name}.gguf`));
    for (const { text, ids, ids_no_special, decoded } of cases) {
      assert.deepEqual(tokenizer.encode(text), ids, text);
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids_no_special, text);
      assert.equal(tokenizer.decode(ids_no_special, { skipSpecialTokens: false }), decoded);
    }
  });
}

/** Metadata of a BPE of all bytes and a few merges. */
const bytes = (changes: Metadata = {}): Metadata => ({
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "gpt-2",
  "tokenizer.ggml.tokens": [...CHARACTER_BYTES.keys(), "ab", "abc", "<e>"],
  "tokenizer.ggml.token_type": [...CHARACTER_BYTES.keys(), 1, 1, 1].map((_, i) =>
    i === 258 ? 3 : 1
  ),
  "tokenizer.ggml.merges": ["a b", "ab c"],
  "tokenizer.ggml.eos_token_id": 258,
  ...changes,
});
const open = (changes?: Metadata) =>
  findTokenizer({ gguf: { metadata: bytes(changes), path: "x.gguf" } });

const TRICKY =
  "It's  the 1234567 'Ll CamelCase naïve e\u0301 日本語 かな 한국어 \r\n\t x+=$y^`~ ٣٤٥ 🎉!? \n";

Deno.test("every pre-tokenizer that llama.cpp names splits a text without loss", async () => {
  assert.ok(PRE_TOKENIZERS.size >= 85);
  for (const [name, { isText }] of PRE_TOKENIZERS) {
    if (isText) continue; // other tokens than bytes
    const tokenizer = await open({ "tokenizer.ggml.pre": name });
    assert.ok(typeof tokenizer !== "string", name);
    const text = tokenizer.decode(tokenizer.encode(TRICKY, { addSpecialTokens: false }));
    assert.equal(text, TRICKY, name);
  }
});

Deno.test("patterns of pre-tokenizers split as those of the models do", () => {
  // Expected pieces from the models' tokenizer.json, by hand where digits are grouped.
  const cases: [name: string, text: string, pieces: string[]][] = [
    ["gpt-2", "it's 1234 ab  c", ["it", "'s", " 1234", " ab", " ", " c"]],
    ["llama-bpe", "IT'S 12345", ["IT", "'S", " ", "123", "45"]],
    ["qwen2", "12 ab", ["1", "2", " ab"]],
    ["starcoder", "a12", ["a", "1", "2"]],
    ["gpt-4o", "CamelCase'll", ["Camel", "Case'll"]],
    ["tekken", "CamelCase12", ["Camel", "Case", "1", "2"]],
    ["superbpe", "1234567", ["1", "234", "567"]],
    ["afmoe", "12345", ["12", "345"]],
    ["deepseek-v3", "+foo 日本", ["+foo", " ", "日本"]],
    ["falcon", "a,b1234", ["a", ",", "b", "123", "4"]],
  ];
  for (const [name, text, expected] of cases) {
    let pieces = [text];
    for (const pattern of PRE_TOKENIZERS.get(name)!.patterns) {
      pieces = pieces.flatMap((piece) => isolate(piece, new RegExp(pattern, "gu")));
    }
    assert.deepEqual(pieces, expected, name);
  }
});

function isolate(text: string, pattern: RegExp): string[] {
  const pieces: string[] = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    pieces.push(text.slice(end, index), match);
    end = index + match.length;
  }
  return [...pieces, text.slice(end)].filter((piece) => piece);
}

Deno.test("BOS and EOS are added as the file says, else as its pre-tokenizer does", async () => {
  const ids = async (changes: Metadata) => {
    const tokenizer = await open(changes);
    return typeof tokenizer === "string" ? tokenizer : tokenizer.encode("abc");
  };
  const bos = { "tokenizer.ggml.bos_token_id": 258 };
  assert.deepEqual(await ids(bos), [257]);
  assert.deepEqual(await ids({ ...bos, "tokenizer.ggml.pre": "llama-bpe" }), [258, 257]);
  const off = { "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": false };
  assert.deepEqual(await ids({ ...bos, ...off }), [257]);
  assert.deepEqual(await ids({ "tokenizer.ggml.add_eos_token": true }), [257, 258]);
});

Deno.test("named chat templates of a GGUF file are found", async () => {
  const tokenizer = await loadTokenizer(fixture("gguf-vocab/spm-plain.gguf"));
  const messages = [{ role: "user", content: "Hi" }];
  assert.equal(tokenizer.applyChatTemplate(messages), "Hi</s>");
  const tools = [{ name: "search" }];
  assert.equal(tokenizer.applyChatTemplate(messages, { tools }), "search");
});

Deno.test("a GGUF without a known tokenizer gives a sentence, a damaged one an error", async () => {
  const sentences: [Metadata, RegExp][] = [
    [{ "tokenizer.ggml.model": "none" }, /^"x.gguf" has no tokenizer; name one with --meta/],
    [{ "tokenizer.ggml.model": 2n ** 63n }, /does not read the tokenizer "9223372036854775808"/],
    [{ "tokenizer.ggml.model": "rwkv" }, /does not read the tokenizer "rwkv" of "x.gguf"/],
    [{ "tokenizer.ggml.pre": "new-one" }, /does not know the pre-tokenizer "new-one"/],
  ];
  for (const [changes, message] of sentences) assert.match(await open(changes) as string, message);
  const damaged: [Metadata, RegExp][] = [
    [{ "tokenizer.ggml.tokens": 5 }, /expected tokenizer.ggml.tokens to be a list of texts$/],
    [{ "tokenizer.ggml.tokens": [] }, /expected a vocabulary with tokens$/],
    [{ "tokenizer.ggml.token_type": [1] }, /token_type to have a number for each of 259 tokens$/],
    [{ "tokenizer.ggml.merges": ["ab"] }, /expected merges of two tokens, got "ab"$/],
    [{ "tokenizer.ggml.merges": ["a zz"] }, /merge 0 to join two tokens to a third, got unknown/],
    [{ "tokenizer.ggml.eos_token_id": "x" }, /eos_token_id to be an id, got "x"$/],
    [{ "tokenizer.ggml.eos_token_id": 0.5 }, /eos_token_id to be an id, got 0.5$/],
    [{ "tokenizer.ggml.add_bos_token": 1 }, /add_bos_token to be true or false, got 1$/],
    [{ "tokenizer.ggml.add_eos_token": [2n ** 63n] }, /true or false, got \["9223372036854775808"/],
    [{ "tokenizer.ggml.model": "llama" }, /expected tokenizer.ggml.scores$/],
  ];
  for (const [changes, message] of damaged) {
    await assert.rejects(open(changes), { name: "CheckpointError", message });
  }
  assert.equal(fromGguf({}, '"x"'), '"x" has no tokenizer');
});

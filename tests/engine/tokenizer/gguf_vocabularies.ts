/**
 * Vocabularies of real models in GGUF files, for tests: llama.cpp's `models/ggml-vocab-*.gguf`
 * (MIT), which hold metadata and no tensors, with ids by the models' Hugging Face tokenizers
 * (`.out`) and by llama.cpp (`.extra.json`).
 *
 * @module
 */
import assert from "node:assert/strict";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { fixture, readJson } from "../../testing.ts";

/** A text by llama.cpp. */
export interface VocabularyCase {
  readonly text: string;
  readonly ids: number[];
  readonly ids_no_special: number[];
  /** Text of `ids_no_special`, special tokens included. */
  readonly decoded: string;
  /** Present where Hugging Face's tokenizer differs from llama.cpp's. */
  readonly hf?: unknown;
}

const read = (name: string) => Deno.readTextFile(fixture(`gguf-vocab/${name}`));

/** Registers a test of one vocabulary. */
export function testVocabulary(name: string, path = fixture(`gguf-vocab/${name}.gguf`)): void {
  Deno.test(`loadTokenizer() encodes and decodes as llama.cpp with ${name}.gguf`, async () => {
    const tokenizer = await loadTokenizer(path);
    const texts = (await read(`${name}.inp`)).split("\n__ggml_vocab_test__\n");
    const lines = (await read(`${name}.out`)).split("\n");
    for (const [i, text] of texts.entries()) {
      const expected = [...lines[i].matchAll(/\d+/g)].map(Number);
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), expected, text);
    }
    const { cases } = readJson<{ cases: VocabularyCase[] }>(`gguf-vocab/${name}.extra.json`);
    for (const { text, ids, ids_no_special, decoded, hf } of cases) {
      if (hf !== undefined) continue;
      assert.deepEqual(tokenizer.encode(text), ids, text);
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids_no_special, text);
      assert.equal(tokenizer.decode(ids_no_special, { skipSpecialTokens: false }), decoded);
      const stream = tokenizer.stream({ skipSpecialTokens: false });
      assert.equal(ids_no_special.map((id) => stream.push(id)).join("") + stream.flush(), decoded);
    }
  });
}

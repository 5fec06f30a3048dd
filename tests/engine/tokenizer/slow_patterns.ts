/**
 * Tokenizers whose patterns do not end, and the error of the time limit, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { CHAT_TOKENIZER } from "../../chat_model.ts";

type Json = Record<string, unknown>;

/** Takes time 2ⁿ for n letters that no x follows. */
export const SLOW = { Regex: "(a+)+x" };
/** 2⁶⁰ steps: years. */
export const LETTERS = "a".repeat(60);

export const NEVER = "it does not come to an end within 3 seconds";

/** The chat model's tokenizer with other steps and additional tokens. */
export function tokenizerOf(steps: Json, ...tokens: readonly string[]): Json {
  const vocab: Json = { ...CHAT_TOKENIZER.model.vocab };
  for (const token of tokens) vocab[token] = Object.keys(vocab).length;
  return { ...CHAT_TOKENIZER, ...steps, model: { ...CHAT_TOKENIZER.model, vocab } };
}

/** Asserts that work ends with the error of the time limit. */
export function assertEnds(work: () => unknown, verb: string): void {
  const error = new CheckpointError(`Cannot ${verb} with the given tokenizer: ${NEVER}`);
  assert.throws(work, error);
}

/** Registers a test of `encode()` with an endless pattern in one step. */
export function testEncode(step: string, value: unknown): void {
  Deno.test(`encode() throws when the ${step}'s pattern exceeds the time limit`, async () => {
    const tokenizer = await loadTokenizer(tokenizerOf({ [step]: value }));
    assertEnds(() => tokenizer.encode(LETTERS), "encode");
    assert.equal(tokenizer.encode("a").length, 1);
  });
}

/** Registers a test of `decode()` or of a stream with an endless pattern in the decoder. */
export function testDecode(method: "decode" | "stream"): void {
  Deno.test(`${method}() throws when the decoder's pattern exceeds the time limit`, async () => {
    const decoder = { type: "Replace", pattern: SLOW, content: "" };
    const tokenizer = await loadTokenizer(tokenizerOf({ decoder }, LETTERS));
    const [a] = tokenizer.encode("a");
    const id = tokenizer.vocabSize - 1;
    const stream = tokenizer.stream();
    assert.equal(stream.push(a), "a");
    assertEnds(
      method === "decode" ? () => tokenizer.decode([a, id]) : () => stream.push(id),
      "decode",
    );
    assert.equal(tokenizer.decode([a]), "a");
  });
}

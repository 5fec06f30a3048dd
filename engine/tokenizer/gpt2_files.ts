/**
 * The two files of GPT-2's own tokenizer, which older repositories have in place of a
 * tokenizer.json: the vocabulary and its merges.
 *
 * @module
 */
import { show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/**
 * The classes of transformers that read the two files as GPT-2's does. Others split
 * words by rules of their own.
 */
const CLASSES = /^(GPT2|CodeGen)Tokenizer(Fast)?$/;

/** GPT-2's only special token, where the configuration names none. */
const END_OF_TEXT = "<|endoftext|>";

/**
 * The two files as a parsed tokenizer.json.
 * @param vocab vocab.json: token to id.
 * @param merges merges.txt: two tokens a line, after a line with the version.
 * @param config tokenizer_config.json; it may be empty.
 * @returns the record, or what about the class of the tokenizer is not read.
 */
export function fromGpt2Files(vocab: Json, merges: string, config: Json): Json | string {
  const { tokenizer_class: name = "GPT2Tokenizer" } = config;
  if (typeof name !== "string" || !CLASSES.test(name)) {
    return `a tokenizer of class ${show(name)} without a tokenizer.json`;
  }
  const lines = merges.split(/\r?\n/).filter((line, i) =>
    line !== "" && !(i === 0 && line.startsWith("#version"))
  );
  const byteLevel = { type: "ByteLevel", add_prefix_space: config.add_prefix_space === true };
  return {
    pre_tokenizer: byteLevel,
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: lines },
  };
}

/** The configuration with GPT-2's special tokens where it names none. */
export function withGpt2SpecialTokens(config: Json): Json {
  const filled = { ...config };
  for (const name of ["bos_token", "eos_token", "unk_token"]) {
    if (filled[name] === undefined) filled[name] = END_OF_TEXT;
  }
  return filled;
}

/**
 * GPT-2's tokenizer files, vocab.json and merges.txt, converted to a tokenizer.json. Older
 * repositories contain only these two.
 *
 * @module
 */
import { show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/**
 * Classes of transformers that interpret the two files as GPT-2's does. Other classes split text
 * into words differently.
 */
const CLASSES = /^(GPT2|CodeGen)Tokenizer(Fast)?$/;

/** GPT-2's only special token, the default if the configuration names none. */
const END_OF_TEXT = "<|endoftext|>";

/**
 * Converts the two files to a parsed tokenizer.json.
 * @param vocab vocab.json: token to id.
 * @param merges merges.txt: two tokens per line, after a line with the version.
 * @param config tokenizer_config.json; may be empty.
 * @returns the tokenizer.json, or a description of the unsupported tokenizer class.
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

/** Adds GPT-2's special tokens to a configuration that names none. */
export function withGpt2SpecialTokens(config: Json): Json {
  const filled = { ...config };
  for (const name of ["bos_token", "eos_token", "unk_token"]) {
    if (filled[name] === undefined) filled[name] = END_OF_TEXT;
  }
  return filled;
}

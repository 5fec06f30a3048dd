/**
 * Tokenizer of a GGUF file: its metadata, converted to a tokenizer.json.
 *
 *     tokenizer.ggml.model   gpt2, gemma4   BPE by a list of merges
 *                            llama          BPE by scores (SentencePiece), with byte fallback
 *                            t5             Unigram
 *     tokenizer.ggml.pre     name of the patterns that split a text first (gguf_patterns.ts)
 *
 * Defaults of absent keys are those of llama.cpp.
 *
 * @module
 */
import type { Metadata } from "../checkpoint/gguf/metadata.ts";
import { CheckpointError } from "../errors.ts";
import { PRE_TOKENIZERS, type PreTokenizer } from "./gguf_patterns.ts";
import { type Fail, show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/** Types of tokens in `tokenizer.ggml.token_type`. */
const [UNKNOWN, CONTROL, USER_DEFINED] = [2, 3, 4];

/** SentencePiece's character for a space. */
const SPACE = "▁";

/** A converted tokenizer: tokenizer.json and tokenizer_config.json. */
export interface ConvertedTokenizer {
  readonly file: Json;
  readonly config: Json;
}

/** The vocabulary of the metadata. */
interface Tokens {
  /** Text of each id. */
  readonly texts: readonly string[];
  /** Type of each id; null if every token is normal. */
  readonly types: readonly number[] | null;
  /** Score of each id. */
  readonly scores: readonly number[];
}

/**
 * Converts the tokenizer of a GGUF file.
 * @param where name of the file in errors.
 * @returns the converted files, or a sentence on why there is no tokenizer.
 * @throws {CheckpointError} If the metadata is damaged.
 */
export function fromGguf(metadata: Metadata, where: string): ConvertedTokenizer | string {
  const fail: Fail = (expected) => {
    throw new CheckpointError(`Cannot read the tokenizer of ${where}: expected ${expected}`);
  };
  const model = metadata["tokenizer.ggml.model"];
  if (model === undefined || model === "none" || model === "no_vocab") {
    return `${where} has no tokenizer`;
  }
  const convert = typeof model === "string" ? CONVERTERS.get(model) : undefined;
  if (!convert) return `This version does not read the tokenizer ${show(model)} of ${where}`;
  const name = metadata["tokenizer.ggml.pre"] ?? "default";
  const pre = PRE_TOKENIZERS.get(model === "gemma4" ? model : String(name));
  if (convert === bpe && !pre) {
    return `This version does not know the pre-tokenizer ${show(name)} of ${where}`;
  }
  const tokens = readTokens(metadata, fail);
  const { adds, ...file } = convert({ metadata, tokens, pre: pre!, fail });
  return {
    file: { ...file, added_tokens: addedTokens(metadata, tokens) },
    config: { ...specialTokens(metadata, tokens, adds, fail), ...chatTemplate(metadata) },
  };
}

/** Input of a converter. */
interface Parts {
  readonly metadata: Metadata;
  readonly tokens: Tokens;
  readonly pre: PreTokenizer;
  readonly fail: Fail;
}

/** A tokenizer.json without added tokens, and whether BOS and EOS are added by default. */
type Converted = Json & { readonly adds: { readonly bos: boolean; readonly eos: boolean } };

/** BPE by a list of merges, over GPT-2's characters for bytes or over text. */
function bpe({ metadata, tokens, pre, fail }: Parts): Converted {
  const { patterns, ignoresMerges = false, addsBos = false, isText = false } = pre;
  const texts = textsOf(metadata, "tokenizer.ggml.merges", fail);
  const ends = texts.map((merge) => merge.indexOf(" ", 1)); // a token of Gemma 4 may begin with one
  const single = ends.findIndex((at) => at < 0);
  if (single >= 0) fail(`merges of two tokens, got ${show(texts[single])}`);
  const merges = isText
    ? texts.map((merge, i) => [merge.slice(0, ends[i]), merge.slice(ends[i] + 1)])
    : texts;
  const splits = patterns.map((Regex) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
  return {
    adds: { bos: addsBos, eos: false },
    normalizer: isText ? replaceSpaces() : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: isText ? splits : [...splits, byteLevel] },
    decoder: isText ? textDecoder(false) : byteLevel,
    model: {
      type: "BPE",
      vocab: idsOf(tokens.texts),
      merges,
      ignore_merges: ignoresMerges,
      byte_fallback: isText,
    },
  };
}

/**
 * SentencePiece's BPE. Method: of all adjacent tokens that together are a token, join the two whose
 * result has the highest score, the leftmost first.
 */
function sentencePiece({ metadata, tokens, fail }: Parts): Converted {
  const { texts, scores, types } = tokens;
  if (!("tokenizer.ggml.scores" in metadata)) fail("tokenizer.ggml.scores");
  const vocab = idsOf(texts);
  const ranked = texts.map((_, id) => id).sort((a, b) => scores[b] - scores[a]);
  const merges: [string, string][] = [];
  const ranks: number[] = [];
  for (const [rank, id] of ranked.entries()) {
    const text = texts[id];
    // Equal scores are equal in rank.
    const same = rank > 0 && scores[ranked[rank - 1]] === scores[id];
    const shared = same ? ranks.at(-1) ?? rank : rank;
    for (let at = 1; at < text.length; at++) {
      if (isLowSurrogate(text, at)) continue;
      const [left, right] = [text.slice(0, at), text.slice(at)];
      if (vocab.has(left) && vocab.has(right)) merges.push([left, right]), ranks.push(shared);
    }
  }
  const unknown = types?.indexOf(UNKNOWN) ?? -1;
  const prefixes = flagOf(metadata, "add_space_prefix", true, fail);
  return {
    adds: { bos: true, eos: false },
    normalizer: prefixes
      ? {
        type: "Sequence",
        normalizers: [{ type: "Prepend", prepend: SPACE }, replaceSpaces()],
      }
      : replaceSpaces(),
    pre_tokenizer: null,
    decoder: textDecoder(prefixes),
    model: {
      type: "BPE",
      vocab,
      merges,
      ranks,
      byte_fallback: true,
      fuse_unk: true,
      unk_token: unknown < 0 ? null : texts[unknown],
    },
  };
}

/** T5's Unigram. */
function unigram({ metadata, tokens, fail }: Parts): Converted {
  const { texts, scores, types } = tokens;
  if (!("tokenizer.ggml.scores" in metadata)) fail("tokenizer.ggml.scores");
  const unknown = specialId(metadata, "unknown", fail) ?? types?.indexOf(UNKNOWN) ?? -1;
  const charsmap = metadata["tokenizer.ggml.precompiled_charsmap"];
  const shrinks = flagOf(metadata, "remove_extra_whitespaces", false, fail);
  const prefixes = flagOf(metadata, "add_space_prefix", true, fail);
  const metaspace = {
    type: "Metaspace",
    replacement: SPACE,
    prepend_scheme: prefixes ? "always" : "never",
  };
  return {
    adds: { bos: false, eos: true },
    normalizer: {
      type: "Sequence",
      normalizers: [
        // The library applies rules of its own in place of the map.
        ...charsmap === undefined ? [] : [{ type: "Precompiled", precompiled_charsmap: "" }],
        ...shrinks
          ? [
            { type: "Strip", strip_left: true, strip_right: true },
            { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
          ]
          : [],
      ],
    },
    pre_tokenizer: metaspace,
    decoder: metaspace,
    model: {
      type: "Unigram",
      vocab: texts.map((text, id) => [text, scores[id]]),
      unk_id: unknown >= 0 ? unknown : null,
      byte_fallback: texts.includes("<0x00>"),
    },
  };
}

const CONVERTERS: ReadonlyMap<string, (parts: Parts) => Converted> = new Map([
  ["gpt2", bpe],
  ["gemma4", bpe],
  ["llama", sentencePiece],
  ["t5", unigram],
]);

const isLowSurrogate = (text: string, at: number): boolean =>
  (text.charCodeAt(at) & 0xfc00) === 0xdc00;

const replaceSpaces = (): Json => ({
  type: "Replace",
  pattern: { String: " " },
  content: SPACE,
});

/** Decoder of tokens that are text; the first space of a text is no part of it if one was put. */
function textDecoder(prefixes: boolean): Json {
  return {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: SPACE }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      ...prefixes ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [],
    ],
  };
}

/** Token to id. A map, since an object of 128,000 keys takes 70 ms more. */
function idsOf(texts: readonly string[]): Map<string, number> {
  const ids = new Map<string, number>();
  texts.forEach((text, id) => ids.set(text, id));
  return ids;
}

function readTokens(metadata: Metadata, fail: Fail): Tokens {
  const texts = textsOf(metadata, "tokenizer.ggml.tokens", fail);
  const numbers = (key: string): readonly number[] | null => {
    const list = metadata[`tokenizer.ggml.${key}`];
    if (list === undefined) return null;
    const isList = Array.isArray(list) && list.length >= texts.length &&
      list.every((n) => typeof n === "number" && !Number.isNaN(n));
    return isList ? list as readonly number[] : fail(
      `tokenizer.ggml.${key} to have a number for each of ${texts.length} tokens`,
    );
  };
  return {
    texts: texts.map((text, id) => text || `[EMPTY_${id}]`),
    types: numbers("token_type"),
    scores: numbers("scores") ?? new Array(texts.length).fill(0),
  };
}

function textsOf(metadata: Metadata, key: string, fail: Fail): readonly string[] {
  const list = metadata[key];
  const isList = Array.isArray(list) && list.every((text) => typeof text === "string");
  return isList ? list as readonly string[] : fail(`${key} to be a list of texts`);
}

/** Tokens of Phi 3 that leave the white space after them. */
const PHI3_KEEPS_SPACE = ["<unk>", "<s>", "<|endoftext|>"];

/** Tokens that are found in a text before it is split. */
function addedTokens(metadata: Metadata, { texts, types }: Tokens): Json[] {
  // The format has no flags of tokens, so Phi 3's follow from the model's name.
  const isPhi3 = /phi-?3/i.test(String(metadata["general.name"] ?? ""));
  return texts.flatMap((content, id) => {
    const type = types?.[id];
    if (type !== CONTROL && type !== USER_DEFINED && type !== UNKNOWN) return [];
    const rstrip = isPhi3 && !PHI3_KEEPS_SPACE.includes(content);
    return [{ id, content, special: type !== USER_DEFINED, normalized: false, rstrip }];
  });
}

/** Keys of special tokens in tokenizer_config.json and in the metadata. */
const SPECIAL = {
  bos_token: "bos",
  eos_token: "eos",
  unk_token: "unknown",
  sep_token: "seperator", // the format's own spelling
  pad_token: "padding",
  mask_token: "mask",
};

/** The special tokens, and whether BOS and EOS are added. */
function specialTokens(
  metadata: Metadata,
  { texts }: Tokens,
  adds: Converted["adds"],
  fail: Fail,
): Json {
  const config: Json = {};
  for (const [name, key] of Object.entries(SPECIAL)) {
    const id = specialId(metadata, key, fail);
    // An id beyond the vocabulary means that there is none.
    if (id !== undefined && texts[id] !== undefined) config[name] = texts[id];
  }
  for (const name of ["bos", "eos"] as const) {
    config[`add_${name}_token`] = flagOf(metadata, `add_${name}_token`, adds[name], fail);
  }
  return config;
}

/** Id of a special token; undefined if the file has none. */
function specialId(metadata: Metadata, name: string, fail: Fail): number | undefined {
  const key = `tokenizer.ggml.${name}_token_id`;
  const id = metadata[key];
  if (id === undefined || Number.isInteger(id)) return id as number | undefined;
  return fail(`${key} to be an id, got ${show(id)}`);
}

/** A setting that is true or false. */
function flagOf(metadata: Metadata, name: string, otherwise: boolean, fail: Fail): boolean {
  const key = `tokenizer.ggml.${name}`;
  const { [key]: flag = otherwise } = metadata;
  return typeof flag === "boolean" ? flag : fail(`${key} to be true or false, got ${show(flag)}`);
}

/** The chat template, or the list of named ones. */
function chatTemplate(metadata: Metadata): Json {
  const key = "tokenizer.chat_template";
  const named = Object.entries(metadata).filter(([name]) => name.startsWith(`${key}.`))
    .map(([name, template]) => ({ name: name.slice(key.length + 1), template }));
  const template = metadata[key];
  if (!named.length) return template === undefined ? {} : { chat_template: template };
  const main = template === undefined ? [] : [{ name: "default", template }];
  return { chat_template: [...main, ...named] };
}

/**
 * Special tokens that a tokenizer_config.json names: tokens that are no text, such as those that
 * begin and end one. Written as text or as an object with a content, in this file or in an older
 * special_tokens_map.json.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { type Fail, show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/**
 * Special tokens that have a name of their own, which is also the name of a template's variable.
 */
const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/** Further special tokens: a list, or an object with names that a repository made up. */
const MORE = ["additional_special_tokens", "extra_special_tokens"];

/** The special tokens of a tokenizer. */
export interface SpecialTokens {
  /** By name. */
  readonly named: ReadonlyMap<string, string>;
  /** All of them as added tokens without ids, each content once. */
  readonly tokens: readonly Json[];
  /** What a chat template may name: texts, and the lists of those without a name. */
  readonly variables: Readonly<Json>;
}

/** What a special_tokens_map.json says, where the tokenizer_config.json is silent. */
export function fillSpecialTokens(config: Json, map: Json): Json {
  const filled = { ...config };
  for (const name of [...NAMES, ...MORE]) {
    if (map[name] != null) filled[name] ??= map[name];
  }
  return filled;
}

/** Reads the special tokens. */
export function readSpecialTokens(config: Json, fail: Fail): SpecialTokens {
  const named = new Map<string, string>();
  const tokens = new Map<string, Json>();
  const variables: Json = {};
  const read = (given: unknown): string => {
    const token = isRecord(given) ? given : { content: given };
    const { content } = token;
    if (typeof content !== "string") {
      return fail(`a special token of tokenizer_config.json to be text, got ${show(given)}`);
    }
    // Given as text, it is found in texts as they are given.
    if (!tokens.has(content)) tokens.set(content, { normalized: false, ...token, special: true });
    return content;
  };
  const name = (key: string, token: unknown) => {
    if (token == null) return;
    const content = read(token);
    named.set(key, content);
    variables[key] = content;
  };
  for (const key of NAMES) name(key, config[key]);
  for (const key of MORE) {
    const more = config[key] ?? [];
    if (Array.isArray(more)) variables[key] = more.map(read);
    else if (isRecord(more)) { for (const [own, token] of Object.entries(more)) name(own, token); }
    else fail(`${key} of tokenizer_config.json to be a list or an object, got ${show(more)}`);
  }
  return { named, tokens: [...tokens.values()], variables };
}

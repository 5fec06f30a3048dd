/**
 * Special tokens of tokenizer_config.json and the older special_tokens_map.json, such as BOS and
 * EOS. Each is a string or an object with a `content`.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { type Fail, show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/** Names of special tokens, in the configuration and as variables of a chat template. */
const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/** Keys of further special tokens: a list, or an object with names chosen by the repository. */
const MORE = ["additional_special_tokens", "extra_special_tokens"];

/** The special tokens of a tokenizer. */
export interface SpecialTokens {
  /** Name to content. */
  readonly named: ReadonlyMap<string, string>;
  /** All special tokens as added tokens without ids, each content once. */
  readonly tokens: readonly Json[];
  /** Variables of a chat template: contents by name, and the lists of unnamed tokens. */
  readonly variables: Readonly<Json>;
}

/** Fills special tokens missing in tokenizer_config.json from special_tokens_map.json. */
export function fillSpecialTokens(config: Json, map: Json): Json {
  const filled = { ...config };
  for (const name of [...NAMES, ...MORE]) {
    if (map[name] != null) filled[name] ??= map[name];
  }
  return filled;
}

/** Reads the special tokens of a tokenizer_config.json. */
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
    // A token written as a string is matched in the raw text, not in the normalized text.
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

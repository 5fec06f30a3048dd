/**
 * The marks that a tokenizer_config.json names: tokens that are no text, such as those that begin
 * and end one. Written as text or as an object with a content, in this file or in an older
 * special_tokens_map.json.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { type Fail, show } from "./vocabulary.ts";

type Json = Record<string, unknown>;

/** Marks that have a name of their own, which is also the name of a template's variable. */
const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/** Marks that have none: a list, or an object with names that a repository made up. */
const MORE = ["additional_special_tokens", "extra_special_tokens"];

/** The marks of a tokenizer. */
export interface Marks {
  /** By name. */
  readonly named: ReadonlyMap<string, string>;
  /** All of them as added tokens without ids, each content once. */
  readonly tokens: readonly Json[];
  /** What a chat template may name: texts, and the lists of those without a name. */
  readonly variables: Readonly<Json>;
}

/** What a special_tokens_map.json says, where the tokenizer_config.json is silent. */
export function fillMarks(config: Json, map: Json): Json {
  const filled = { ...config };
  for (const name of [...NAMES, ...MORE]) {
    if (map[name] != null) filled[name] ??= map[name];
  }
  return filled;
}

/** Reads the marks. */
export function readMarks(config: Json, fail: Fail): Marks {
  const named = new Map<string, string>();
  const tokens = new Map<string, Json>();
  const variables: Json = {};
  const read = (mark: unknown): string => {
    const token = isRecord(mark) ? mark : { content: mark };
    const { content } = token;
    if (typeof content !== "string") {
      return fail(`a mark of tokenizer_config.json to be text, got ${show(mark)}`);
    }
    // Where a mark is written as text, it is found in texts as they are given.
    if (!tokens.has(content)) tokens.set(content, { normalized: false, ...token, special: true });
    return content;
  };
  const name = (key: string, mark: unknown) => {
    if (mark == null) return;
    const content = read(mark);
    named.set(key, content);
    variables[key] = content;
  };
  for (const key of NAMES) name(key, config[key]);
  for (const key of MORE) {
    const marks = config[key] ?? [];
    if (Array.isArray(marks)) variables[key] = marks.map(read);
    else if (isRecord(marks)) { for (const [own, mark] of Object.entries(marks)) name(own, mark); }
    else fail(`${key} of tokenizer_config.json to be a list or an object, got ${show(marks)}`);
  }
  return { named, tokens: [...tokens.values()], variables };
}

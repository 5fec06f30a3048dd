/**
 * Vocabulary of a tokenizer.json: tokens and ids, merges, added tokens. This module validates all
 * of it, so that the other modules need no checks.
 *
 * @module
 */
import { isRecord } from "../json.ts";

/** Throws a `CheckpointError` that names the file and the expected content. */
export type Fail = (expected: string) => never;

/** An unsupported part of a tokenizer.json. It is no failure: the model still works with ids. */
export class Unsupported extends Error {}

/** A token that is matched in the text before the model encodes the rest. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Control token, such as EOS; decode() can leave it out. */
  readonly special: boolean;
  /** Matched in the normalized text, not in the raw text. */
  readonly normalized: boolean;
  /** Matched only without a letter, digit or underscore on either side. */
  readonly singleWord: boolean;
  /** The match includes the white space before it. */
  readonly lstrip: boolean;
  /** The match includes the white space after it. */
  readonly rstrip: boolean;
}

/** Tokens and ids of the model, and added tokens. */
export interface Vocabulary {
  /** Model for the library, with each merge as a pair. */
  readonly model: Model;
  readonly added: readonly AddedToken[];
  /** Token to id. */
  readonly ids: ReadonlyMap<string, number>;
  /** Id to token; two ids may share a content. */
  readonly tokens: ReadonlyMap<number, string>;
  /** Highest id + 1. */
  readonly size: number;
}

/** The `model` of a tokenizer.json: an algorithm with its vocabulary and merges. */
export type Model = Record<string, unknown> & {
  readonly type: ModelType;
  merges?: readonly (readonly string[])[];
  /** Precedence of each merge, if it is not their order; a tokenizer.json has none. */
  readonly ranks?: readonly number[];
};

/** Supported algorithms. */
export type ModelType = "BPE" | "Unigram" | "WordPiece" | "WordLevel";

/** Upper bound of ids: far above any vocabulary, and a table of this size still fits memory. */
const MAX_IDS = 2 ** 24;

/** Name of the algorithm; inferred from the lists for older files, which omit it. */
export function modelType(model: Record<string, unknown>): unknown {
  if (model.type !== undefined) return model.type;
  return Array.isArray(model.vocab) ? "Unigram" : model.merges ? "BPE" : "WordPiece";
}

/** Whether an algorithm is supported. */
export function isModelType(type: unknown): type is ModelType {
  return type === "BPE" || type === "Unigram" || type === "WordPiece" || type === "WordLevel";
}

/**
 * Reads the vocabulary of a tokenizer.json.
 * @param file parsed tokenizer.json; its `model` is an object.
 * @param type algorithm of the model.
 * @param decoder `added_tokens_decoder` of a tokenizer_config.json: further added tokens by id.
 * @param special special tokens of a tokenizer_config.json, without ids; matched in text like
 *   added tokens.
 */
export function readVocabulary(
  file: Record<string, unknown>,
  type: ModelType,
  decoder: unknown,
  special: readonly Record<string, unknown>[],
  fail: Fail,
): Vocabulary {
  const { merges, ...rest } = file.model as Record<string, unknown>;
  const model: Model = { ...rest, type };
  const ids = type === "Unigram" ? pieceIds(model.vocab, fail) : vocabIds(model.vocab, fail);
  if (ids.size === 0) fail("a vocabulary with tokens");
  if (type === "BPE") model.merges = readMerges(merges, ids, fail);
  checkModel(model, ids, fail);
  // A special token outside the vocabulary would get a new id, for which the model's embedding has
  // no row. It is encoded as plain text.
  const known = special.map((token) => ({ ...token, id: ids.get(token.content as string) }))
    .filter(({ id }) => id !== undefined);
  const added = readAdded(file.added_tokens ?? [], decoder ?? {}, known, fail);
  const tokens = new Map<number, string>();
  let size = 0;
  for (const [token, id] of ids) tokens.set(id, token);
  for (const { content, id } of added) {
    ids.set(content, id);
    tokens.set(id, content);
  }
  for (const id of tokens.keys()) size = Math.max(size, id + 1);
  return { model, added, ids, tokens, size };
}

/** Whether a value can be an id. */
export function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;
}

/** Whether a value is text without lone surrogates, which UTF-8 cannot represent. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed();
}

/** Vocabulary of BPE, WordPiece and WordLevel: an object, token to id. */
function vocabIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!isRecord(vocab)) return fail("model.vocab to be an object");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isText(token)) fail(`tokens without lone surrogates, got ${JSON.stringify(token)}`);
    if (!isId(id)) {
      return fail(`an id below ${MAX_IDS} for ${JSON.stringify(token)}, got ${show(id)}`);
    }
    ids.set(token, id);
  }
  return ids;
}

/** Vocabulary of Unigram: a list of [token, score]; the id is the index. */
function pieceIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!Array.isArray(vocab) || vocab.length > MAX_IDS) {
    return fail(`model.vocab to be a list of at most ${MAX_IDS} tokens with scores`);
  }
  const ids = new Map<string, number>();
  for (const [id, piece] of (vocab as readonly unknown[]).entries()) {
    const isPiece = Array.isArray(piece) && isText(piece[0]) && Number.isFinite(piece[1]);
    if (!isPiece) {
      return fail(`entry ${id} of model.vocab to be a token and its score, got ${show(piece)}`);
    }
    ids.set(piece[0], id);
  }
  return ids;
}

/** Merges as pairs, from pairs or from strings "left right". */
function readMerges(
  merges: unknown,
  ids: ReadonlyMap<string, number>,
  fail: Fail,
): (readonly string[])[] {
  if (!Array.isArray(merges)) return fail("model.merges to be a list");
  return (merges as readonly unknown[]).map((merge, i) => {
    const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    const isPair = Array.isArray(parts) && parts.length === 2 &&
      parts.every((part) => typeof part === "string");
    if (!isPair) return fail(`merge ${i} to be two tokens, got ${show(merge)}`);
    for (const token of [...parts, parts.join("")] as string[]) {
      if (!ids.has(token)) {
        fail(`merge ${i} to join two tokens to a third, got unknown ${show(token)}`);
      }
    }
    return parts as readonly string[];
  });
}

/** Checks the options of the algorithm. */
function checkModel(
  model: Model,
  ids: ReadonlyMap<string, number>,
  fail: Fail,
): void {
  const { type, unk_token: unknown, unk_id: unknownId } = model;
  for (const name of ["unk_token", "end_of_word_suffix", "continuing_subword_prefix"]) {
    const value = model[name];
    if (value != null && !isText(value)) fail(`model.${name} to be text, got ${show(value)}`);
  }
  if (unknown != null && type !== "WordLevel" && !ids.has(unknown as string)) {
    fail(`model.unk_token to be a token, got ${show(unknown)}`);
  }
  const { ranks, merges } = model;
  if (ranks !== undefined && !(Array.isArray(ranks) && ranks.length === merges?.length)) {
    fail("model.ranks to have a number for each merge");
  }
  if (ranks?.some((rank) => !isId(rank))) fail(`ranks of merges below ${MAX_IDS}`);
  if (type === "BPE" && model.continuing_subword_prefix) {
    throw new Unsupported("a BPE with continuing_subword_prefix");
  }
  if (type === "Unigram" && unknownId != null && !(isId(unknownId) && unknownId < ids.size)) {
    fail(`model.unk_id to be an id, got ${show(unknownId)}`);
  }
  if (type === "WordPiece") {
    if (unknown == null) fail("model.unk_token of a WordPiece");
    model.continuing_subword_prefix ??= "##";
    if (!isId(model.max_input_chars_per_word ?? 0)) {
      fail("model.max_input_chars_per_word to be a number");
    }
  }
}

function readAdded(
  list: unknown,
  decoder: unknown,
  special: readonly unknown[],
  fail: Fail,
): AddedToken[] {
  if (!Array.isArray(list)) return fail("added_tokens to be a list");
  if (!isRecord(decoder)) return fail("added_tokens_decoder to be an object");
  const added = (list as readonly unknown[]).map((token) => readAddedToken(token, fail));
  const contents = new Set(added.map(({ content }) => content));
  const taken = new Set(added.map(({ id }) => id));
  const further = [
    ...Object.entries(decoder).map(([id, token]) =>
      isRecord(token) ? { ...token, id: Number(id) } : token
    ),
    ...special,
  ];
  for (const token of further) {
    const more = readAddedToken(token, fail);
    // Precedence of a token listed twice: tokenizer.json, the decoder, the special tokens.
    if (contents.has(more.content) || taken.has(more.id)) continue;
    contents.add(more.content);
    taken.add(more.id);
    added.push(more);
  }
  return added.filter(({ content }) => content !== "");
}

function readAddedToken(token: unknown, fail: Fail): AddedToken {
  if (!isRecord(token) || !isText(token.content)) {
    return fail(`added tokens with a content, got ${show(token)}`);
  }
  const { id, content } = token;
  if (!isId(id)) {
    return fail(`an id below ${MAX_IDS} for ${JSON.stringify(content)}, got ${show(id)}`);
  }
  const special = token.special === true;
  return {
    id,
    content,
    special,
    normalized: typeof token.normalized === "boolean" ? token.normalized : !special,
    singleWord: token.single_word === true,
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
  };
}

/** Formats a value for an error, in at most 60 characters. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57).toWellFormed()}…` : text;
}

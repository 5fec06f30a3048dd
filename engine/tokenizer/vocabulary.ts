/**
 * What a tokenizer.json lists: tokens and their ids, merges, added tokens. All of it is checked
 * here, so that what follows can rely on it.
 *
 * @module
 */
import { isRecord } from "../json.ts";

/** Throws: the file holds something else than what was expected. */
export type Fail = (expected: string) => never;

/** The file is of a kind that this version does not read: a model still works with ids. */
export class Unread extends Error {}

/** A token that is found in the text before anything else is done with it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Not text, such as the token that ends one. */
  readonly special: boolean;
  /** Found in the normalized text, not in the text as given. */
  readonly normalized: boolean;
  /** Only where no letter stands beside it. */
  readonly singleWord: boolean;
  /** Takes the white space before it. */
  readonly lstrip: boolean;
  /** Takes the white space after it. */
  readonly rstrip: boolean;
}

/** Tokens and ids, those of the model and the added ones. */
export interface Vocabulary {
  /** As the library takes it: the merges in pairs. */
  readonly model: Model;
  readonly added: readonly AddedToken[];
  readonly ids: ReadonlyMap<string, number>;
  readonly tokens: ReadonlyMap<number, string>;
  /** The highest id and one. */
  readonly size: number;
}

/** What a tokenizer.json calls its model: an algorithm and its lists. */
export type Model = Record<string, unknown> & {
  readonly type: ModelType;
  merges?: readonly (readonly string[])[];
};

/** The algorithms that are read. */
export type ModelType = "BPE" | "Unigram" | "WordPiece" | "WordLevel";

/** Ids end here: no vocabulary comes near, and a table of that size is still no harm. */
const MAX_IDS = 2 ** 24;

/** The algorithm's name; older files leave it to be guessed. */
export function modelType(model: Record<string, unknown>): unknown {
  if (model.type !== undefined) return model.type;
  return Array.isArray(model.vocab) ? "Unigram" : model.merges ? "BPE" : "WordPiece";
}

/** Whether an algorithm is read. */
export function isModelType(type: unknown): type is ModelType {
  return type === "BPE" || type === "Unigram" || type === "WordPiece" || type === "WordLevel";
}

/**
 * Reads the vocabulary.
 * @param decoder `added_tokens_decoder` of a tokenizer_config.json: further
 * added tokens by their ids.
 * @param special what a tokenizer_config.json calls special, without ids: each is found in
 * texts as an added token is.
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
  // A special token that the vocabulary lacks would get a new id, for which a model
  // has no row: it stays text.
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

/** Whether a value is text that can be written as UTF-8. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed();
}

/** BPE's and WordPiece's: an object, token to id. */
function vocabIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!isRecord(vocab)) return fail("model.vocab to be an object");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isText(token)) fail(`tokens of whole characters, got ${JSON.stringify(token)}`);
    if (!isId(id)) {
      return fail(`an id below ${MAX_IDS} for ${JSON.stringify(token)}, got ${show(id)}`);
    }
    ids.set(token, id);
  }
  return ids;
}

/** Unigram's: a list of tokens and scores, the id is the place. */
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

/** Pairs, from pairs or from texts with a space between. */
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
      if (!ids.has(token)) fail(`merge ${i} to join tokens to a token, got ${show(token)}`);
    }
    return parts as readonly string[];
  });
}

/** What the algorithms take beside their lists. */
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
  if (type === "BPE" && model.continuing_subword_prefix) {
    throw new Unread("a BPE with continuing_subword_prefix");
  }
  if (type === "Unigram" && unknownId != null && !(isId(unknownId) && unknownId < ids.size)) {
    fail(`model.unk_id to be an id, got ${show(unknownId)}`);
  }
  if (type === "WordPiece") {
    if (unknown == null) fail("WordPiece with an unk_token");
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
    // Where several list a token, tokenizer.json rules, then the decoder.
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

/** A value in a message; no more than a line can hold. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57).toWellFormed()}…` : text;
}

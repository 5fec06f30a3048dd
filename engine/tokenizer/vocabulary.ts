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
  /** Model for the library; of a BPE without tokens and merges, which are in `ids` and `merges`. */
  readonly model: Model;
  readonly added: readonly AddedToken[];
  /** Token to id, without the added tokens. */
  readonly ids: Map<string, number>;
  /** Content of each added token to its id. */
  readonly addedIds: ReadonlyMap<string, number>;
  /** Token of each id; two ids may share a content. The length is the highest id + 1. */
  readonly tokens: readonly (string | undefined)[];
  /** Merges of a BPE. */
  readonly merges: Merges;
}

/** Merges of a BPE, three ids each [3 · merges]: left token, right token, both joined. */
export type Merges = Int32Array;

/** Id of a token; undefined if there is none. */
export function idOf({ ids, addedIds }: Vocabulary, token: string): number | undefined {
  return addedIds.get(token) ?? ids.get(token);
}

/** The `model` of a tokenizer.json: an algorithm with its vocabulary and merges. */
export type Model = Record<string, unknown> & {
  readonly type: ModelType;
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
  const { merges: list, ...rest } = file.model as Record<string, unknown>;
  const model: Model = { ...rest, type };
  const ids = type === "Unigram" ? pieceIds(rest.vocab, fail) : vocabIds(rest.vocab, fail);
  if (ids.size === 0) fail("a vocabulary with tokens");
  const tokens: string[] = [];
  ids.forEach((id, token) => tokens[id] = token);
  const merges = type === "BPE" ? readMerges(list, { ids, tokens }, fail) : new Int32Array(0);
  if (type === "BPE") model.vocab = {};
  checkModel(model, ids, merges, fail);
  // A special token outside the vocabulary would get a new id, for which the model's embedding has
  // no row. It is encoded as plain text.
  const known = special.map((token) => ({ ...token, id: ids.get(token.content as string) }))
    .filter(({ id }) => id !== undefined);
  const added = readAdded(file.added_tokens ?? [], decoder ?? {}, known, fail);
  for (const { content, id } of added) tokens[id] = content;
  const addedIds = new Map(added.map(({ content, id }) => [content, id]));
  return { model, added, ids, addedIds, tokens, merges };
}

/** Whether a value can be an id. */
export function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;
}

/** Whether a value is text without lone surrogates, which UTF-8 cannot represent. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed();
}

/** Vocabulary of BPE, WordPiece and WordLevel: token to id, an object or (of a GGUF) a map. */
function vocabIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!isRecord(vocab)) return fail("model.vocab to be an object");
  const check = (token: string, id: unknown): number => {
    if (!isText(token)) fail(`tokens without lone surrogates, got ${JSON.stringify(token)}`);
    if (isId(id)) return id;
    return fail(`an id below ${MAX_IDS} for ${JSON.stringify(token)}, got ${show(id)}`);
  };
  if (vocab instanceof Map) {
    vocab.forEach((id, token) => check(token, id));
    return vocab;
  }
  const ids = new Map<string, number>();
  for (const token of Object.keys(vocab)) ids.set(token, check(token, vocab[token]));
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

/**
 * Reads merges from pairs of tokens, or from texts "left right". Loops count: an iterator takes 25
 * MiB of garbage for 49,000 merges and tokens.
 */
function readMerges(
  merges: unknown,
  { ids, tokens }: Pick<Vocabulary, "ids" | "tokens">,
  fail: Fail,
): Merges {
  if (!Array.isArray(merges)) return fail("model.merges to be a list");
  const found = new Int32Array(3 * merges.length);
  for (let i = 0; i < merges.length; i++) {
    const merge: unknown = merges[i];
    const known = (token: string): number =>
      ids.get(token) ??
        fail(`merge ${i} to join two tokens to a third, got unknown ${show(token)}`);
    const at = spaceOf(merge);
    if (at < 0 && !isPair(merge)) fail(`merge ${i} to be two tokens, got ${show(merge)}`);
    const left = at < 0 ? (merge as string[])[0] : (merge as string).slice(0, at);
    const right = at < 0 ? (merge as string[])[1] : (merge as string).slice(at + 1);
    found[3 * i] = known(left);
    found[3 * i + 1] = known(right);
    // Ids mostly follow the merges: a comparison is faster than joining and hashing a text.
    const next = i === 0 ? 0 : found[3 * i - 1] + 1;
    found[3 * i + 2] = isJoined(tokens[next], left, right) ? next : known(left + right);
  }
  return found;
}

/** Whether a token is two others, one after the other. */
function isJoined(token: string | undefined, left: string, right: string): boolean {
  return token?.length === left.length + right.length && token.startsWith(left) &&
    token.endsWith(right);
}

/** Index of a text's only space; -1 if it is no such text. */
function spaceOf(merge: unknown): number {
  if (typeof merge !== "string") return -1;
  const at = merge.indexOf(" ");
  return at >= 0 && merge.includes(" ", at + 1) ? -1 : at;
}

function isPair(merge: unknown): merge is [string, string] {
  return Array.isArray(merge) && merge.length === 2 &&
    typeof merge[0] === "string" && typeof merge[1] === "string";
}

/** Checks the options of the algorithm. */
function checkModel(
  model: Model,
  ids: ReadonlyMap<string, number>,
  merges: Merges,
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
  const { ranks } = model;
  if (ranks !== undefined && !(Array.isArray(ranks) && 3 * ranks.length === merges.length)) {
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
  // JSON has no bigint, of which a GGUF may have some.
  const text = JSON.stringify(value, (_, part) => typeof part === "bigint" ? String(part) : part) ??
    "nothing";
  return text.length > 60 ? `${text.slice(0, 57).toWellFormed()}…` : text;
}

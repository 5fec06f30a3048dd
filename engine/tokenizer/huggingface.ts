/**
 * Tokenizer from a Hugging Face tokenizer.json.
 *
 *     text ─▶ added tokens ─▶ normalizer ─▶ pre-tokenizer ─▶ model ─▶ post-processor ─▶ ids
 *             here            library       library          library  here
 *
 * The library is `@huggingface/tokenizers`. Added tokens, BPE merges, the post-processor and
 * decoding are implemented here, because the library is slow there or differs from Hugging Face's
 * tokenizers.
 *
 * @module
 */
import type { Tokenizer as Library } from "@huggingface/tokenizers";
import { isRecord } from "../json.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { AddedTokens } from "./added_tokens.ts";
import { ChatTemplate } from "./chat_template.ts";
import { withinDeadline } from "./deadline.ts";
import { readSpecialTokens, type SpecialTokens } from "./special_tokens.ts";
import { Merger } from "./merge.ts";
import { readBehavior, splitText } from "./split.ts";
import { rewriteNormalizer, rewritePreTokenizer } from "./rewrite.ts";
import { type NewLink, readDecoder } from "./decoder.ts";
import { readTemplate, type Template } from "./post_processor.ts";
import type {
  ChatMessage,
  ChatOptions,
  DecodeOptions,
  EncodeOptions,
  TextStream,
  Tokenizer,
} from "./tokenizer.ts";
import {
  type Fail,
  idOf,
  isModelType,
  modelType,
  readVocabulary,
  show,
  Unsupported,
} from "./vocabulary.ts";
import type { Vocabulary } from "./vocabulary.ts";

type Json = Record<string, unknown>;
type LibraryModule = typeof import("@huggingface/tokenizers");

/**
 * Creates a tokenizer from a parsed tokenizer.json.
 * @param file parsed tokenizer.json.
 * @param config tokenizer_config.json, with the chat template of chat_template.jinja; may be empty.
 * @param where name of the file in errors.
 * @returns the tokenizer, or a sentence that names the unsupported part.
 * @throws {CheckpointError} If the file is damaged.
 */
export async function huggingFaceTokenizer(
  file: Json,
  config: Json,
  where: string,
): Promise<Tokenizer | string> {
  const library = await import("@huggingface/tokenizers");
  const { chat_template: chatTemplate } = config;
  const fail: Fail = (expected) => {
    throw new CheckpointError(`Cannot read ${where}: expected ${expected}`);
  };
  try {
    const special = readSpecialTokens(config, fail);
    const chat = chatTemplate == null
      ? null
      : new ChatTemplate(chatTemplate, special.variables, where);
    return make(library, file, config, { where, special, chat }, fail);
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    const message = messageOf(error);
    const [, part, kind] = /^Unknown (\w+) type: (.*)$/.exec(message) ?? []; // from the library
    const unsupported = error instanceof Unsupported
      ? message
      : part && `a ${part.toLowerCase()} of type ${show(kind)}`;
    if (unsupported) return `Cannot read ${where}: this version does not read ${unsupported}`;
    throw new CheckpointError(`Cannot read ${where}: ${message}`);
  }
}

function make(
  from: LibraryModule,
  file: Json,
  config: Json,
  beside: { where: string; special: SpecialTokens; chat: ChatTemplate | null },
  fail: Fail,
): Tokenizer {
  const { where, special, chat } = beside;
  if (!isRecord(file.model)) return fail("model to be an object");
  const type = modelType(file.model);
  if (!isModelType(type)) throw new Unsupported(`a vocabulary of type ${show(type)}`);
  const vocabulary = readVocabulary(file, type, config.added_tokens_decoder, special.tokens, fail);
  const library = openLibrary(from, vocabulary, {
    normalizer: rewriteNormalizer(file.normalizer, fail),
    pre_tokenizer: rewritePreTokenizer(file.pre_tokenizer, fail),
  });
  const template = readTemplate(file.post_processor, vocabulary, fail);
  const [bosId, eosId] = ["bos_token", "eos_token"].map((name) =>
    idOf(vocabulary, special.named.get(name) ?? "") ?? null
  );
  const frame = { bosId, eosId, template: withSpecialTokens(template, config, bosId, eosId), chat };
  const startDecoding = readDecoder(file.decoder, fail);
  // The constructor normalizes the added tokens with untrusted patterns of the file.
  const size = vocabulary.added.reduce((sum, { content }) => sum + content.length, 0) +
    vocabulary.ids.size;
  return withinDeadline(
    size,
    () => new HuggingFaceTokenizer(where, library, vocabulary, startDecoding, frame),
  );
}

/** Adds to a pre-tokenizer the Split behaviors that the library lacks. */
function withSplits(
  library: LibraryModule,
  preTokenizer: InstanceType<LibraryModule["PreTokenizer"]> | null,
): void {
  if (preTokenizer instanceof library.SequencePreTokenizer) {
    for (const one of preTokenizer.tokenizers) withSplits(library, one);
  }
  if (!(preTokenizer instanceof library.SplitPreTokenizer)) return;
  const { config, pattern } = preTokenizer;
  const behavior = readBehavior(config.behavior);
  const isInverted = config.invert === true;
  // The library is correct for these two, and faster: it tracks no offsets.
  if (!pattern || !behavior || behavior === (isInverted ? "removed" : "isolated")) return;
  // Trick: replaces the library's split method, which has only the two behaviors above. Without it,
  // the other three split wrongly. Obsolete once the library has all five.
  preTokenizer.pre_tokenize_text = (text) => splitText(text, pattern, behavior, isInverted);
}

/** Opens the library's normalizer, pre-tokenizer and model, and replaces some methods. */
function openLibrary(
  from: LibraryModule,
  vocabulary: Vocabulary,
  steps: Json,
): Library {
  const { Tokenizer: Library, BPE, Unigram } = from;
  const isWordLevel = vocabulary.model.type === "WordLevel";
  const library = new Library({
    ...steps,
    model: { ...vocabulary.model, merges: [], ...(isWordLevel && { type: "WordPiece" }) },
    post_processor: null,
    decoder: null,
    added_tokens: [],
  }, {});
  withSplits(from, library.pre_tokenizer);
  const { model } = library;
  if (model instanceof BPE) {
    const { ids, merges, model: { ranks, unk_token: unknown } } = vocabulary;
    // The library would copy the vocabulary twice: 128,000 tokens take 0.1 s and 20 MiB.
    model.tokens_to_ids = ids;
    model.unk_token_id = ids.get(unknown as string);
    const merger = new Merger(merges, ids, model.end_of_word_suffix ?? "", ranks);
    // Trick: replaces the method that the model's encode() calls for each word. The library's
    // allocates an object per letter: 3.3 s for a word of 1 MB, `Merger` 0.5 s. Obsolete once the
    // library merges over arrays.
    model.bpe = (word) => merger.merge(word);
  } else if (model instanceof Unigram) {
    // Trick: replaces encode(). The library's spreads all tokens of a word as arguments of push(),
    // a RangeError ("Maximum call stack size exceeded") from about 150,000 tokens on.
    model.encode = (words) => words.flatMap((word) => model.tokenize(word));
  } else if (isWordLevel && model) {
    // Trick: the library has no WordLevel; a WordPiece that keeps each word whole is equivalent.
    model.encode = (words) => words;
  }
  return library;
}

/**
 * Adds BOS and EOS to the template if add_bos_token and add_eos_token are true. If false, the
 * special tokens of the template remain.
 */
function withSpecialTokens(
  { before, after }: Template,
  config: Json,
  bosId: number | null,
  eosId: number | null,
): Template {
  const adds = (name: string, id: number | null, among: readonly number[]): number[] =>
    config[name] === true && id !== null && !among.includes(id) ? [id] : [];
  return {
    before: [...adds("add_bos_token", bosId, before), ...before],
    after: [...after, ...adds("add_eos_token", eosId, after)],
  };
}

/** Special tokens and templates around a text or conversation. */
interface Frame {
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly template: Template;
  readonly chat: ChatTemplate | null;
}

class HuggingFaceTokenizer implements Tokenizer {
  readonly bosId: number | null;
  readonly vocabSize: number;
  readonly #eosId: number | null;
  #eosIds?: readonly number[];
  readonly #chat: ChatTemplate | null;
  readonly #template: Template;
  readonly #added: AddedTokens;
  /** Special tokens by content, because two ids may share one content. */
  readonly #special: ReadonlySet<string>;
  /**
   * Text before decoding of the ids where it is not their token: for an added token with
   * `normalized: true`, its normalized content, as in tokenizers 0.23.
   */
  readonly #texts: ReadonlyMap<number, string>;
  /** Id of the unknown token, for tokens outside the vocabulary. */
  readonly #unknownId: number | undefined;
  readonly #hasByteFallback: boolean;

  constructor(
    readonly where: string,
    readonly library: Library,
    readonly vocabulary: Vocabulary,
    readonly startDecoding: NewLink,
    { bosId, eosId, template, chat }: Frame,
  ) {
    const { model, added, tokens } = vocabulary;
    this.bosId = bosId;
    this.#eosId = eosId;
    this.#chat = chat;
    this.vocabSize = tokens.length;
    this.#template = template;
    const normalize = (text: string) => library.normalizer?.(text) ?? text;
    this.#added = new AddedTokens(added, normalize);
    this.#texts = new Map(
      added.filter(({ normalized }) => normalized).map(({ id, content }) => [
        id,
        normalize(content),
      ]),
    );
    this.#special = new Set(added.filter(({ special }) => special).map(({ content }) => content));
    this.#unknownId = library.model?.unk_token_id;
    this.#hasByteFallback = model.type === "Unigram" && model.byte_fallback === true;
  }

  /** The EOS token, and the token that ends an answer in the chat template if it differs. */
  get eosIds(): readonly number[] {
    return this.#eosIds ??= [...new Set([this.#eosId, this.#answerEndId()])].filter((id) =>
      id !== null
    );
  }

  #answerEndId(): number | null {
    const rest = this.#chat?.afterAnswer().slice(0, 200) ?? ""; // no special token is longer
    const [id] = rest === "" ? [] : this.encode(rest, { addSpecialTokens: false });
    const token = id === undefined ? undefined : this.vocabulary.tokens[id];
    return token !== undefined && this.#special.has(token) && rest.startsWith(token) ? id : null;
  }

  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): number[] {
    const ids = addSpecialTokens ? [...this.#template.before] : [];
    this.#named("encode", () =>
      withinDeadline(text.length, () => {
        // A lone surrogate becomes U+FFFD, as everywhere on the web.
        for (const piece of this.#added.split(text.toWellFormed())) {
          if (typeof piece === "number") ids.push(piece);
          else this.#encodePiece(piece.text, piece.isFirst, ids);
        }
      }));
    if (addSpecialTokens) ids.push(...this.#template.after);
    return ids;
  }

  decode(ids: readonly number[], { skipSpecialTokens = true }: DecodeOptions = {}): string {
    const tokens = ids.map((id) => this.#tokenOf(id, skipSpecialTokens));
    return this.#named("decode", () =>
      withinDeadline(ids.length, () => {
        const link = this.startDecoding();
        return tokens.flatMap((token) => token === null ? [] : link.push(token)).join("") +
          link.flush().join("");
      }));
  }

  stream({ skipSpecialTokens = true }: DecodeOptions = {}): TextStream {
    const link = this.startDecoding();
    return {
      push: (id) => {
        const token = this.#tokenOf(id, skipSpecialTokens);
        return token === null ? "" : this.#named("decode", () => link.push(token).join(""));
      },
      flush: () => this.#named("decode", () => link.flush().join("")),
    };
  }

  /**
   * Token of an id; null for a skipped special token and for an id without a token, such as a
   * padding row of the embedding.
   */
  #tokenOf(id: number, skipSpecialTokens: boolean): string | null {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw new RangeError(`Cannot decode ${id}: expected an integer of at least 0`);
    }
    const token = this.vocabulary.tokens[id];
    const isSkipped = token === undefined || skipSpecialTokens && this.#special.has(token);
    return isSkipped ? null : this.#texts.get(id) ?? token;
  }

  /** Runs work that applies the file's rules; its errors name the file. */
  #named<T>(verb: "encode" | "decode", work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new CheckpointError(`Cannot ${verb} with ${this.where}: ${messageOf(error)}`);
    }
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    if (this.#chat) return this.#chat.render(messages, options);
    throw new CheckpointError(`Cannot apply a chat template: ${this.where} comes without one`);
  }

  #encodePiece(text: string, isFirst: boolean, ids: number[]): void {
    const { pre_tokenizer: split, model } = this.library;
    const words = split?.(text, { section_index: isFirst ? 0 : 1 }) ?? [text];
    // One word at a time, because adjacent unknown tokens are merged within a word only.
    for (const word of words) {
      for (const token of model?.([word]) ?? []) this.#encodeToken(token, ids);
    }
  }

  #encodeToken(token: string, ids: number[]): void {
    const id = idOf(this.vocabulary, token);
    if (id !== undefined) ids.push(id);
    else {
      const bytes = this.#hasByteFallback ? this.#bytesOf(token) : [];
      if (bytes.length > 0) ids.push(...bytes);
      else if (this.#unknownId !== undefined) ids.push(this.#unknownId);
      else if (this.vocabulary.model.type === "WordLevel") {
        throw new Error(`expected a word of the vocabulary, got ${show(token)}`);
      }
    }
  }

  /** Ids of a token's UTF-8 bytes; empty if the vocabulary lacks one of them. */
  #bytesOf(token: string): number[] {
    const ids: number[] = [];
    for (const byte of new TextEncoder().encode(token)) {
      const name = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
      const id = idOf(this.vocabulary, name);
      if (id === undefined) return [];
      ids.push(id);
    }
    return ids;
  }
}

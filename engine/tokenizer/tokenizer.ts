/**
 * The tokenizer interface: text to ids and back, chat templates, and their options.
 *
 * @module
 */

/**
 * Converts text to ids and back.
 * @example
 * ```ts
 * import { loadTokenizer, type Tokenizer } from "@wgslm/wgslm";
 *
 * const tokenizer: Tokenizer = await loadTokenizer("bench/demo");
 * const ids = tokenizer.encode("ROMEO:");
 * console.log(ids.length, tokenizer.decode(ids)); // 6 ROMEO:
 * ```
 */
export interface Tokenizer {
  /** Number of ids, 0 … vocabSize − 1. The model's embedding may have more or fewer rows. */
  readonly vocabSize: number;
  /**
   * Converts text to ids.
   * @param text text to encode; a lone surrogate is encoded as U+FFFD by a tokenizer.json.
   * @param options whether to add special tokens.
   * @returns ids, one per token.
   * @throws {RangeError} If a character vocabulary lacks a character of the text.
   * @throws {CheckpointError} If a rule of the tokenizer.json fails on the text or exceeds its
   *   time limit.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Converts ids to text. An id without a token, such as a padding row of the embedding, decodes to
   * "" with a tokenizer.json (as in Hugging Face's tokenizers) and to U+FFFD with a character
   * vocabulary.
   * @param ids ids to decode.
   * @param options whether to leave out special tokens.
   * @returns the text.
   * @throws {RangeError} If an id is not an integer of at least 0.
   * @throws {CheckpointError} If a rule of the tokenizer.json fails on the ids or exceeds its time
   *   limit.
   */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /**
   * Starts decoding one id at a time. The joined pieces equal `decode()` of all ids.
   * @param options whether to leave out special tokens.
   * @returns a stream for one sequence of ids.
   */
  stream(options?: DecodeOptions): TextStream;
  /** Id of the token that begins a text (BOS), or null. */
  readonly bosId: number | null;
  /** Ids of the tokens that end a text (EOS) or a chat model's answer. */
  readonly eosIds: readonly number[];
  /**
   * Renders a conversation as the text format that the model was trained on.
   * @param messages the conversation, oldest message first.
   * @param options tools, documents and further variables of the template.
   * @returns the prompt text, special tokens included.
   * @throws {CheckpointError} If the tokenizer has no chat template, or the template is broken or
   *   rejects the conversation.
   * @throws {TypeError} If a message has no role or no content, or a variable is not plain data.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatOptions): string;
}

/** Options of `Tokenizer.encode()`. */
export interface EncodeOptions {
  /** Add the special tokens that the model expects before and after a text. Default true. */
  readonly addSpecialTokens?: boolean;
}

/** Options of `Tokenizer.decode()` and `Tokenizer.stream()`. */
export interface DecodeOptions {
  /** Leave out special tokens. Default true. */
  readonly skipSpecialTokens?: boolean;
}

/**
 * An incremental decoder that returns whole characters only.
 * @example
 * ```ts
 * import { loadTokenizer, type TextStream } from "@wgslm/wgslm";
 *
 * const tokenizer = await loadTokenizer({ type: "bpe", encoding_name: "gpt2" });
 * const stream: TextStream = tokenizer.stream();
 * let text = "";
 * for (const id of tokenizer.encode("Hello 🐑")) text += stream.push(id);
 * console.log(text + stream.flush()); // Hello 🐑
 * ```
 */
export interface TextStream {
  /**
   * Takes the next id.
   * @param id the id.
   * @returns the text that no later id can change; "" while a character is incomplete.
   * @throws {RangeError} If the id is not an integer of at least 0.
   * @throws {CheckpointError} If a rule of the tokenizer.json fails on the id.
   */
  push(id: number): string;
  /**
   * Ends the stream.
   * @returns the text held back until now.
   * @throws {CheckpointError} If a rule of the tokenizer.json fails on that text.
   */
  flush(): string;
}

/** One part of a message's content. */
export interface ContentPart {
  /** Kind of the part, such as "text". */
  readonly type: string;
  /** Text of a text part. */
  readonly text?: string;
  /** Further fields that the template reads. */
  readonly [field: string]: unknown;
}

/** One message of a conversation. */
export interface ChatMessage {
  /** Role as the template names it: system, user, assistant or tool. */
  readonly role: string;
  /**
   * Text or a list of parts. A message with other fields may omit it, such as an assistant message
   * with `tool_calls`.
   */
  readonly content?: string | readonly ContentPart[] | null;
  /** Further fields that the template reads, such as `tool_calls` or `reasoning_content`. */
  readonly [field: string]: unknown;
}

/** Options of `Tokenizer.applyChatTemplate()`: variables of the template. */
export interface ChatOptions {
  /** End the text with the header of the assistant's next message. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Functions that the model may call, as JSON schemas in OpenAI's format. */
  readonly tools?: readonly Readonly<Record<string, unknown>>[] | null;
  /** Documents for retrieval-augmented generation, each with a title and a text. */
  readonly documents?: readonly Readonly<Record<string, unknown>>[] | null;
  /** Any other variable of the template, such as `enable_thinking`; plain data. */
  readonly [variable: string]: unknown;
}

/**
 * Between text and ids, whatever the vocabulary's form.
 *
 * @module
 */

/** Turns text into ids and back. */
export interface Tokenizer {
  /** Number of ids: 0 … vocabSize − 1. A model may have more or fewer rows. */
  readonly vocabSize: number;
  /**
   * The ids of a text.
   * @throws {RangeError} when the vocabulary cannot spell it.
   * @throws {CheckpointError} when a tokenizer.json's own rules fail on it, or take for ever.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * The text of ids. An id without a token, as of a row that pads the embedding, is "" for a
   * tokenizer.json, as in Hugging Face's tokenizers, and U+FFFD for a character vocabulary.
   * @throws {RangeError} when an id is not an integer of at least 0.
   * @throws {CheckpointError} when a tokenizer.json's own rules fail on them, or take for ever.
   */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** Decodes an id at a time. */
  stream(options?: DecodeOptions): TextStream;
  /** The id that begins a text; null where there is none. */
  readonly bosId: number | null;
  /** The ids that end a text, or a chat model's answer. */
  readonly eosIds: readonly number[];
  /**
   * A conversation as the text that the model was trained on.
   * @throws {CheckpointError} when the tokenizer has no chat template, or the template is broken or
   *   refuses the conversation.
   * @throws {TypeError} when a message has no role or no content.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatOptions): string;
}

/** How a text is encoded. */
export interface EncodeOptions {
  /** Put the ids around it that the model expects. Default true. */
  readonly addSpecialTokens?: boolean;
}

/** How ids are decoded. */
export interface DecodeOptions {
  /** Leave out special tokens. Default true. */
  readonly skipSpecialTokens?: boolean;
}

/** Text that comes out whole characters at a time. */
export interface TextStream {
  /** Takes the next id; gives the text that is certain by now, never half a character. */
  push(id: number): string;
  /** The text that is left when no id follows. */
  flush(): string;
}

/** A part of a message's content. */
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
  /** As the template names it: system, user, assistant, tool. */
  readonly role: string;
  /**
   * Text or a list of parts; a message with other fields may lack it, as an assistant's with
   * `tool_calls`.
   */
  readonly content?: string | readonly ContentPart[] | null;
  /** Further fields that the template reads, such as `tool_calls` or `reasoning_content`. */
  readonly [field: string]: unknown;
}

/** How a conversation is rendered. */
export interface ChatOptions {
  /** End with the beginning of the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Functions that the model may call, as JSON schemas in OpenAI's form. */
  readonly tools?: readonly Readonly<Record<string, unknown>>[] | null;
  /** Documents for retrieval-augmented generation, with a title and a text. */
  readonly documents?: readonly Readonly<Record<string, unknown>>[] | null;
  /** Any other variable of the template, such as `enable_thinking`: plain data. */
  readonly [variable: string]: unknown;
}

/**
 * Chat encoding: messages → token ids, by the tokenizer's chat template.
 *
 *     messages   system · user 1                                        ids 1
 *                ─── template ──▶ [system][user 1]<assistant>
 *                                                            answer 1, drawn
 *     messages   system · user 1 · answer 1 · user 2                    ids 2
 *                ─── template ──▶ [system][user 1]<assistant>[answer 1]<end>[user 2]<assistant>
 *     cache      with reusePrompt "all":
 *                                 └──────────── kept ────────────────┘ └────── prefilled ─────┘
 *
 * The cache keeps the common beginning of ids 2 and of ids 1 with its answer. If a template
 * rewrites earlier turns, such as by removing their reasoning, prefill starts at the first
 * difference.
 *
 * @module
 */
import type { ChatMessage, ChatOptions, Tokenizer } from "./tokenizer/tokenizer.ts";

/**
 * Encodes a conversation up to the point where the assistant answers, for `generate`, `logits` or
 * a count of tokens.
 *
 * @param tokenizer one with a chat template, such as `model.tokenizer`.
 * @param messages the conversation, the oldest message first.
 * @param options options of the template.
 * @throws {CheckpointError} If the tokenizer has no chat template, or the template is broken or
 *   refuses the conversation.
 * @throws {TypeError} If a message has no role or no content.
 * @throws {RangeError} If the vocabulary cannot spell the text.
 * @example
 * ```ts
 * import { encodeChat, type Tokenizer } from "@wgslm/wgslm";
 *
 * export function countTokens(tokenizer: Tokenizer, question: string): number {
 *   return encodeChat(tokenizer, [{ role: "user", content: question }]).length;
 * }
 * ```
 */
export function encodeChat(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: ChatOptions = {},
): number[] {
  const text = tokenizer.applyChatTemplate(messages, options);
  // The template has already written the special tokens.
  return tokenizer.encode(text, { addSpecialTokens: false });
}

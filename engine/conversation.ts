/**
 * Conversations: from messages to the ids that a chat model was trained on.
 *
 *     messages   system · user 1                                        ids 1
 *                ─── template ──▶ [system][user 1]<assistant>
 *                                                            answer 1, drawn
 *     messages   system · user 1 · answer 1 · user 2                    ids 2
 *                ─── template ──▶ [system][user 1]<assistant>[answer 1]<end>[user 2]<assistant>
 *     cache      with reusePrompt "all":
 *                                 └──────────── kept ────────────────┘ └────── prefilled ─────┘
 *
 * The common beginning of ids 1 with its answer and ids 2 is kept. A template that rewrites earlier
 * turns, such as without their reasoning, is prefilled from its first difference on.
 *
 * @module
 */
import type { ChatMessage, ChatOptions, Tokenizer } from "./tokenizer/tokenizer.ts";

/**
 * The ids of a conversation up to where the assistant answers, for `generate`, `logits` or a count
 * of tokens.
 *
 * @param tokenizer one with a chat template, such as `model.tokenizer`.
 * @param messages the conversation, the oldest message first.
 * @throws {CheckpointError} when the tokenizer has no chat template, or the template is broken or
 *   refuses the conversation.
 * @throws {TypeError} when a message has no role or no content.
 * @throws {RangeError} when the vocabulary cannot spell the text.
 */
export function encodeChat(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: ChatOptions = {},
): number[] {
  const text = tokenizer.applyChatTemplate(messages, options);
  // A template writes the special tokens itself.
  return tokenizer.encode(text, { addSpecialTokens: false });
}

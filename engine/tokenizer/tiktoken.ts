/**
 * GPT-2's vocabulary, offline: from the ranks that tiktoken uses to the record that
 * Hugging Face's form holds.
 *
 * Ranks name the tokens in the order in which training made them. The merge that made a
 * token is found by encoding the token with the earlier merges alone: two parts are
 * left, and those were joined.
 *
 * @module
 */
import { BYTE_CHARACTERS } from "./byte_level.ts";

/** The special token between GPT-2's training texts. */
const END_OF_TEXT = "<|endoftext|>";

/**
 * GPT-2's tokenizer as a parsed tokenizer.json: 50,257 ids, of which the last is `<|endoftext|>`.
 */
export async function gpt2File(): Promise<Record<string, unknown>> {
  // Half a megabyte that most models never need: imported when it is asked for.
  const { default: encoder } = await import("js-tiktoken/ranks/gpt2");
  const ranks = readRanks(encoder.bpe_ranks);
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
  return {
    added_tokens: [{ id: ranks.size, content: END_OF_TEXT, special: true, normalized: false }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab: Object.fromEntries(ranks), merges: findMerges(ranks) },
  };
}

/** What stands beside it in `tokenizer_config.json`. */
export const GPT2_CONFIG = { bos_token: END_OF_TEXT, eos_token: END_OF_TEXT };

/**
 * Token to rank, in the order of ranks.
 * @param text lines of a mark, the rank of the first token, and tokens in base64.
 */
function readRanks(text: string): Map<string, number> {
  const ranks = new Map<string, number>();
  for (const line of text.split("\n")) {
    for (const token of line.split(" ").slice(2)) {
      ranks.set(
        atob(token).replace(/[^]/g, (byte) => BYTE_CHARACTERS[byte.charCodeAt(0)]),
        ranks.size,
      );
    }
  }
  return ranks;
}

/** The pair that each token of two bytes or more was made of. */
function findMerges(ranks: ReadonlyMap<string, number>): [string, string][] {
  const merges: [string, string][] = [];
  for (const token of ranks.keys()) {
    const parts = [...token];
    while (parts.length > 2) {
      let best = 0;
      let lowest = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(parts[i] + parts[i + 1]);
        if (rank !== undefined && rank < lowest) [best, lowest] = [i, rank];
      }
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
    if (parts.length === 2) merges.push([parts[0], parts[1]]);
  }
  return merges;
}

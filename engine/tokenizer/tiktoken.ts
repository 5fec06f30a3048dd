/**
 * GPT-2's tokenizer, built offline as a tokenizer.json from the ranks in the js-tiktoken package.
 *
 * A token's rank is its position in the order of training. Method: encode the token with only the
 * merges of lower rank; the two parts that remain are its merge.
 *
 * @module
 */
import { BYTE_CHARACTERS } from "./byte_level.ts";

/** The special token between GPT-2's training texts. */
const END_OF_TEXT = "<|endoftext|>";

/**
 * GPT-2's tokenizer as a parsed tokenizer.json: 50,257 ids; the last one is `<|endoftext|>`.
 */
export async function gpt2File(): Promise<Record<string, unknown>> {
  // Imported on demand: 0.5 MB that most models never need.
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

/** The matching tokenizer_config.json. */
export const GPT2_CONFIG = { bos_token: END_OF_TEXT, eos_token: END_OF_TEXT };

/**
 * Parses ranks: token to rank, in order.
 * @param text per line, separated by spaces: "!", the rank of the first token, tokens in base64.
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

/** The pair of parts of each token of at least two bytes. */
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

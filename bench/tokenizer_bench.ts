/**
 * Benches of GPT-2's tokenizer: prose, and long words that no rule splits.
 *
 * A bench takes one megabyte, so that 1 s is 1 MB/s.
 *
 * @module
 */
import { loadTokenizer } from "../engine/tokenizer/load.ts";

const MEGABYTE = 1_000_000;

const plain = await Deno.readTextFile(new URL("../README.md", import.meta.url));
const tokenizer = await loadTokenizer({ type: "bpe" });

/** Pseudo-random letters, the same on every machine. */
function letters(count: number): string {
  let state = 1;
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 0x7fffffff;
    return String.fromCharCode(97 + state % 26);
  }).join("");
}

const text = plain.repeat(Math.ceil(MEGABYTE / plain.length)).slice(0, MEGABYTE);
const ids = tokenizer.encode(text);

Deno.bench("load gpt2", async () => void await loadTokenizer({ type: "bpe" }));
Deno.bench("encode 1 MB of plain text", () => void tokenizer.encode(text));
Deno.bench(`decode its ${ids.length} ids`, () => void tokenizer.decode(ids));
// Time must grow linearly with the length.
for (const count of [MEGABYTE / 10, MEGABYTE]) {
  const words = { letter: "a".repeat(count), letters: letters(count), spaces: " ".repeat(count) };
  for (const [name, word] of Object.entries(words)) {
    Deno.bench(
      { name: `encode a word of ${count} bytes, ${name}`, n: 3, warmup: 0 },
      () => void tokenizer.encode(word),
    );
  }
}

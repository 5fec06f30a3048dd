/**
 * Chat model for tests: random weights, one id for each of 317 characters, and ChatML's special
 * tokens.
 *
 * @module
 */
import { inTempFolder } from "./safetensors.ts";
import { fixture } from "./testing.ts";

const SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/** One id per character, 320 ids in total as in tiny/llama; encode() inverts decode(). */
const CHARACTERS = [
  "\n",
  ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(0x20 + i)),
  ...Array.from({ length: 221 }, (_, i) => String.fromCharCode(0x4e00 + i)),
];

/** The tokenizer as a parsed tokenizer.json. */
export const CHAT_TOKENIZER = {
  added_tokens: SPECIAL_TOKENS.map((content, id) => ({ id, content, special: true })),
  decoder: { type: "Fuse" },
  model: {
    type: "BPE",
    vocab: Object.fromEntries([...SPECIAL_TOKENS, ...CHARACTERS].map((token, id) => [token, id])),
    merges: [],
  },
};

/** The ChatML template. */
export const CHAT_TEMPLATE =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" +
  "{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/**
 * Runs a test on a folder with tiny/llama and this tokenizer.
 * @param test the test; gets the folder.
 * @param config added to tokenizer_config.json.
 */
export async function withChatModel(
  test: (folder: string) => Promise<void>,
  config: Record<string, unknown> = {},
): Promise<void> {
  await inTempFolder(async (folder) => {
    for (const name of ["config.json", "generation_config.json", "model.safetensors"]) {
      await Deno.copyFile(fixture(`tiny/llama/${name}`), `${folder}/${name}`);
    }
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(CHAT_TOKENIZER));
    await Deno.writeTextFile(
      `${folder}/tokenizer_config.json`,
      JSON.stringify({ chat_template: CHAT_TEMPLATE, eos_token: "<|endoftext|>", ...config }),
    );
    await test(folder);
  });
}

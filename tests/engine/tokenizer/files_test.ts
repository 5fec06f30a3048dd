/**
 * Tokenizer files other than tokenizer.json: configuration, special tokens, and vocab.json with
 * merges.txt, in the formats of older and newer repositories.
 */
import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { findTokenizer, loadTokenizer } from "../../../engine/tokenizer/load.ts";
import type { Tokenizer } from "../../../engine/tokenizer/tokenizer.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

type Json = Record<string, unknown>;

/** Runs a test on a folder with these files; a value other than text is written as JSON. */
async function withFiles(
  files: Readonly<Record<string, unknown>>,
  test: (folder: string) => Promise<void>,
): Promise<void> {
  await inTempFolder(async (folder) => {
    for (const [name, value] of Object.entries(files)) {
      const text = typeof value === "string" ? value : JSON.stringify(value);
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    await test(folder);
  });
}

/** A tokenizer.json of GPT-2's kind, without added tokens. */
function byteBpe(): {
  pre_tokenizer: Json;
  decoder: Json;
  model: { vocab: Json; merges: string[] };
} {
  const { added_tokens: _, ...file } = readJson<Json>("tokenizers/byte-bpe/tokenizer.json");
  return file as ReturnType<typeof byteBpe>;
}

/** Letters, and two special tokens that only the configuration declares as such. */
const LETTERS = {
  decoder: { type: "Fuse" },
  model: {
    type: "BPE",
    vocab: { a: 0, b: 1, "<": 2, s: 3, ">": 4, "<s>": 5, "<b>": 6 },
    merges: [],
  },
};

const letters = async (config: Json, map?: Json): Promise<Tokenizer> => {
  let made: Tokenizer | undefined;
  const beside = map ? { "special_tokens_map.json": map } : {};
  await withFiles(
    { "tokenizer.json": LETTERS, "tokenizer_config.json": config, ...beside },
    async (folder) => void (made = await loadTokenizer(folder)),
  );
  return made!;
};

Deno.test("loadTokenizer() reads special tokens in every format of the configuration", async () => {
  assert.deepEqual((await letters({})).encode("<s>a"), [2, 3, 4, 0]);
  const spellings: readonly Json[] = [
    { bos_token: "<s>" },
    { unk_token: { __type: "AddedToken", content: "<s>", lstrip: false, normalized: true } },
    { pad_token: { content: "<s>" } },
    { additional_special_tokens: ["<s>"] },
    { additional_special_tokens: [{ content: "<s>" }] },
    { extra_special_tokens: ["<s>"] },
    { extra_special_tokens: { image_token: "<s>" } },
    { added_tokens_decoder: { "5": { content: "<s>", special: true } } },
  ];
  for (const config of spellings) {
    const tokenizer = await letters(config);
    assert.deepEqual(tokenizer.encode("<s>a"), [5, 0], JSON.stringify(config));
    assert.equal(tokenizer.decode([5, 0]), "a", JSON.stringify(config));
    assert.equal(tokenizer.vocabSize, 7);
  }
  const stripping = await letters({ bos_token: { content: "<s>", rstrip: true } });
  assert.deepEqual(stripping.encode("<s>  a"), [5, 0]);
});

Deno.test("loadTokenizer() fills special tokens from special_tokens_map.json", async () => {
  const map = { bos_token: "<b>", eos_token: { content: "<s>" } };
  const { bosId, eosIds } = await letters({ bos_token: "<s>", eos_token: null }, map);
  assert.deepEqual([bosId, eosIds], [5, [5]]);
});

Deno.test("loadTokenizer() ignores a special token when the vocabulary lacks it", async () => {
  const tokenizer = await letters({ pad_token: "[PAD]", additional_special_tokens: ["<none>"] });
  assert.equal(tokenizer.vocabSize, 7);
});

Deno.test("loadTokenizer() throws when a special token has no text", async () => {
  for (const config of [{ bos_token: 5 }, { extra_special_tokens: [{}] }, { pad_token: [] }]) {
    await assert.rejects(
      letters(config),
      /a special token of tokenizer_config\.json to be text, got/,
    );
  }
  for (const name of ["additional_special_tokens", "extra_special_tokens"]) {
    await assert.rejects(
      letters({ [name]: "<s>" }),
      new RegExp(`${name} of tokenizer_config\\.json to be a list or an object, got "<s>"`),
    );
  }
});

Deno.test("findTokenizer() reads vocab.json and merges.txt without a tokenizer.json", async () => {
  const { model: { vocab, merges }, ...steps } = byteBpe();
  const files = { "vocab.json": vocab, "merges.txt": `#version: 0.2\n${merges.join("\n")}\n` };
  const whole = await loadTokenizer({ ...steps, model: { type: "BPE", vocab, merges } });
  await withFiles(files, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    for (
      const { text } of readJson<{ cases: { text: string }[] }>("tokenizers/byte-bpe/golden.json")
        .cases
    ) {
      if (text.includes("<|endoftext|>")) continue;
      const ids = tokenizer.encode(text);
      assert.deepEqual(ids, whole.encode(text), text);
      assert.equal(tokenizer.decode(ids), text.toWellFormed());
    }
    // Default without a configuration: GPT-2's special token.
    const id = vocab["<|endoftext|>"];
    assert.deepEqual([tokenizer.bosId, tokenizer.eosIds], [id, [id]]);
    assert.deepEqual(tokenizer.encode("<|endoftext|>"), [id]);
    await assert.rejects(
      findTokenizer({ folder, kind: "char" }),
      new CheckpointError(
        `Cannot read "${folder}/vocab.json": expected a tokenizer of kind char, got "hf"`,
      ),
    );
  });
  const config = { bos_token: "!", add_bos_token: true, add_prefix_space: true, eos_token: null };
  await withFiles({ ...files, "tokenizer_config.json": config }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    assert.deepEqual(tokenizer.eosIds, []);
    assert.deepEqual(tokenizer.encode("the"), [vocab["!"], ...whole.encode(" the")]);
  });
});

Deno.test("findTokenizer() gives the reason when the tokenizer class is unsupported", async () => {
  const { model: { vocab, merges } } = byteBpe();
  const files = { "vocab.json": vocab, "merges.txt": merges.join("\r\n") };
  const config = { tokenizer_class: "Qwen2Tokenizer" };
  await withFiles({ ...files, "tokenizer_config.json": config }, async (folder) => {
    assert.equal(
      await findTokenizer({ folder }),
      `Cannot read "${folder}/vocab.json": this version does not read a tokenizer of class ` +
        `"Qwen2Tokenizer" without a tokenizer.json; ` +
        "name one with --meta FILE or --tokenizer bpe, or give ids with --ids",
    );
  });
  await withFiles({ ...files, "tokenizer_config.json": {} }, async (folder) => {
    assert.equal((await loadTokenizer(folder)).vocabSize, Object.keys(vocab).length);
  });
  await withFiles({ "tokenizer.model": "…", "vocab.json": vocab }, async (folder) => {
    assert.equal(
      await findTokenizer({ folder }),
      `"${folder}" has no tokenizer.json, and this version does not read its tokenizer.model ` +
        "(SentencePiece); convert it with transformers: " +
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder), " +
        "or name one with --meta FILE or --tokenizer bpe, or give ids with --ids",
    );
  });
});

Deno.test("findTokenizer() throws when a file next to tokenizer.json is damaged", async () => {
  const path = fixture("tokenizers/digits/tokenizer.json");
  const whole = { "tokenizer.json": Deno.readTextFileSync(path) };
  for (const name of ["tokenizer_config.json", "special_tokens_map.json"]) {
    await withFiles({ ...whole, [name]: "{" }, async (folder) => {
      await assert.rejects(findTokenizer({ folder }), CheckpointError);
    });
  }
  await withFiles(whole, async (folder) => {
    await Deno.writeFile(`${folder}/chat_template.jinja`, Uint8Array.of(0xff));
    await assert.rejects(
      findTokenizer({ folder }),
      /chat_template\.jinja": expected a chat template/,
    );
  });
  const { model: { vocab } } = byteBpe();
  await withFiles({ "vocab.json": vocab, "merges.txt": "a b c\n" }, async (folder) => {
    await assert.rejects(
      findTokenizer({ folder }),
      /vocab\.json": expected merge 0 to be two tokens/,
    );
  });
});

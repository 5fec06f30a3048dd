import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { findTokenizer, loadTokenizer } from "../../../engine/tokenizer/load.ts";
import type { Tokenizer } from "../../../engine/tokenizer/tokenizer.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

/** Format: tests/fixtures/tokenizers/README.md. */
interface Golden {
  readonly cases: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly ids_no_special: readonly number[];
    readonly decoded: string;
    readonly decoded_with_special: string;
  }[];
  readonly decode: readonly {
    readonly ids: readonly number[];
    readonly decoded: string;
    readonly decoded_with_special: string;
  }[];
  readonly stream: readonly {
    readonly ids: readonly number[];
    readonly skip_special_tokens: boolean;
    readonly pieces: readonly (string | null)[];
    readonly matches_decode: boolean;
  }[];
}

type Json = Record<string, unknown>;

/** Fixture name → vocabulary size, BOS id, EOS ids. */
const KINDS: Readonly<Record<string, readonly [number, number | null, readonly number[]]>> = {
  "byte-bpe": [871, 0, [0]],
  llama3: [933, 927, [931]],
  qwen2: [812, null, [807]],
  metaspace: [689, 1, [2]],
  "metaspace-v2": [788, 1, [2]],
  unigram: [877, null, [1]],
  wordpiece: [862, null, []],
  digits: [884, 1, [2]],
};

const NO_SPECIAL = { addSpecialTokens: false };
const WITH_SPECIAL = { skipSpecialTokens: false };

/** Decodes ids with a stream; asserts that no piece splits a character. */
function streamed(
  tokenizer: Tokenizer,
  ids: readonly number[],
  skipSpecialTokens: boolean,
): string {
  const stream = tokenizer.stream({ skipSpecialTokens });
  const pieces = ids.map((id) => stream.push(id));
  pieces.push(stream.flush());
  assert.ok(pieces.every((piece) => piece.isWellFormed()));
  return pieces.join("");
}

for (const [kind, [vocabSize, bosId, eosIds]] of Object.entries(KINDS)) {
  const golden = readJson<Golden>(`tokenizers/${kind}/golden.json`);
  const tokenizer = await loadTokenizer(fixture(`tokenizers/${kind}`));

  Deno.test(`loadTokenizer() reads vocabulary size, BOS and EOS when it is ${kind}`, () => {
    assert.equal(tokenizer.vocabSize, vocabSize);
    assert.equal(tokenizer.bosId, bosId);
    assert.deepEqual(tokenizer.eosIds, eosIds);
  });

  Deno.test(`encode() gives the ids of Hugging Face's tokenizers when it is ${kind}`, () => {
    for (const { text, ids, ids_no_special } of golden.cases) {
      assert.deepEqual(tokenizer.encode(text), ids, text);
      assert.deepEqual(tokenizer.encode(text, NO_SPECIAL), ids_no_special, text);
    }
  });

  Deno.test(`decode() gives the text of Hugging Face's tokenizers when it is ${kind}`, () => {
    for (const { ids, decoded, decoded_with_special } of [...golden.cases, ...golden.decode]) {
      assert.equal(tokenizer.decode(ids), decoded);
      assert.equal(tokenizer.decode(ids, WITH_SPECIAL), decoded_with_special);
    }
  });

  Deno.test(`stream() gives the text of decode() when it is ${kind}`, () => {
    for (const { ids, skip_special_tokens: skip, pieces, matches_decode } of golden.stream) {
      const text = streamed(tokenizer, ids, skip);
      assert.equal(text, tokenizer.decode(ids, { skipSpecialTokens: skip }));
      if (matches_decode) assert.equal(text, pieces.join(""));
    }
    const ids = fc.array(fc.nat(vocabSize + 1), { maxLength: 40 });
    fc.assert(
      fc.property(ids, fc.boolean(), (ids, skip) => {
        assert.equal(
          streamed(tokenizer, ids, skip),
          tokenizer.decode(ids, { skipSpecialTokens: skip }),
        );
      }),
      { seed: 1 },
    );
  });

  // Not for ByteFallback: here it holds a run of bytes to its end, theirs emits characters earlier.
  if (!kind.startsWith("metaspace")) {
    Deno.test(`stream() gives text no later than theirs when it is ${kind}`, () => {
      for (const { ids, skip_special_tokens: skipSpecialTokens, pieces } of golden.stream) {
        const stream = tokenizer.stream({ skipSpecialTokens });
        let [ours, theirs] = ["", ""];
        for (const [i, id] of ids.entries()) {
          ours += stream.push(id);
          theirs += pieces[i] ?? "";
          assert.ok(ours.startsWith(theirs), `${ids.slice(0, i + 1)}`);
        }
      }
    });
  }
}

/** A fresh copy of a fixture's tokenizer.json. */
function fileOf(kind: string): Json & { model: Json & { vocab: Json } } {
  return readJson(`tokenizers/${kind}/tokenizer.json`);
}

Deno.test("encode() distinguishes quote and backslash when V8 would misparse them", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    const { model, ...file } = fileOf("byte-bpe");
    // The tokens in the order of GPT-2's file on the hub, where the quote is the second key.
    const vocab = Object.fromEntries(
      Object.entries(model.vocab).filter(([token]) => token !== "<|endoftext|>"),
    );
    await Deno.writeTextFile(path, JSON.stringify({ ...file, model: { ...model, vocab } }));
    const shape = JSON.parse(`{"!":1,"\\\\":2}`);
    const tokenizer = await loadTokenizer(path);
    for (const token of [`"`, "\\"]) assert.deepEqual(tokenizer.encode(token), [vocab[token]]);
    assert.equal(Object.keys(shape).length, 2);
  });
});

Deno.test("encode() encodes a lone surrogate as U+FFFD", async () => {
  for (const kind of Object.keys(KINDS)) {
    const tokenizer = await loadTokenizer(fixture(`tokenizers/${kind}`));
    assert.deepEqual(tokenizer.encode("a\ud83d b"), tokenizer.encode("a\ufffd b"), kind);
  }
});

Deno.test("encode() encodes a word of 200,000 letters without a pre-tokenizer", async () => {
  for (const kind of ["metaspace", "unigram", "wordpiece"]) {
    const tokenizer = await loadTokenizer(fixture(`tokenizers/${kind}`));
    const word = "ab".repeat(1e5);
    const ids = tokenizer.encode(word);
    if (kind !== "wordpiece") assert.equal(tokenizer.decode(ids), word, kind);
    else assert.equal(ids.length, 3); // [CLS] [UNK] [SEP]: a word of over 100 letters is unknown
  }
});

Deno.test("loadTokenizer() reads special tokens from tokenizer_config.json", async () => {
  const file = fileOf("qwen2");
  const withConfig = async (config: Json): Promise<Tokenizer> => {
    let made: Tokenizer | undefined;
    await inTempFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(file));
      await Deno.writeTextFile(`${folder}/tokenizer_config.json`, JSON.stringify(config));
      made = await loadTokenizer(folder);
    });
    return made!;
  };
  assert.equal((await withConfig({ bos_token: null })).bosId, null);
  assert.equal((await withConfig({ bos_token: { content: "<|endoftext|>" } })).bosId, 805);
  assert.equal((await withConfig({ bos_token: "not there" })).bosId, null);
  assert.deepEqual((await withConfig({ eos_token: "<|im_end|>" })).eosIds, [807]);
  const framed = await withConfig({
    bos_token: "<|im_start|>",
    eos_token: "<|im_end|>",
    add_bos_token: true,
    add_eos_token: true,
  });
  const ids = framed.encode("a", NO_SPECIAL);
  assert.deepEqual(framed.encode("a"), [806, ...ids, 807]);
  // The decoder adds a token; an entry of tokenizer.json with its id or content takes precedence.
  const more = await withConfig({
    added_tokens_decoder: {
      900: { content: "<more>", special: true },
      805: { content: "<other>" },
      901: { content: "<|im_end|>" },
    },
  });
  assert.equal(more.vocabSize, 901);
  assert.deepEqual(more.encode("<more><|im_end|>"), [900, 807]);
  assert.equal(more.decode([900, 807]), "");
  await assert.rejects(
    withConfig({ bos_token: 1 }),
    /expected a special token of tokenizer_config.json to be text, got 1$/,
  );
});

Deno.test("decode() rejects an id when it is not an integer of at least 0", async () => {
  const tokenizer = await loadTokenizer(fixture("tokenizers/digits"));
  for (const id of [-1, 0.5, NaN, Infinity]) {
    const expected = new RangeError(`Cannot decode ${id}: expected an integer of at least 0`);
    assert.throws(() => tokenizer.decode([id]), expected);
    assert.throws(() => tokenizer.stream().push(id), expected);
  }
  assert.equal(tokenizer.decode([884, 2 ** 40]), "");
});

/** Path in tokenizer.json, damaged value, expectation named in the error. */
const DAMAGES: readonly (readonly [string, unknown, string])[] = [
  ["model.vocab", ["a"], "model.vocab to be an object"],
  ["model.vocab", {}, "a vocabulary with tokens"],
  ["model.vocab.a", -1, `an id below 16777216 for "a", got -1`],
  ["model.vocab.a", 2 ** 24, `an id below 16777216 for "a", got 16777216`],
  ["model.vocab.a", "1", `an id below 16777216 for "a", got "1"`],
  ["model.merges", undefined, "model.merges to be a list"],
  ["model.merges.1", "a b c", `merge 1 to be two tokens, got "a b c"`],
  ["model.merges.1", ["a", 1], `merge 1 to be two tokens, got ["a",1]`],
  [
    "model.merges.1",
    ["a", "nowhere"],
    `merge 1 to join two tokens to a third, got unknown "nowhere"`,
  ],
  [
    "model.merges.1",
    ["Ġthe", "Ġthe"],
    `merge 1 to join two tokens to a third, got unknown "ĠtheĠthe"`,
  ],
  ["model.unk_token", "nowhere", `model.unk_token to be a token, got "nowhere"`],
  ["added_tokens", {}, "added_tokens to be a list"],
  ["added_tokens.0.id", 1e9, `an id below 16777216 for "<|endoftext|>", got 1000000000`],
  [
    "added_tokens.0.content",
    7,
    `added tokens with a content, got {"id":805,"content":7,"single_word":false,"lstrip":false,…`,
  ],
  ["normalizer", "NFC", `normalizer to be an object with a type, got "NFC"`],
  ["normalizer", { type: "Replace", pattern: "a" }, `a pattern of a Regex or a String, got "a"`],
  ["pre_tokenizer.pretokenizers", {}, "pretokenizers to be a list, got {}"],
  ["decoder", { type: "Sequence" }, "decoders to be a list, got nothing"],
  ["post_processor", { type: "TemplateProcessing", single: [] }, "special_tokens to be an object"],
];

/** Writes a tokenizer.json with one damaged value; returns its path. */
async function damaged(folder: string, path: string, value: unknown): Promise<string> {
  const file: unknown = fileOf("qwen2");
  const keys = path.split(".");
  const home = keys.slice(0, -1).reduce((at, key) => (at as Json)[key], file) as Json;
  home[keys.at(-1)!] = value;
  await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(file));
  return `${folder}/tokenizer.json`;
}

Deno.test("loadTokenizer() names the expected value when a tokenizer.json is damaged", async () => {
  await inTempFolder(async (folder) => {
    for (const [at, value, expected] of DAMAGES) {
      const path = await damaged(folder, at, value);
      await assert.rejects(
        findTokenizer({ folder }),
        new CheckpointError(`Cannot read "${path}": expected ${expected}`),
      );
    }
    const path = await damaged(folder, "pre_tokenizer.pretokenizers.0.pattern.Regex", "(");
    await assert.rejects(
      loadTokenizer(path),
      new CheckpointError(
        `Cannot read "${path}": Invalid regular expression: /(/gu: Unterminated group`,
      ),
    );
  });
});

Deno.test("findTokenizer() names the unsupported part of a tokenizer.json", async () => {
  const kinds: readonly (readonly [string, unknown, string])[] = [
    ["model.type", "WordBag", `a vocabulary of type "WordBag"`],
    [
      "pre_tokenizer.pretokenizers.0.pattern.Regex",
      "(a)\\1b++c",
      "a pattern with possessive quantifiers and numbered references",
    ],
    ["model.continuing_subword_prefix", "##", "a BPE with continuing_subword_prefix"],
    ["normalizer", { type: "Nmt" }, `a normalizer of type "Nmt"`],
    ["pre_tokenizer", { type: "UnicodeScripts" }, `a pretokenizer of type "UnicodeScripts"`],
    ["post_processor", { type: "Other" }, `a post-processor of type "Other"`],
    ["decoder", { type: "CTC" }, `a decoder of type "CTC"`],
  ];
  await inTempFolder(async (folder) => {
    for (const [at, value, unread] of kinds) {
      const path = await damaged(folder, at, value);
      const sentence = `Cannot read "${path}": this version does not read ${unread}`;
      assert.equal(await findTokenizer({ folder }), sentence);
      await assert.rejects(loadTokenizer(folder), new CheckpointError(sentence));
    }
  });
});

Deno.test("loadTokenizer() loads or throws CheckpointError when a value is replaced", async () => {
  const junk = [null, 0, -1, 1.5, 2 ** 31, "x", "", "(", [], {}, true, [[]], { type: "x" }];
  const pathsOf = (value: unknown, path: readonly string[]): (readonly string[])[] =>
    typeof value === "object" && value !== null
      ? Object.entries(value).slice(0, 12).flatMap(([key, item]) => [
        [...path, key],
        ...pathsOf(item, [...path, key]),
      ])
      : [];
  for (const kind of Object.keys(KINDS)) {
    const file = fileOf(kind);
    for (const [i, path] of pathsOf(file, []).entries()) {
      const copy = structuredClone(file);
      const home = path.slice(0, -1).reduce((at, key) => at[key] as Json, copy as Json);
      home[path.at(-1)!] = junk[i % junk.length];
      try {
        const tokenizer = await loadTokenizer(copy);
        tokenizer.decode(tokenizer.encode("Hello, wörld 123 <s>\n"));
      } catch (error) {
        assert.ok(error instanceof CheckpointError, `${kind} ${path}: ${error}`);
      }
    }
  }
});

/**
 * Pre-tokenizer, text, and its words according to Hugging Face's documentation or code, joined
 * by |.
 */
const SPLITS: readonly (readonly [Json, string, string])[] = [
  ...([
    ["Removed", "the|final|countdown"],
    ["Isolated", "the|-|final|-|-|countdown"],
    ["MergedWithPrevious", "the-|final-|-|countdown"],
    ["MergedWithNext", "the|-final|-|-countdown"],
    ["Contiguous", "the|-|final|--|countdown"],
  ] as const).map(([behavior, words]) =>
    [
      { type: "Split", pattern: { String: "-" }, behavior, invert: false },
      "the-final--countdown",
      words,
    ] as const
  ),
  [
    { type: "Split", pattern: { Regex: "[a-z]+" }, behavior: "Removed", invert: true },
    "a1bc",
    "a|bc",
  ],
  [{ type: "CharDelimiterSplit", delimiter: "." }, "a.b..c", "a|b|c"],
  [{ type: "Whitespace" }, "Hey, été_1 you?!", "Hey|,|été_1|you|?!"],
  [{ type: "WhitespaceSplit" }, "a,\u0085b\u3000c\ufeffd", "a,|b|c\ufeffd"],
  [{ type: "Punctuation" }, "a,,b$c—d", "a|,|,|b|$|c|—|d"],
  [{ type: "Digits", individual_digits: false }, "a12²b٣", "a|12²|b|٣"],
  [{ type: "BertPreTokenizer" }, "a,, b\u0085c", "a|,|,|b|c"],
  [{ type: "ByteLevel", add_prefix_space: true }, "ab c", "Ġab|Ġc"],
  [{ type: "ByteLevel", add_prefix_space: true }, "😀", "ĠðŁĺĢ"],
  [{ type: "ByteLevel", add_prefix_space: true, use_regex: false }, " a b", "ĠaĠb"],
  [{ type: "Metaspace", replacement: "▁" }, "ab  c", "▁ab|▁|▁c"],
  [{ type: "Metaspace", replacement: "_", prepend_scheme: "never" }, "a b", "a|_b"],
  [{ type: "Metaspace", replacement: "▁", add_prefix_space: false }, "a b", "a|▁b"],
  [{ type: "Metaspace", replacement: "▁", split: false }, "a b", "▁a▁b"],
  [
    { type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, { type: "Digits" }] },
    "a1 b",
    "a|1|b",
  ],
];

Deno.test("encode() splits words as Hugging Face's with each pre-tokenizer", async () => {
  for (const [pre_tokenizer, text, expected] of SPLITS) {
    const words = expected.split("|");
    const tokenizer = await loadTokenizer({
      pre_tokenizer,
      // The expected words are the only tokens, and no merge makes another one.
      model: {
        type: "BPE",
        ignore_merges: true,
        vocab: Object.fromEntries([...new Set(words)].map((word, id) => [word, id])),
        merges: [],
      },
    });
    // Without a decoder, tokens are joined with spaces.
    assert.equal(tokenizer.decode(tokenizer.encode(text)), words.join(" "));
  }
});

Deno.test("encode() appends the end-of-word suffix when BPE has one", async () => {
  const tokenizer = await loadTokenizer({
    pre_tokenizer: { type: "WhitespaceSplit" },
    decoder: { type: "BPEDecoder", suffix: "</w>" },
    model: {
      type: "BPE",
      end_of_word_suffix: "</w>",
      vocab: { a: 0, b: 1, "b</w>": 2, "ab</w>": 3, "a</w>": 4 },
      merges: [["a", "b</w>"]],
    },
  });
  assert.deepEqual(tokenizer.encode("ab a bab"), [3, 4, 1, 3]);
  assert.equal(tokenizer.decode([3, 4, 1, 3]), "ab a bab");
  assert.equal(streamed(tokenizer, [3, 4, 1, 3], true), "ab a bab");
});

Deno.test("encode() falls back to byte tokens when Unigram lacks a character", async () => {
  const bytes = ["<0xE2>", "<0x82>", "<0xAC>"];
  const vocab = [["<unk>", 0], ["a", -1], ...bytes.map((token) => [token, -2])];
  const model = { type: "Unigram", unk_id: 0, byte_fallback: true, vocab };
  const tokenizer = await loadTokenizer({ model, decoder: { type: "ByteFallback" } });
  // Adjacent unknown characters form one token before the fallback; a byte of é has no token.
  assert.deepEqual(tokenizer.encode("a€é"), [1, 0]);
  assert.deepEqual(tokenizer.encode("a€a"), [1, 2, 3, 4, 1]);
  assert.equal(tokenizer.decode([1, 2, 3, 4, 1]), "a€a");
  assert.equal(tokenizer.decode([1, 2, 3, 1]), "a\ufffd\ufffda");
});

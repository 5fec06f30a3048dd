import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { charTokenizer } from "../../../engine/tokenizer/char.ts";
import { readMetaPickle } from "../../../engine/tokenizer/nanogpt_meta.ts";
import type { Tokenizer } from "../../../engine/tokenizer/tokenizer.ts";
import { fixture } from "../../testing.ts";

const VOCAB = ["\n", " ", "a", "é", "e", "\u0301", "😀", "\u0000", "\ufeff"];
const tokenizer = charTokenizer(VOCAB, `"meta.json"`);

/** Asserts the error for an invalid vocabulary. */
function assertRejected(vocab: unknown, message: string): void {
  assert.throws(() => charTokenizer(vocab, `"meta.json"`), new CheckpointError(message));
}

Deno.test("charTokenizer() has no special tokens and assigns ids in the order of the list", () => {
  const made: Tokenizer = tokenizer;
  assert.equal(made.vocabSize, VOCAB.length);
  assert.equal(made.bosId, null);
  assert.deepEqual(made.eosIds, []);
  assert.deepEqual(made.encode(VOCAB.join("")), [...VOCAB.keys()]);
});

Deno.test("charTokenizer() names the entry when it is not a single character", () => {
  for (const entry of ["", "ab", "e\u0301", "👨‍👩‍👧", 7, null, ["a"], {}]) {
    assertRejected(
      ["x", entry],
      `Cannot read "meta.json": expected entry 1 of vocab to be one character, got ${
        JSON.stringify(entry)
      }`,
    );
  }
});

Deno.test("charTokenizer() rejects an entry when it is a lone surrogate", () => {
  for (const entry of ["\ud83d", "\ude00"]) {
    assertRejected(
      [entry],
      `Cannot read "meta.json": expected entry 0 of vocab to be one character, got "\\u${
        entry.charCodeAt(0).toString(16)
      }"`,
    );
  }
});

Deno.test("charTokenizer() names both entries when a character is repeated", () => {
  assertRejected(
    ["a", "b", "c", "b"],
    `Cannot read "meta.json": expected entry 3 of vocab to be different from entry 1, got "b"`,
  );
});

Deno.test("charTokenizer() rejects a vocabulary when it is empty or not a list", () => {
  for (const vocab of [[], undefined, null, "abc", 3, { a: 0, b: 1 }]) {
    assertRejected(vocab, `Cannot read "meta.json": expected vocab to be a list of characters`);
  }
});

Deno.test("CharTokenizer.encode() gives one id when a code point takes two UTF-16 units", () => {
  assert.deepEqual(tokenizer.encode("a😀\ufeff a"), [2, 6, 8, 1, 2]);
  assert.deepEqual(tokenizer.encode("", { addSpecialTokens: true }), []);
  // No Unicode normalization: composed and decomposed text have different ids.
  assert.deepEqual(tokenizer.encode("ée\u0301"), [3, 4, 5]);
});

Deno.test("CharTokenizer.encode() names an unknown character, its code and its index", () => {
  const message = (character: string, code: string, at: number): RangeError =>
    new RangeError(
      `Cannot encode ${character} (${code}) at ${at}: not among the 9 characters of the vocabulary`,
    );
  assert.throws(() => tokenizer.encode("aaaaaè"), message(`"è"`, "U+00E8", 5));
  assert.throws(() => tokenizer.encode("😀😁"), message(`"😁"`, "U+1F601", 2));
  assert.throws(() => tokenizer.encode("a\t"), message(`"\\t"`, "U+0009", 1));
  assert.throws(() => tokenizer.encode("\ud83da"), message(`"\\ud83d"`, "U+D83D", 0));
});

Deno.test("CharTokenizer.decode() inverts encode() when the vocabulary has all characters", () => {
  const text = fc.array(fc.constantFrom(...VOCAB)).map((characters) => characters.join(""));
  fc.assert(
    fc.property(text, (t) => {
      const ids = tokenizer.encode(t);
      assert.equal(tokenizer.decode(ids), t);
      const stream = tokenizer.stream();
      assert.deepEqual(ids.map((id) => stream.push(id)), [...t]);
      assert.equal(stream.flush(), "");
    }),
    { seed: 1 },
  );
});

Deno.test("CharTokenizer.decode() gives U+FFFD when an id is past the vocabulary", () => {
  assert.equal(tokenizer.decode([2, 9, 2 ** 31, 2]), "a\ufffd\ufffda");
  assert.equal(tokenizer.stream().push(9), "\ufffd");
  assert.equal(tokenizer.decode([]), "");
});

Deno.test("CharTokenizer.decode() rejects an id when it is not an integer of at least 0", () => {
  for (const id of [-1, 0.5, NaN, Infinity]) {
    const expected = new RangeError(`Cannot decode ${id}: expected an integer of at least 0`);
    assert.throws(() => tokenizer.decode([2, id]), expected);
    assert.throws(() => tokenizer.stream().push(id), expected);
  }
});

Deno.test("CharTokenizer.applyChatTemplate() throws because the vocabulary has no template", () => {
  assert.throws(
    () => tokenizer.applyChatTemplate([{ role: "user", content: "a" }]),
    new CheckpointError("Cannot apply a chat template: a character vocabulary has none"),
  );
});

Deno.test("readMetaPickle() reads every protocol, NumPy's ids and an id without a character", async () => {
  for (const protocol of [0, 1, 2, 3, 4, 5]) {
    const path = fixture(`nanogpt/meta${protocol}.pkl`);
    const vocab = readMetaPickle(await Deno.readFile(path), path);
    assert.deepEqual(vocab, ["\n", "\\", "ö", undefined, "☃", "😀"], path);
    const tokenizer = charTokenizer(vocab, path);
    assert.deepEqual(tokenizer.encode("😀\\\n"), [5, 1, 0]);
    assert.equal(tokenizer.decode([2, 3, 4]), "ö\ufffd☃");
    assert.equal(tokenizer.vocabSize, 6);
  }
});

Deno.test("charTokenizer() names an entry of a pickle that no JSON can show", () => {
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  for (const entry of [2n ** 70n, cyclic]) {
    assert.throws(() => charTokenizer([entry], "x"), {
      name: "CheckpointError",
      message: /another/,
    });
  }
});

/**
 * Work that a file asks for and that would not come to an end: each test here waits for the
 * deadline, three seconds and a half.
 */
import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { withinDeadline } from "../../../engine/tokenizer/deadline.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { CHAT_TOKENIZER } from "../../chat_model.ts";
import { inTempFolder } from "../../safetensors.ts";

type Json = Record<string, unknown>;

/** Takes time that doubles with each letter, where no letter x follows. */
const SLOW = { Regex: "(a+)+x" };
/** Would take years. */
const LETTERS = "a".repeat(60);

const NEVER = "it does not come to an end within 3 seconds";

/** The chat model's tokenizer with other steps, and what else is in its vocabulary. */
function tokenizerOf(steps: Json, ...tokens: readonly string[]): Json {
  const vocab: Json = { ...CHAT_TOKENIZER.model.vocab };
  for (const token of tokens) vocab[token] = Object.keys(vocab).length;
  return { ...CHAT_TOKENIZER, ...steps, model: { ...CHAT_TOKENIZER.model, vocab } };
}

/** Holds what work says, and that the next has its time. */
function assertEnds(work: () => unknown, verb: string): void {
  const start = performance.now();
  assert.throws(
    work,
    new CheckpointError(`Cannot ${verb} with the tokenizer that was given: ${NEVER}`),
  );
  assert.ok(performance.now() - start < 30_000);
}

Deno.test("withinDeadline() gives and throws what the work does", () => {
  const result = {};
  assert.equal(withinDeadline(0, () => withinDeadline(0, () => result)), result);
  const error = new CheckpointError("no");
  const fail = () => {
    throw error;
  };
  for (const work of [fail, () => withinDeadline(0, fail)]) {
    assert.throws(() => withinDeadline(0, work), (thrown) => thrown === error);
  }
});

Deno.test("withinDeadline() ends work when its last step cannot be interrupted", async () => {
  const letters = new Array(20_000_000).fill("a");
  const work = () => {
    const start = performance.now();
    while (performance.now() - start < 3_480);
    return letters.join("").length; // still at it when the watchdog comes
  };
  // What ends work stays within: it neither is caught by it nor falls on what follows.
  const stubborn = () => {
    try {
      return work();
    } catch {
      return "caught";
    }
  };
  assert.throws(() => withinDeadline(0, stubborn), new Error(NEVER));
  assert.equal(await Promise.resolve(withinDeadline(0, () => 1)), 1);
});

for (
  const [step, value] of [
    ["normalizer", { type: "Replace", pattern: SLOW, content: "" }],
    ["pre_tokenizer", { type: "Split", pattern: SLOW, behavior: "Isolated" }],
  ] as const
) {
  Deno.test(`encode() says so when the ${step}'s pattern does not come to an end`, async () => {
    const tokenizer = await loadTokenizer(tokenizerOf({ [step]: value }));
    assertEnds(() => tokenizer.encode(LETTERS), "encode");
    assert.equal(tokenizer.encode("a").length, 1);
  });
}

Deno.test("loadTokenizer() says so when an added token keeps a pattern busy for ever", async () => {
  const file = tokenizerOf({
    normalizer: { type: "Replace", pattern: SLOW, content: "" },
    added_tokens: [{ id: 400, content: LETTERS }],
  });
  await assert.rejects(
    loadTokenizer(file),
    new CheckpointError(`Cannot read the tokenizer that was given: ${NEVER}`),
  );
});

for (const way of ["decode", "stream"] as const) {
  Deno.test(`${way}() says so when the decoder's pattern does not come to an end`, async () => {
    const decoder = { type: "Replace", pattern: SLOW, content: "" };
    const tokenizer = await loadTokenizer(tokenizerOf({ decoder }, LETTERS));
    const [a] = tokenizer.encode("a");
    const id = tokenizer.vocabSize - 1;
    const stream = tokenizer.stream();
    assert.equal(stream.push(a), "a");
    assertEnds(
      way === "decode" ? () => tokenizer.decode([a, id]) : () => stream.push(id),
      "decode",
    );
    assert.equal(tokenizer.decode([a]), "a");
  });
}

Deno.test("decode() and stream() say so when a decoder's text would fill the memory", async () => {
  const twice = { type: "Replace", pattern: { String: "a" }, content: "aa" };
  const decoders = Array(60).fill(twice);
  const tokenizer = await loadTokenizer(tokenizerOf({ decoder: { type: "Sequence", decoders } }));
  const [a] = tokenizer.encode("a");
  for (const work of [() => tokenizer.decode([a]), () => tokenizer.stream().push(a)]) {
    assert.throws(
      work,
      new CheckpointError(
        `Cannot decode with the tokenizer that was given: it makes a text of ${2 ** 24} characters`,
      ),
    );
  }
});

Deno.test("applyChatTemplate() says so when the template is not rendered in time", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    await Deno.writeTextFile(path, JSON.stringify(CHAT_TOKENIZER));
    // Few steps, each of them long.
    const template = "{% set x = range(100000) | list %}{% set y = x[:] %}" +
      "{% for i in x %}{{ x == y }}{% endfor %}";
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, template);
    const tokenizer = await loadTokenizer(folder);
    assert.throws(
      () => tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }]),
      new CheckpointError(`Cannot apply the chat template of "${path}": ${NEVER}`),
    );
  });
});

Deno.test("applyChatTemplate() reads a template of a megabyte in time", async () => {
  const blanks = " ".repeat(900_000);
  await inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(CHAT_TOKENIZER));
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, `a${blanks}b{{- 1 }}`);
    const tokenizer = await loadTokenizer(folder);
    const text = tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }]);
    assert.equal(text, `a${blanks}b1`);
  });
});

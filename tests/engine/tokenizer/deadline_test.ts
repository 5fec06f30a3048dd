/**
 * Time limits of untrusted work: patterns and templates that do not end. Most tests wait for the
 * limit, 3.5 s each.
 */
import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { withinDeadline } from "../../../engine/tokenizer/deadline.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { CHAT_TOKENIZER } from "../../chat_model.ts";
import { inTempFolder } from "../../safetensors.ts";

type Json = Record<string, unknown>;

/** Takes time 2ⁿ for n letters that no x follows. */
const SLOW = { Regex: "(a+)+x" };
/** 2⁶⁰ steps: years. */
const LETTERS = "a".repeat(60);

const NEVER = "it does not come to an end within 3 seconds";

/** The chat model's tokenizer with other steps and additional tokens. */
function tokenizerOf(steps: Json, ...tokens: readonly string[]): Json {
  const vocab: Json = { ...CHAT_TOKENIZER.model.vocab };
  for (const token of tokens) vocab[token] = Object.keys(vocab).length;
  return { ...CHAT_TOKENIZER, ...steps, model: { ...CHAT_TOKENIZER.model, vocab } };
}

/** Asserts that work ends with the error of the time limit, in less than 30 s. */
function assertEnds(work: () => unknown, verb: string): void {
  const start = performance.now();
  assert.throws(
    work,
    new CheckpointError(`Cannot ${verb} with the given tokenizer: ${NEVER}`),
  );
  assert.ok(performance.now() - start < 30_000);
}

Deno.test("withinDeadline() passes on the result and the errors of the work", () => {
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

Deno.test("withinDeadline() rejects work when its last step cannot be interrupted", async () => {
  const letters = new Array(20_000_000).fill("a");
  const work = () => {
    const start = performance.now();
    while (performance.now() - start < 3_480);
    return letters.join("").length; // still running when the watchdog acts
  };
  // The interruption cannot be caught by the work and does not affect the next work.
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
  Deno.test(`encode() throws when the ${step}'s pattern exceeds the time limit`, async () => {
    const tokenizer = await loadTokenizer(tokenizerOf({ [step]: value }));
    assertEnds(() => tokenizer.encode(LETTERS), "encode");
    assert.equal(tokenizer.encode("a").length, 1);
  });
}

Deno.test("loadTokenizer() throws when an added token exceeds the time limit", async () => {
  const file = tokenizerOf({
    normalizer: { type: "Replace", pattern: SLOW, content: "" },
    added_tokens: [{ id: 400, content: LETTERS }],
  });
  await assert.rejects(
    loadTokenizer(file),
    new CheckpointError(`Cannot read the given tokenizer: ${NEVER}`),
  );
});

for (const method of ["decode", "stream"] as const) {
  Deno.test(`${method}() throws when the decoder's pattern exceeds the time limit`, async () => {
    const decoder = { type: "Replace", pattern: SLOW, content: "" };
    const tokenizer = await loadTokenizer(tokenizerOf({ decoder }, LETTERS));
    const [a] = tokenizer.encode("a");
    const id = tokenizer.vocabSize - 1;
    const stream = tokenizer.stream();
    assert.equal(stream.push(a), "a");
    assertEnds(
      method === "decode" ? () => tokenizer.decode([a, id]) : () => stream.push(id),
      "decode",
    );
    assert.equal(tokenizer.decode([a]), "a");
  });
}

Deno.test("decode() and stream() throw when a decoder's text grows without bound", async () => {
  const twice = { type: "Replace", pattern: { String: "a" }, content: "aa" };
  const decoders = Array(60).fill(twice);
  const tokenizer = await loadTokenizer(tokenizerOf({ decoder: { type: "Sequence", decoders } }));
  const [a] = tokenizer.encode("a");
  for (const work of [() => tokenizer.decode([a]), () => tokenizer.stream().push(a)]) {
    assert.throws(
      work,
      new CheckpointError(
        `Cannot decode with the given tokenizer: it makes a text of ${2 ** 24} characters`,
      ),
    );
  }
});

Deno.test("applyChatTemplate() throws when rendering exceeds the time limit", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    await Deno.writeTextFile(path, JSON.stringify(CHAT_TOKENIZER));
    // Few steps, each of them slow: the step budget alone does not end it.
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

Deno.test("applyChatTemplate() renders a template of 0.9 MB within the time limit", async () => {
  const blanks = " ".repeat(900_000);
  await inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(CHAT_TOKENIZER));
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, `a${blanks}b{{- 1 }}`);
    const tokenizer = await loadTokenizer(folder);
    const text = tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }]);
    assert.equal(text, `a${blanks}b1`);
  });
});

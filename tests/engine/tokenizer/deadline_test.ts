/** Time limits of untrusted work: patterns and templates without end; more in the soak tests. */
import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { withinDeadline } from "../../../engine/tokenizer/deadline.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { CHAT_TOKENIZER } from "../../chat_model.ts";
import { inTempFolder } from "../../safetensors.ts";
import { NEVER, SLOW, testDecode, testEncode, tokenizerOf } from "./slow_patterns.ts";

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

testEncode("normalizer", { type: "Replace", pattern: SLOW, content: "" });
testDecode("decode");

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

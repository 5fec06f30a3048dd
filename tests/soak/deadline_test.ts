/** Time limits of untrusted work that the unit tests do not wait for, 3.5 s each. */
import assert from "node:assert/strict";
import { CheckpointError } from "../../engine/errors.ts";
import { withinDeadline } from "../../engine/tokenizer/deadline.ts";
import { loadTokenizer } from "../../engine/tokenizer/load.ts";
import {
  LETTERS,
  NEVER,
  SLOW,
  testDecode,
  testEncode,
  tokenizerOf,
} from "../engine/tokenizer/slow_patterns.ts";

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

testEncode("pre_tokenizer", { type: "Split", pattern: SLOW, behavior: "Isolated" });
testDecode("stream");

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

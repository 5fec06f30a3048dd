import assert from "node:assert/strict";
import { fixture } from "../testing.ts";
import { codeHashes } from "./code_hashes.ts";

// One model and the tiles of one; the script compares all.
Deno.test("generated code equals the golden list", async () => {
  const golden = Deno.readTextFileSync(fixture("code_hashes.txt")).trim().split("\n");
  const lines = await codeHashes("tiny/gpt2,");
  assert.deepEqual(lines, golden.filter((line) => line.startsWith("tiny/gpt2,")));
});

import assert from "node:assert/strict";
import { codeHashes } from "./code_hashes.ts";

Deno.test("codeHashes() repeats its lines, which differ by dtype, backend and form", async () => {
  const lines = await codeHashes("tiny/gpt2,");
  assert.deepEqual(await codeHashes("tiny/gpt2,"), lines);
  assert.equal(lines.length, 21); // 3 dtypes of 3 forms on wasm and 4 on webgpu
  const hashes = lines.map((line) => line.split(": ")[1]);
  assert.equal(new Set(hashes).size, lines.length);
  assert.ok(hashes.every((hash) => /^[1-9]\d* [0-9a-f]{24}$/.test(hash)), lines.join("\n"));
});

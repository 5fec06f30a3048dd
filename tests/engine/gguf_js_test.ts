import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { testGgufs } from "./ggufs.ts";

// tests/soak/gguf_test.ts runs all files, with the cache and without.
const files = ["llama", "gpt2-q4_0", "gemma3", "phi3", "qwen2-q5_1"].map((name) => `${name}.gguf`);
testGgufs("js", { files, cached: [true] });

async function logitsOf(source: string): Promise<Float32Array> {
  await using model = await loadModel(source, { device: "js" });
  return await model.logits([1, 2, 3]);
}

Deno.test("a big-endian GGUF, as gguf-py swaps it, gives the same logits", async () => {
  assert.deepEqual(
    await logitsOf(fixture("gguf/llama-q4_0-big.gguf")),
    await logitsOf(fixture("gguf/llama-q4_0.gguf")),
  );
});

Deno.test("a folder with one GGUF model is a source; with several, one has to be named", () =>
  inTempFolder(async (folder) => {
    const file = fixture("gguf/llama-q4_0.gguf");
    await Deno.copyFile(file, `${folder}/a.gguf`);
    await Deno.writeTextFile(`${folder}/mmproj-a.gguf`, "not read");
    assert.deepEqual(await logitsOf(folder), await logitsOf(file));
    await Deno.copyFile(file, `${folder}/b.gguf`);
    await assert.rejects(logitsOf(folder), {
      name: "CheckpointError",
      message: `Cannot open "${folder}": expected one model in it, got a.gguf, b.gguf; name one`,
    });
  }));

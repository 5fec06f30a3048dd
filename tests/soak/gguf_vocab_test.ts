/** Vocabularies of real models in GGUF files that take seconds to load. */
import { fixture } from "../testing.ts";
import { testVocabulary } from "../engine/tokenizer/gguf_vocabularies.ts";

testVocabulary("starcoder");

/** Llama 3's, unpacked. */
const path = await Deno.makeTempFile({ suffix: ".gguf" });
const packed = await Deno.open(fixture("gguf-vocab/llama-bpe.gguf.gz"));
await packed.readable.pipeThrough(new DecompressionStream("gzip")).pipeTo(
  (await Deno.open(path, { write: true })).writable,
);
globalThis.addEventListener("unload", () => Deno.removeSync(path));
testVocabulary("llama-bpe", path);

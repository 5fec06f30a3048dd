import { testGgufs } from "./ggufs.ts";

// tests/soak/gguf_test.ts runs all files, with the cache and without.
const files = ["llama", "gpt2-q4_0", "gemma3", "phi3", "qwen2-q5_1"].map((name) => `${name}.gguf`);
testGgufs("js", { files, cached: [true] });

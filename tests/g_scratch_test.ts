import { testGgufs } from "/work/wt/lead/tests/engine/ggufs.ts";
testGgufs("webgpu", {
  files: [
    "llama-q4_0.gguf",
    "gpt2-q5_1.gguf",
    "qwen2-q8_0.gguf",
    "llama-w256-q4_k_m.gguf",
    "llama-w256-q2_k.gguf",
    "llama-w256-q3_k_m.gguf",
    "llama-w256-iq4_nl.gguf",
    "llama-w256-q5_k_m.gguf",
  ],
  cached: [true],
});

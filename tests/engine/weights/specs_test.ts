import assert from "node:assert/strict";
import { readArchitecture } from "../../../engine/architecture/mod.ts";
import { countParameters, specTree } from "../../../engine/weights/mod.ts";

/** Shapes of known models: layers, width, heads, key/value heads, hidden width, vocabulary. */
const shape = (L: number, C: number, H: number, G: number, F: number, V: number) => ({
  num_hidden_layers: L,
  hidden_size: C,
  num_attention_heads: H,
  num_key_value_heads: G,
  intermediate_size: F,
  vocab_size: V,
});

Deno.test("countParameters() returns the published counts of known models", () => {
  const tied = { tie_word_embeddings: true };
  const known: [name: string, config: Record<string, unknown>, count: number][] = [
    ["llama", { ...shape(16, 2048, 32, 8, 8192, 128256), ...tied }, 1_235_814_400],
    ["llama", { ...shape(30, 576, 9, 3, 1536, 49152), ...tied }, 134_515_008],
    ["mistral", shape(32, 4096, 32, 8, 14336, 32000), 7_241_732_096],
    ["qwen2", { ...shape(24, 896, 14, 2, 4864, 151936), ...tied }, 494_032_768],
    ["qwen3", { ...shape(28, 1024, 16, 8, 3072, 151936), ...tied }, 596_049_920],
    ["gemma", shape(18, 2048, 8, 1, 16384, 256000), 2_506_172_416],
    ["gemma2", shape(26, 2304, 8, 4, 9216, 256000), 2_614_341_888],
    ["gemma3_text", shape(26, 1152, 4, 1, 6912, 262144), 999_885_952],
    ["phi", shape(32, 2560, 32, 32, 10240, 51200), 2_779_683_840],
    ["phi3", shape(32, 3072, 32, 32, 8192, 32064), 3_821_079_552],
    ["gpt_neox", shape(6, 512, 8, 8, 2048, 50304), 70_426_624],
    [
      "gptj",
      { n_layer: 28, n_embd: 4096, n_head: 16, rotary_dim: 64, vocab_size: 50400 },
      6_050_882_784,
    ],
    // The two rows before position 0 are never used and not counted.
    [
      "opt",
      { ...shape(12, 768, 12, 12, 0, 50272), ffn_dim: 3072 },
      125_239_296 - 2 * 768,
    ],
    ["olmo2", shape(16, 2048, 16, 16, 8192, 100352), 1_484_916_736],
    ["smollm3", shape(36, 2048, 16, 4, 11008, 128256), 3_075_098_624],
    ["starcoder2", shape(30, 3072, 24, 2, 12288, 49152), 3_030_371_328],
    ["stablelm", { ...shape(24, 2048, 32, 32, 5632, 100352), use_qkv_bias: true }, 1_644_515_328],
    ["granite", { ...shape(40, 2048, 32, 8, 8192, 49155), ...tied }, 2_533_531_648],
  ];
  for (const [model_type, config, count] of known) {
    const a = readArchitecture({ model_type, ...config }, model_type);
    assert.equal(countParameters(specTree(a)), count, model_type);
  }
});

Deno.test("countParameters() returns GPT-2's published counts, tied and untied", () => {
  const gpt2 = { model_type: "gpt2", vocab_size: 50257, n_positions: 1024 };
  const known: [Record<string, unknown>, number][] = [
    [{ ...gpt2, n_layer: 12, n_head: 12, n_embd: 768 }, 124_439_808],
    [{ ...gpt2, n_layer: 48, n_head: 25, n_embd: 1600 }, 1_557_611_200],
    [
      { ...gpt2, n_layer: 12, n_head: 12, n_embd: 768, tie_word_embeddings: false },
      124_439_808 + 50257 * 768,
    ],
  ];
  for (const [config, count] of known) {
    assert.equal(countParameters(specTree(readArchitecture(config, "config.json"))), count);
  }
});

/**
 * Child process whose resident memory is compared.
 *
 * `idle` only imports the library; `gpt2` also runs GPT-2's shape; `billion` runs Llama's shape of
 * 10⁹ parameters, with random weights or those of the folder given next.
 *
 * @module
 */
import { loadModel } from "../mod.ts";

/** Memory of one process, in bytes. */
export interface Resident {
  rss: number;
  /** Peak of resident memory; 0 if the system does not report it. */
  peak: number;
  weights: number;
  kvCache: number;
  activations: number;
  /** Peak of tracked bytes. */
  tracked: number;
  /** Milliseconds from the call of `loadModel` to the last token. */
  ms: number;
}

/** Slots of the cache, few enough to write all: untouched pages are not resident. */
const CONTEXT = 128;

/** Llama's shape of 1.24 · 10⁹ parameters: 2.5 GB in BF16. */
export const BILLION = {
  model_type: "llama",
  vocab_size: 128256,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  rope_scaling: {
    rope_type: "llama3",
    factor: 32,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  },
  tie_word_embeddings: true,
};

async function main(which: string, source?: string): Promise<Resident> {
  if (which === "idle") {
    return { ...await resident(), weights: 0, kvCache: 0, activations: 0, tracked: 0, ms: 0 };
  }
  const start = performance.now();
  await using model = which === "billion"
    ? await loadModel(source ?? { config: BILLION }, {
      device: "cpu",
      dtype: "BF16",
      contextLength: CONTEXT,
    })
    : await loadModel({ config: (await import("./decode.ts")).GPT2 }, {
      device: "js",
      dtype: "F32",
      contextLength: CONTEXT,
    });
  const prompt = Array.from({ length: CONTEXT - 16 }, (_, i) => i);
  const tokens = model.generate(prompt, { maxNewTokens: 16, ignoreEos: true, seed: 1 });
  for await (const _ of tokens);
  const { classes, peak: tracked } = model.memory;
  const [weights, kvCache, activations] = (["weights", "kvCache", "activations"] as const)
    .map((kind) => classes[kind].current);
  const ms = performance.now() - start;
  return { ...await resident(), weights, kvCache, activations, tracked, ms };
}

async function resident(): Promise<{ rss: number; peak: number }> {
  const { rss } = Deno.memoryUsage();
  try {
    const status = await Deno.readTextFile("/proc/self/status");
    return { rss, peak: 1024 * Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1] ?? 0) };
  } catch {
    return { rss, peak: 0 };
  }
}

if (import.meta.main) console.log(JSON.stringify(await main(Deno.args[0], Deno.args[1])));

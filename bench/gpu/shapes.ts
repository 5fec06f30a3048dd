/**
 * Shapes of models that a GPU is judged by, and their dispatches, listed without a GPU: the engine
 * records and runs them on a fake one.
 *
 * @module
 */
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { Runner } from "../../engine/runner.ts";
import { randomWeights, uploadWeights } from "../../engine/weights/mod.ts";
import type { WeightDtype } from "../../kernels/formats/mod.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { FakeGpu } from "../../tests/kernels/fake_gpu.ts";
import type { Run } from "./wgsl_trace.ts";

/** A model's shape, and the dtype that it is usually stored in. */
export interface Shape {
  readonly name: string;
  readonly config: Record<string, unknown>;
  readonly dtype: WeightDtype;
}

function llama(C: number, L: number, H: number, G: number, F: number, V: number, tied: boolean) {
  return {
    model_type: "llama",
    hidden_size: C,
    num_hidden_layers: L,
    num_attention_heads: H,
    num_key_value_heads: G,
    intermediate_size: F,
    vocab_size: V,
    max_position_embeddings: 8192,
    tie_word_embeddings: tied,
  };
}

function gpt2(n_embd: number, n_layer: number, n_head: number, vocab_size: number) {
  return { model_type: "gpt2", n_embd, n_layer, n_head, vocab_size, n_positions: 8192 };
}

/** From the demo to 8 billion parameters. */
export const SHAPES: readonly Shape[] = [
  { name: "demo", config: gpt2(256, 6, 8, 65), dtype: "F32" },
  { name: "GPT-2", config: gpt2(768, 12, 12, 50257), dtype: "F32" },
  { name: "SmolLM2", config: llama(576, 30, 9, 3, 1536, 49152, true), dtype: "BF16" },
  { name: "1B", config: llama(2048, 16, 32, 8, 8192, 128256, true), dtype: "BF16" },
  { name: "8B", config: llama(4096, 32, 32, 8, 14336, 128256, false), dtype: "BF16" },
];

/** A tiny shape for tests of the kit itself. */
export const TINY: Shape = {
  name: "tiny",
  config: llama(64, 2, 4, 2, 128, 97, true),
  dtype: "BF16",
};

/** A dispatch on paper. */
export interface PaperDispatch {
  readonly op: string;
  readonly wgsl: string;
  readonly groups: number;
}

/** What a pass launches on a GPU, and the architecture's sizes. */
export interface PaperPass {
  readonly run: Run;
  readonly dispatches: readonly PaperDispatch[];
}

/**
 * Dispatches of a decode step (`rows` 1, sampling included) or of a prefill chunk, each at `length`
 * keys. The weights are zeros, and a large GPU with subgroups and bindings of 2 GiB is assumed.
 */
export async function passesOf(
  { config, dtype }: Shape,
  passes: readonly { readonly rows: number; readonly length: number }[],
  slots = 4096,
): Promise<PaperPass[]> {
  using gpu = new FakeGpu({ software: false, subgroups: true, maxBytes: 2 ** 31 - 4 });
  await using backend = await openWebGpuBackend({ tune: false });
  const a = readArchitecture(config, "a shape");
  const source = { ...randomWeights(a, 1, dtype), fill: () => () => {} };
  const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
  const result: PaperPass[] = [];
  for (const [rows, group] of Map.groupBy(passes, ({ rows }) => rows)) {
    const runner = await Runner.create(backend, a, weights, { id: "", slots, chunk: rows });
    runner.startSampling({ temperature: 0.9, topK: 40, topP: 1, repetitionPenalty: 1 }, 1);
    const plan = rows === 1 ? runner.plans.draw : runner.plans.prefill;
    for (const { length } of group) {
      const run = { rows, position: length - rows, slot: length - rows, length };
      await Promise.resolve();
      gpu.forget();
      plan.run(run);
      await Promise.resolve();
      const dispatches = gpu.dispatches.map(({ label, code, groups }) => ({
        op: label,
        wgsl: code,
        groups,
      }));
      result.push({ run, dispatches });
    }
  }
  return result;
}

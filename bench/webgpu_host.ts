/**
 * Host time of a token on WebGPU: encoding and submitting the steps of models as deep as real ones,
 * but so narrow that the device has little to do.
 *
 * `deno run -A bench/webgpu_host.ts [length]`; `length` is the number of keys, 64 by default.
 *
 * @module
 */
import { readArchitecture } from "../engine/architecture/mod.ts";
import { Runner } from "../engine/runner.ts";
import { randomWeights, uploadWeights } from "../engine/weights/mod.ts";
import { openWebGpuBackend } from "../kernels/webgpu/backend.ts";

/** Steps of a batch, and batches. */
const [STEPS, ROUNDS] = [32, 25];
const SLOTS = 1024;
const length = Number(Deno.args[0] ?? 64);

const gpt2 = { model_type: "gpt2", n_embd: 32, n_head: 4, vocab_size: 65, n_positions: SLOTS };
const llama = {
  model_type: "llama",
  hidden_size: 32,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 64,
  intermediate_size: 64,
  vocab_size: 65,
  max_position_embeddings: SLOTS,
};
const SHAPES = {
  "demo (6 layers)": { ...gpt2, n_layer: 6 },
  "GPT-2 (12 layers)": { ...gpt2, n_layer: 12 },
  "SmolLM2 (30 layers, gated)": { ...llama, num_hidden_layers: 30 },
};

/** Methods of a pass that cost the host time. */
const METHODS = ["setPipeline", "setBindGroup", "dispatchWorkgroups"] as const;

/** Counts the calls that `work` makes. */
function callsOf(work: () => void): Record<string, number> {
  const pass = GPUComputePassEncoder.prototype as unknown as Record<string, () => void>;
  const calls: Record<string, number> = {};
  const originals = METHODS.map((name) => pass[name]);
  for (const [i, name] of METHODS.entries()) {
    calls[name] = 0;
    pass[name] = function (this: unknown, ...args: []) {
      calls[name]++;
      return originals[i].apply(this, args);
    };
  }
  work();
  for (const [i, name] of METHODS.entries()) pass[name] = originals[i];
  return calls;
}

const rows: Record<string, Record<string, string | number>> = {};
for (const [name, config] of Object.entries(SHAPES)) {
  await using backend = await openWebGpuBackend({ tune: false });
  const a = readArchitecture(config, name);
  const weights = await uploadWeights(backend, a, randomWeights(a, 1, "F32"), SLOTS + 1, () => {});
  const { plans, buffers } = await Runner.create(backend, a, weights, {
    id: name,
    slots: SLOTS,
    chunk: 1,
  });
  const step = { rows: 1, position: length - 1, slot: length - 1, length };
  const run = async (steps: number) => {
    const start = performance.now();
    for (let i = 0; i < steps; i++) plans.draw.run(step);
    await Promise.resolve(); // the rest is submitted
    const ms = performance.now() - start;
    await backend.read(buffers.sampling.drawn);
    return 1000 * ms / steps;
  };
  for (let i = 0; i < 5; i++) await run(STEPS);
  const calls = callsOf(() => plans.draw.run(step));
  await backend.read(buffers.sampling.drawn);
  const [batch, one]: number[][] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    batch.push(await run(STEPS));
    one.push(await run(1));
  }
  rows[name] = {
    ...calls,
    // The least: other work of the machine only adds.
    [`µs a token, of ${STEPS}`]: Math.min(...batch).toFixed(0),
    "µs a token, alone": Math.min(...one).toFixed(0),
  };
}
console.log(`host time of a token at ${length} keys`);
console.table(rows);

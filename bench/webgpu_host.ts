/**
 * Host time of a token on WebGPU: encoding and submitting the steps of models as deep as real ones,
 * but so narrow that the device has little to do.
 *
 *     deno run -A bench/webgpu_host.ts [--keys 64] [--against FOLDER]
 *
 * `--against` names another checkout, whose batches alternate with this one's in the same process,
 * so that both meet the same load; the last column is the median of the ratios of neighbours.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { median } from "./measuring.ts";

/** Steps of a batch, and batches. */
const [STEPS, ROUNDS] = [16, 40];
const SLOTS = 1024;

const { values: flags } = parseArgs({
  options: { keys: { type: "string", default: "64" }, against: { type: "string" } },
});
const length = Number(flags.keys);

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

/** Opens a model with the engine of a checkout. */
async function openModel(root: URL, name: string, config: Record<string, unknown>) {
  const load = (path: string) => import(new URL(path, root).href);
  const { readArchitecture }: typeof import("../engine/architecture/mod.ts") = await load(
    "engine/architecture/mod.ts",
  );
  const { Runner }: typeof import("../engine/runner.ts") = await load("engine/runner.ts");
  const { randomWeights, uploadWeights }: typeof import("../engine/weights/mod.ts") = await load(
    "engine/weights/mod.ts",
  );
  const { openWebGpuBackend }: typeof import("../kernels/webgpu/backend.ts") = await load(
    "kernels/webgpu/backend.ts",
  );
  const backend = await openWebGpuBackend({ tune: false });
  const a = readArchitecture(config, name);
  const weights = await uploadWeights(backend, a, randomWeights(a, 1, "F32"), SLOTS + 1, () => {});
  const { plans, buffers } = await Runner.create(backend, a, weights, {
    id: name,
    slots: SLOTS,
    chunk: 1,
  });
  const step = { rows: 1, position: length - 1, slot: length - 1, length };
  const settle = () => backend.read(buffers.sampling.drawn);
  return {
    /** Microseconds of a token in a batch of `steps`. */
    async run(steps: number): Promise<number> {
      const start = performance.now();
      for (let i = 0; i < steps; i++) plans.draw.run(step);
      await Promise.resolve(); // the rest is submitted
      const ms = performance.now() - start;
      await settle();
      return 1000 * ms / steps;
    },
    async calls(): Promise<Record<string, number>> {
      const calls = callsOf(() => plans.draw.run(step));
      await settle();
      return calls;
    },
    [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose](),
  };
}

const here = new URL("../", import.meta.url);
const roots = flags.against ? [here, pathToFileURL(`${flags.against}/`)] : [here];
const rows: Record<string, Record<string, string | number>> = {};
for (const [name, config] of Object.entries(SHAPES)) {
  await using stack = new AsyncDisposableStack();
  const models: Awaited<ReturnType<typeof openModel>>[] = [];
  for (const root of roots) models.push(stack.use(await openModel(root, name, config)));
  const times = models.map(() => ({ batch: [] as number[], one: [] as number[] }));
  for (let round = -5; round < ROUNDS; round++) {
    for (const [i, model] of models.entries()) {
      const [batch, one] = [await model.run(STEPS), await model.run(1)];
      if (round < 0) continue; // warms up
      times[i].batch.push(batch);
      times[i].one.push(one);
    }
  }
  const [{ batch, one }, other] = times;
  rows[name] = {
    ...await models[0].calls(),
    // The least: other work of the machine only adds.
    [`µs a token, of ${STEPS}`]: Math.min(...batch).toFixed(0),
    "µs a token, alone": Math.min(...one).toFixed(0),
    ...other && {
      "against: calls": Object.values(await models[1].calls()).join(", "),
      "µs, of a batch": Math.min(...other.batch).toFixed(0),
      "ratio": median(batch.map((us, i) => us / other.batch[i])).toFixed(2),
    },
  };
}
console.log(`host time of a token at ${length} keys`);
console.table(rows);

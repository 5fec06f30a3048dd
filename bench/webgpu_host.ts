/**
 * Host time of a token on WebGPU: encoding and submitting the steps of models as deep as real ones,
 * but so narrow that the device has little to do.
 *
 *     deno run -A bench/webgpu_host.ts [--keys 64] [--steps 16] [--model demo] [--against FOLDER]
 *
 * The steps are those of texts that end at `--keys` keys, in batches of `--steps`. Each measured
 * batch follows one of the same model, as in a text: other work in between leaves cold caches,
 * which cost a batch as much as four of its steps. `replayed` are batches of the same native calls,
 * with the same pipelines and bind groups, in a loop that does nothing else: the host's time of
 * that many calls, whatever makes them.
 *
 * `--against` names another checkout, whose batches alternate with this one's in the same process,
 * so that both meet the same load; the last column is the median of the ratios of neighbours.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { median } from "./measuring.ts";

/** Batches measured, and before them. */
const [ROUNDS, WARM_UP] = [40, 5];
const SLOTS = 1024;
/** Steps of a text. */
const TEXT = 64;

const { values: flags } = parseArgs({
  options: {
    keys: { type: "string", default: "64" },
    steps: { type: "string", default: "16" },
    model: { type: "string", default: "" },
    against: { type: "string" },
  },
});
const [length, STEPS] = [Number(flags.keys), Number(flags.steps)];

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

/** A call of one of them, by its index. */
interface PassCall {
  readonly method: number;
  readonly args: readonly unknown[];
}

/** A device, and the calls that a step makes on its passes. */
interface StepCalls {
  readonly device: GPUDevice;
  readonly calls: readonly PassCall[];
}

/** Records the calls that `work` makes. */
function callsOf(work: () => void): StepCalls {
  const pass = GPUComputePassEncoder.prototype as unknown as Record<string, () => void>;
  const originals = METHODS.map((name) => pass[name]);
  const { createCommandEncoder } = GPUDevice.prototype;
  const calls: PassCall[] = [];
  let device: GPUDevice | undefined;
  for (const [method, name] of METHODS.entries()) {
    pass[name] = function (this: unknown, ...args: []) {
      // The queue reuses its array of offsets.
      const kept = args.map((arg: unknown) => arg instanceof Uint32Array ? arg.slice() : arg);
      calls.push({ method, args: kept });
      return originals[method].apply(this, args);
    };
  }
  GPUDevice.prototype.createCommandEncoder = function (descriptor) {
    device = this;
    return createCommandEncoder.call(this, descriptor);
  };
  work();
  for (const [method, name] of METHODS.entries()) pass[name] = originals[method];
  GPUDevice.prototype.createCommandEncoder = createCommandEncoder;
  return { device: device!, calls };
}

/** Number of calls of each method. */
function countsOf({ calls }: StepCalls): string {
  return METHODS.map((_, i) => calls.filter(({ method }) => method === i).length).join(", ");
}

/** Makes the calls of `steps` steps and nothing else; returns microseconds of a step. */
function replay({ device, calls }: StepCalls, steps: number): number {
  const start = performance.now();
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (let step = 0; step < steps; step++) {
    for (const { method, args: [a, b, c, d, e] } of calls) {
      if (method === 0) pass.setPipeline(a as GPUComputePipeline);
      else if (method === 2) pass.dispatchWorkgroups(a as number);
      else if (c === undefined) pass.setBindGroup(a as number, b as GPUBindGroup);
      else {
        pass.setBindGroup(
          a as number,
          b as GPUBindGroup,
          c as Uint32Array,
          d as number,
          e as number,
        );
      }
    }
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
  return 1000 * (performance.now() - start) / steps;
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
  let steps = 0;
  const next = () => {
    const position = Math.max(0, length - TEXT) + steps++ % Math.min(length, TEXT);
    return { rows: 1, position, slot: position, length: position + 1 };
  };
  const settle = () => backend.read(buffers.sampling.drawn);
  return {
    async run(steps: number): Promise<number> {
      const start = performance.now();
      for (let i = 0; i < steps; i++) plans.draw.run(next());
      await Promise.resolve(); // the rest is submitted
      const ms = performance.now() - start;
      await settle();
      return 1000 * ms / steps;
    },
    async calls(): Promise<StepCalls> {
      const calls = callsOf(() => plans.draw.run(next()));
      await settle();
      return calls;
    },
    /** As `run`, of nothing but these calls. */
    async replay(calls: StepCalls, steps: number): Promise<number> {
      const us = replay(calls, steps);
      await settle();
      return us;
    },
    [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose](),
  };
}

const here = new URL("../", import.meta.url);
const roots = flags.against ? [here, pathToFileURL(`${flags.against}/`)] : [here];
const rows: Record<string, Record<string, string | number>> = {};
const shapes = Object.entries(SHAPES).filter(([name]) => name.startsWith(flags.model));
for (const [name, config] of shapes) {
  await using stack = new AsyncDisposableStack();
  const models: Awaited<ReturnType<typeof openModel>>[] = [];
  for (const root of roots) models.push(stack.use(await openModel(root, name, config)));
  const calls = await models[0].calls();
  const times = models.map(() => ({ batch: [] as number[], alone: [] as number[] }));
  const floor: number[] = [];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const [i, model] of models.entries()) {
      await model.run(STEPS);
      // A submit also frees the commands of the last one: each of these follows as many steps.
      const batch = await model.run(STEPS);
      const replayed = i === 0 ? await model.replay(calls, STEPS) : 0;
      const alone = await model.run(1);
      if (round < 0) continue;
      times[i].batch.push(batch);
      times[i].alone.push(alone);
      if (i === 0) floor.push(replayed);
    }
  }
  const [own, other] = times;
  const least = (us: readonly number[]) => Math.min(...us).toFixed(0); // other work only adds
  const ratio = (us: readonly number[]) => median(us.map((each, i) => each / other.batch[i]));
  rows[name] = {
    calls: countsOf(calls),
    [`µs, of ${STEPS}`]: least(own.batch),
    replayed: least(floor),
    alone: least(own.alone),
    ...other && {
      "against: calls": countsOf(await models[1].calls()),
      "its µs": least(other.batch),
      "replayed / its": ratio(floor).toFixed(2),
      "ratio": ratio(own.batch).toFixed(2),
    },
  };
}
console.log(`host time of a token at ${length} keys; calls: ${METHODS.join(", ")}`);
console.table(rows);

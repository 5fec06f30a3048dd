/**
 * What a token costs the host on WebGPU: dispatches, submits and objects, counted on a fake GPU for
 * models of five sizes.
 */
import assert from "node:assert/strict";
import { type Shape, SHAPES } from "../../bench/gpu/shapes.ts";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { Runner } from "../../engine/runner.ts";
import { randomWeights, uploadWeights } from "../../engine/weights/mod.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import type { GpuTensor } from "../../kernels/webgpu/device.ts";
import { FakeGpu } from "../kernels/fake_gpu.ts";

const HARDWARE = { software: false, subgroups: true, maxBytes: 2 ** 31 - 4 };
const SLOTS = 512;

const [DEMO, GPT2, SMOLLM2, ONE_B, EIGHT_B] = SHAPES;

/** A model's runner on a fake GPU; its weights are zeros. */
async function runnerOf({ config, dtype }: Shape) {
  const gpu = new FakeGpu(HARDWARE);
  const backend = await openWebGpuBackend({ tune: false });
  const a = readArchitecture(config, "a shape");
  const source = { ...randomWeights(a, 1, dtype), fill: () => () => {} };
  const weights = await uploadWeights(backend, a, source, SLOTS + 1, () => {});
  const runner = await Runner.create(backend, a, weights, { id: "", slots: SLOTS, chunk: 1 });
  return {
    gpu,
    runner,
    async [Symbol.asyncDispose]() {
      await backend[Symbol.asyncDispose]();
      gpu[Symbol.dispose]();
    },
  };
}

const stepAt = (length: number) => ({
  rows: 1,
  position: length - 1,
  slot: length - 1,
  length,
});

const SAMPLING = { temperature: 0.9, topK: 40, topP: 1, repetitionPenalty: 1 };

for (
  const [shape, most] of [
    [DEMO, 36],
    [GPT2, 66],
    [SMOLLM2, 156],
    [ONE_B, 86],
    [EIGHT_B, 166],
  ] as const
) {
  Deno.test(`a token of ${shape.name} takes at most ${most} dispatches, and one more a layer beyond 64 keys`, async () => {
    await using model = await runnerOf(shape);
    const { gpu, runner: { plans, architecture: { nLayer } } } = model;
    model.runner.startSampling(SAMPLING, 1);
    const count = async (length: number) => {
      gpu.forget();
      plans.draw.run(stepAt(length));
      await Promise.resolve();
      return gpu.calls.dispatchWorkgroups;
    };
    const few = await count(64);
    assert.ok(few <= most, `${few} dispatches`);
    for (const length of [65, SLOTS]) assert.ok(await count(length) <= few + nLayer);
    model.runner.startSampling({ ...SAMPLING, temperature: 0 }, 1);
    assert.ok(await count(64) < few || shape === DEMO, "a greedy draw takes fewer");
  });
}

Deno.test("a token takes as many dispatches when the weights are quantised", async () => {
  const counts: number[] = [];
  for (const dtype of ["BF16", "Q8_0", "Q4_K", "Q6_K"] as const) {
    await using model = await runnerOf({ ...ONE_B, dtype });
    model.runner.startSampling(SAMPLING, 1);
    model.gpu.forget();
    model.runner.plans.draw.run(stepAt(64));
    await Promise.resolve();
    counts.push(model.gpu.calls.dispatchWorkgroups);
  }
  assert.deepEqual(new Set(counts).size, 1, `${counts}`);
});

Deno.test("a batch of steps is submitted after its first step, then every four, and makes no objects", async () => {
  await using model = await runnerOf(DEMO);
  const { gpu, runner: { backend, buffers: { sampling }, plans } } = model;
  const read = () => backend.read(sampling.drawn);
  plans.draw.run(stepAt(1));
  await read(); // the read's staging buffer is reused
  // Each batch begins the text again, so its first step writes; the last meets the end of the ring.
  const batches = [[1, 1, 1], [2, 2, 1], [5, 2, 1], [6, 3, 1], [64, 17, 2]];
  for (const [steps, submits, writes] of batches) {
    gpu.forget();
    for (let i = 0; i < steps; i++) plans.draw.run(stepAt(i + 1));
    assert.equal(gpu.calls.submit ?? 0, submits - 1, `${steps} steps, before the read`);
    await read();
    assert.equal(gpu.calls.submit, submits, `${steps} steps`);
    const made = Object.keys(gpu.calls).filter((name) => name.startsWith("create"));
    assert.deepEqual(made, ["createCommandEncoder"]);
    assert.equal(gpu.calls.createCommandEncoder, submits);
    assert.equal(gpu.calls.beginComputePass, submits);
    assert.equal(gpu.calls.writeBuffer, writes);
  }
});

Deno.test("the norms and biases of a model are in one buffer", async () => {
  await using model = await runnerOf(GPT2);
  const { h, lnF } = model.runner.weights;
  const vectors = h.flatMap(({ ln1, ln2, attn, mlp }) => [
    ...[ln1!, ln2!].flatMap(({ weight, bias }) => [weight, bias]),
    ...[...attn.cAttn, attn.cProj, mlp.cFc, mlp.cProj].map(({ bias }) => bias),
  ]);
  const buffers = new Set([...vectors, lnF!.weight, lnF!.bias].map((t) => (t as GpuTensor).buffer));
  assert.equal(buffers.size, 1);
});

Deno.test("a step takes other workgroups when its rows or its keys change", async () => {
  using gpu = new FakeGpu({ ...HARDWARE, subgroups: false });
  await using backend = await openWebGpuBackend({ tune: false });
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const [x, y] = [f32(4, 8), f32(4, 8)];
  const plan = await backend.record((k) =>
    k.norm(y, x, { kind: "rms", weight: f32(8), eps: 1e-5 })
  );
  const [q, k, v] = [f32(1, 8), f32(1, SLOTS, 8), f32(1, SLOTS, 8)];
  const decode = await backend.record((record) => record.attention(f32(1, 8), q, { k, v }));
  const run = async (each: typeof plan, rows: number, length: number) => {
    gpu.forget();
    each.run({ rows, position: length - rows, slot: length - rows, length });
    await Promise.resolve();
    return gpu.dispatches.map(({ groups }) => groups);
  };
  for (const rows of [4, 1, 3, 3]) assert.deepEqual(await run(plan, rows, 4), [rows]);
  const dispatches: number[] = [];
  for (const length of [64, SLOTS, 64]) dispatches.push((await run(decode, 1, length)).length);
  assert.deepEqual(dispatches, [1, 2, 1]);
});

Deno.test("a step sets a pipeline once when neighbouring dispatches share it", async () => {
  using gpu = new FakeGpu(HARDWARE);
  await using backend = await openWebGpuBackend({ tune: false });
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const [x, y, z] = [f32(1, 8), f32(1, 8), f32(1, 8)];
  const norm = { kind: "rms", weight: f32(8), eps: 1e-5 } as const;
  const plan = await backend.record((k) => {
    k.norm(y, x, norm);
    k.norm(z, x, norm);
    k.norm(y, x, norm);
  });
  gpu.forget();
  for (let i = 0; i < 2; i++) plan.run(stepAt(1));
  await Promise.resolve();
  // In each submit; the step's slot is a bind group, too.
  assert.deepEqual(
    [gpu.calls.submit, gpu.calls.setPipeline, gpu.calls.setBindGroup, gpu.calls.dispatchWorkgroups],
    [2, 2, 8, 6],
  );
});

import assert from "node:assert/strict";
import type { Backend, Recorder, Segment } from "../../kernels/backend.ts";
import { costOf, record } from "../../kernels/calls.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { type AttentionOptions, openBackend } from "../../kernels/mod.ts";
import { mergeCosts } from "../../kernels/ops/contract.ts";
import { addUp, laps, profileRuns } from "../../kernels/profile.ts";
import { measureWasm } from "../../kernels/wasm/limits.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { measureWebGpu, openWebGpuBackend, probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { fillFrom, randomNumbers } from "../testing.ts";

const webgpu = { ignore: await probeWebGpu() === null };

/** Parts of a small block, with its state on a backend. */
async function block(backend: Backend, T: number) {
  const [C, H, D, S, V] = [8, 2, 4, 16, 12];
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const weight = (N: number, K: number) =>
    backend.weight([N, K], "F32", fillFrom(new Float32Array(N * K).fill(0.5)), { stored: "NK" });
  const [x, n, q, y, qkv] = [f32(T, C), f32(T, C), f32(T, C), f32(T, C), f32(T, 3 * C)];
  const cache = { k: f32(H, S, D), v: f32(H, S, D) };
  const ids = backend.tensor([T], "I32", "activations");
  const [wte, wpe, cAttn] = [await weight(V, C), await weight(S, C), await weight(3 * C, C)];
  const norm = { kind: "layer" as const, weight: f32(C), bias: f32(C), eps: 1e-5 };
  backend.write(norm.weight, randomNumbers(C, 1));
  const build = (k: Recorder) => {
    k.embed(x, wte, ids);
    k.addPosition(x, wpe);
    for (let layer = 0; layer < 2; layer++) {
      k.norm(n, x, norm);
      k.matmul(qkv, n, cAttn);
      k.writeKv(q, cache, qkv);
      k.attention(y, q, cache);
    }
    k.norm(n, x, norm);
    k.discard(qkv);
  };
  return { build, read: () => backend.read(y) };
}

const step: Segment = { rows: 1, position: 4, slot: 4, length: 5 };

const BACKENDS: Record<string, { open: () => Promise<Backend>; ignore?: boolean }> = {
  js: { open: () => Promise.resolve(openJsBackend()) },
  "wasm on one thread": { open: () => openWasmBackend({ threads: 1 }) },
  "wasm on two threads": { open: () => openWasmBackend({ threads: 2 }) },
  "webgpu by its clock": { open: () => openWebGpuBackend(), ...webgpu },
  "webgpu by differences": { open: () => openWebGpuBackend({ clock: false }), ...webgpu },
};

for (const [name, { open, ignore }] of Object.entries(BACKENDS)) {
  Deno.test({
    name: `profile() reports calls, bytes and FLOPs of each kind on ${name}`,
    ignore,
    async fn() {
      await using backend = await open();
      const { build } = await block(backend, 1);
      const start = performance.now();
      const kinds = await backend.profile(build, step);
      const elapsed = performance.now() - start;
      const calls = Object.fromEntries(kinds.map(({ name, calls }) => [name, calls]));
      const merged = { "embed + addPosition": 1, "norm + matmul 8→24 + writeKv": 2, norm: 1 };
      const alone = { embed: 1, addPosition: 1, norm: 3, "matmul 8→24": 2, writeKv: 2 };
      const expected = backend.name === "webgpu" ? merged : alone;
      assert.deepEqual(calls, { ...expected, attention: 2 });
      const attention = kinds.find(({ name }) => name === "attention")!;
      assert.equal(attention.flops, 2 * 4 * 5 * 8); // two calls of q · k and p · v over five keys
      for (const { name, ms } of kinds) assert.ok(ms >= 0 && ms < elapsed, `${name}: ${ms} ms`);
    },
  });

  Deno.test({
    name: `profile() runs the calls of a plan, and leaks no bytes, on ${name}`,
    ignore,
    async fn() {
      await using backend = await open();
      const { build, read } = await block(backend, 3);
      const many = { rows: 3, position: 0, slot: 0, length: 3 };
      using plan = await backend.record(build);
      plan.run(many);
      const expected = await read();
      const bytes = backend.memory.classes.activations.current;
      await backend.profile(build, many);
      assert.deepEqual(await read(), expected);
      assert.equal(backend.memory.classes.activations.current, bytes);
      assert.deepEqual(await backend.profile(() => {}, many), []);
    },
  });
}

Deno.test("costOf() counts the visible keys when rows have a window", async () => {
  await using backend = await openBackend("js");
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const [y, q, cache] = [f32(4, 8), f32(4, 8), { k: f32(1, 16, 4), v: f32(1, 16, 4) }];
  const costOfAttention = (options?: AttentionOptions) => {
    const [call] = record((k) => k.attention(y, q, cache, options));
    return costOf(call, { rows: 4, position: 6, slot: 6, length: 10 });
  };
  // Rows see 7, 8, 9 and 10 keys; with a window of 3 each sees three, six in all.
  assert.deepEqual(costOfAttention(), {
    name: "attention",
    bytes: 4 * (2 * 4 * 10 + 2 * 4 * 8),
    flops: 4 * 8 * 34,
  });
  assert.deepEqual(costOfAttention({ window: 3 }), {
    name: "attention",
    bytes: 4 * (2 * 4 * 6 + 2 * 4 * 8),
    flops: 4 * 8 * 12,
  });
});

Deno.test("costOf() counts stored bytes when a weight has 16 bits", async () => {
  await using backend = await openBackend("js");
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const weight = await backend.weight([6, 8], "BF16", () => {}, { stored: "NK" });
  const [y, x, bias] = [f32(2, 6), f32(2, 8), f32(6)];
  const [call] = record((k) => k.matmul(y, x, weight, { bias, residual: true }));
  const cost = costOf(call, { rows: 2, position: 0, slot: 0, length: 2 });
  const bytes = 2 * 48 + 4 * (2 * (8 + 6 + 6) + 6); // W; x, y twice; bias
  assert.deepEqual(cost, { name: "matmul 8→6", bytes, flops: 2 * 2 * 48 });
});

Deno.test("mergeCosts() omits tensors that its parts pass on", () => {
  const costs = [{ name: "a", bytes: 10, flops: 1 }, { name: "b", bytes: 20, flops: 2 }];
  assert.deepEqual(mergeCosts(costs, 8), { name: "a + b", bytes: 22, flops: 3 });
});

Deno.test("profileRuns() adds up the medians of a part's entries", async () => {
  const parts = [{ name: "a", bytes: 1, flops: 2, entries: 2 }, {
    name: "b",
    bytes: 3,
    flops: 4,
    entries: 1,
  }];
  let run = 0;
  // Every third run is disturbed.
  const times = await profileRuns(parts, () => run++ % 3 ? [1, 2, 4] : [100, 2, 4]);
  assert.deepEqual(times, [
    { name: "a", calls: 1, ms: 3, bytes: 1, flops: 2 },
    { name: "b", calls: 1, ms: 4, bytes: 3, flops: 4 },
  ]);
});

Deno.test("addUp() joins parts of one name, in order of first appearance", () => {
  const part = (name: string) => ({ name, bytes: 1, flops: 2, entries: 1 });
  const kinds = addUp([part("b"), part("a"), part("b")], [1, 2, 3]);
  assert.deepEqual(kinds, [
    { name: "b", calls: 2, ms: 4, bytes: 2, flops: 4 },
    { name: "a", calls: 1, ms: 2, bytes: 1, flops: 2 },
  ]);
});

Deno.test("laps() gives the times between marks", () => {
  assert.deepEqual(laps(1, [3, 4, 8]), [2, 1, 4]);
});

Deno.test("measureWasm() measures the limits of threads", async () => {
  const { readBytesPerSec, flopsPerSec } = await measureWasm(1);
  assert.ok(readBytesPerSec > 1e8 && flopsPerSec > 1e8);
});

Deno.test({
  name: "measureWebGpu() measures the limits of the adapter and lists its features",
  ...webgpu,
  async fn() {
    const { features, faulty, ...limits } = await measureWebGpu();
    for (const [name, value] of Object.entries(limits)) assert.ok(value > 0, name);
    for (const names of [features, faulty]) assert.ok(Array.isArray(names));
  },
});

/** Tensors in one buffer on WebGPU: their numbers, their buffers, and their use in calls. */
import assert from "node:assert/strict";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import type { GpuTensor } from "../../kernels/webgpu/device.ts";
import { randomNumbers } from "../testing.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { FakeGpu } from "./fake_gpu.ts";
import { put, stepOf } from "./twins.ts";

const ignore = await ignoreWithoutAdapter("webgpu_together_test.ts");

const f32 = (...shape: number[]) => ({ shape, dtype: "F32" as const });

Deno.test({
  name: "tensors of one buffer are read and written apart",
  ignore,
  async fn() {
    await using backend = await openWebGpuBackend();
    const specs = [f32(3), { shape: [5], dtype: "F16" as const }, f32(70), f32(1)];
    const tensors = backend.tensorsTogether!(specs, "activations");
    assert.equal(new Set(tensors.map((t) => (t as GpuTensor).buffer)).size, 1);
    const all = [
      Float32Array.of(1, 2, 3),
      Uint16Array.of(4, 5, 6, 7, 8),
      randomNumbers(70, 1),
      Float32Array.of(9),
    ];
    for (const [i, data] of all.entries()) backend.write(tensors[i], data);
    for (const [i, data] of all.entries()) assert.deepEqual(await backend.read(tensors[i]), data);
    assert.deepEqual(await backend.read(tensors[1], 3, 2), Uint16Array.of(7, 8));
    assert.throws(() => backend.write(tensors[0], new Float32Array(4)), RangeError);
    await assert.rejects(backend.read(tensors[3], 1, 1), RangeError);
  },
});

Deno.test({
  name: "a call over tensors of one buffer computes the same bits, and leaves the others alone",
  ignore,
  async fn() {
    await using backend = await openWebGpuBackend();
    const [T, C] = [2, 66];
    const weight = put(backend, randomNumbers(C, 1), [C]);
    const data = randomNumbers(T * C, 2);
    const x = put(backend, data, [T, C]);
    const y = backend.tensor([T, C], "F32", "activations");
    const [before, xs, ys, after] = backend.tensorsTogether!(
      [f32(7), f32(T, C), f32(T, C), f32(7)],
      "activations",
    );
    const sevens = new Float32Array(7).fill(7);
    for (const t of [before, after]) backend.write(t, sevens);
    backend.write(xs, data);
    const norm = { kind: "layer", weight, eps: 1e-5 } as const;
    using plan = await backend.record((k) => {
      k.norm(y, x, norm);
      k.norm(ys, xs, norm);
    });
    plan.run(stepOf(T));
    assert.deepEqual(await backend.read(ys), await backend.read(y));
    assert.deepEqual(await backend.read(xs), data);
    for (const t of [before, after]) assert.deepEqual(await backend.read(t), sevens);
  },
});

Deno.test("tensors that one buffer cannot hold have one each; one too large is refused", async () => {
  using _ = new FakeGpu({ software: false, subgroups: false, maxBytes: 4096 });
  await using backend = await openWebGpuBackend({ tune: false });
  const buffersOf = (...sizes: number[]) => {
    const tensors = backend.tensorsTogether!(sizes.map((n) => f32(n)), "activations");
    return new Set(tensors.map((t) => (t as GpuTensor).buffer)).size;
  };
  assert.equal(buffersOf(512, 512), 1);
  assert.equal(buffersOf(513, 512), 2);
  assert.throws(() => buffersOf(1, 1025), /Cannot make "tensor F32 \[1025\]" on webgpu/);
});

Deno.test("one binding per tensor of a written buffer is read-write, and none twice", async () => {
  using gpu = new FakeGpu({ software: false, subgroups: false });
  await using backend = await openWebGpuBackend({ tune: false });
  const [x, y, gate] = backend.tensorsTogether!([f32(1, 8), f32(1, 8), f32(1, 8)], "activations");
  const weight = await backend.weight([8, 8], "F32", () => {}, { stored: "NK" });
  gpu.shaders.clear();
  await backend.record((k) => k.matmul(y, x, weight, { gate }));
  const [code] = gpu.shaders.keys();
  const access = (name: string) => code.match(`var<storage, (\\w+)> ${name}:`)?.[1];
  assert.deepEqual(["y", "x", "gate", "weight"].map(access), [
    "read_write",
    "read_write",
    "read_write",
    "read",
  ]);
  await assert.rejects(
    backend.record((k) => k.matmul(y, x, weight, { gate: x })),
    /no written tensor to be another operand/,
  );
});

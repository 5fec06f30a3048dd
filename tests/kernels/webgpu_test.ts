import assert from "node:assert/strict";
import type { Backend, Plan } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import type { Rows } from "../../kernels/ops/matmul/mod.ts";
import { narrow } from "../../kernels/formats/mod.ts";
import { bytesOf, type StoredOrder, type Tensor } from "../../kernels/tensor.ts";
import {
  openWebGpuBackend,
  probeWebGpu,
  type WebGpuOptions,
} from "../../kernels/webgpu/backend.ts";
import { BufferSpy, Spy } from "./spy.ts";
import { checkMatmulCase, checkNormCase, put, stepOf, upload } from "./twins.ts";
import { checkTiles } from "./twins_tiles.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";

const adapter = await probeWebGpu();
const ignore = await ignoreWithoutAdapter("webgpu_test.ts");

/** A test that requires an adapter. */
function gpuTest(
  name: string,
  run: (backend: Backend) => Promise<void>,
  options?: WebGpuOptions,
): void {
  Deno.test({
    name,
    ignore,
    async fn() {
      await using backend = await openWebGpuBackend(options);
      await run(backend);
    },
  });
}

const NORM_SIZE = 66;

/** A norm over T rows, its plan and its operands. */
async function normPlan(backend: Backend, T = 3) {
  const C = NORM_SIZE;
  const x = put(backend, randomNumbers(T * C, 1), [T, C]);
  const y = backend.tensor([T, C], "F32", "activations");
  const weight = put(backend, new Float32Array(C).fill(1), [C]);
  const plan = await backend.record((k) => k.norm(y, x, { kind: "rms", weight, eps: 1e-5 }));
  return { x, y, plan };
}

/** Norm, matmul and sample of a head, over one row. */
async function headPlan(backend: Backend): Promise<{ plan: Plan; ids: Tensor }> {
  const [V, C] = [65, NORM_SIZE];
  const x = put(backend, randomNumbers(C, 1), [1, C]);
  const weight = put(backend, new Float32Array(C).fill(1), [C]);
  const matrix: Rows = {
    data: bytesOf(narrow(randomNumbers(V * C, 2), "BF16")),
    dtype: "BF16",
    shape: [V, C],
  };
  const head = await upload(backend, matrix, "NK");
  const logits = backend.tensor([1, V], "F32", "activations");
  const ids = backend.tensor([1], "I32", "activations");
  const sampling = {
    settings: put(backend, new Float32Array([1, 0, 1, 1]), [4]),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([V], "U32", "activations"),
    drawn: backend.tensor([8], "I32", "activations"),
  };
  const plan = await backend.record((k) => {
    k.norm(x, x, { kind: "layer", weight, eps: 1e-5 });
    k.matmul(logits, x, head);
    k.sample(ids, logits, sampling);
  });
  return { plan, ids };
}

/** A decoder like GPT-2's, over one row and `slots` of cache, including the draw. */
async function decoderPlan(backend: Backend, layers: number, slots: number) {
  const [V, C, H, F] = [65, 64, 4, 128];
  const weight = (N: number, K: number) =>
    upload(backend, { data: randomNumbers(N * K, N + K), dtype: "F32", shape: [N, K] }, "NK");
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const ids = backend.tensor([1], "I32", "activations");
  const [x, n, qkv, q, y, f, logits] = [C, C, 3 * C, C, C, F, V].map((width) => f32(1, width));
  const norm = {
    kind: "layer" as const,
    weight: put(backend, new Float32Array(C).fill(1), [C]),
    eps: 1e-5,
  };
  const [wte, wpe] = [await weight(V, C), await weight(slots, C)];
  const blocks = await Promise.all(Array.from({ length: layers }, async () => ({
    cAttn: await weight(3 * C, C),
    cProj: await weight(C, C),
    cFc: await weight(F, C),
    down: await weight(C, F),
    cache: { k: f32(H, slots, C / H), v: f32(H, slots, C / H) },
  })));
  const sampling = {
    settings: put(backend, new Float32Array([1, 0, 1, 1]), [4]),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([V], "U32", "activations"),
    drawn: backend.tensor([128], "I32", "activations"),
  };
  const plan = await backend.record((k) => {
    k.embed(x, wte, ids);
    k.addPosition(x, wpe);
    for (const { cAttn, cProj, cFc, down, cache } of blocks) {
      k.norm(n, x, norm);
      k.matmul(qkv, n, cAttn);
      k.writeKv(q, cache, qkv);
      k.attention(y, q, cache);
      k.matmul(x, y, cProj, { residual: true });
      k.norm(n, x, norm);
      k.matmul(f, n, cFc, { activation: "geluTanh" });
      k.matmul(x, f, down, { residual: true });
    }
    k.norm(n, x, norm);
    k.matmul(logits, n, wte);
    k.sample(ids, logits, sampling);
    k.discard(n, qkv);
  });
  const step = (i: number) => ({ rows: 1, position: i, slot: i, length: i + 1 });
  return { plan, step, drawn: sampling.drawn };
}

gpuTest(
  "run() takes at most 6 dispatches per layer and 3 more when a block is GPT-2's",
  async (backend) => {
    // Few keys take one split, in a long cache too; many are split and reduced.
    for (const [slots, position, perLayer] of [[128, 0, 5], [700, 0, 5], [700, 600, 6]]) {
      const { plan, step, drawn } = await decoderPlan(backend, 3, slots);
      using spy = new Spy().on(GPUComputePassEncoder, "dispatchWorkgroups");
      plan.run(step(position));
      assert.equal(spy.calls.dispatchWorkgroups, 3 * perLayer + 3);
      await backend.read(drawn);
    }
  },
);

gpuTest(
  "run() creates only an encoder, a pass and a submit when steps are queued",
  async (backend) => {
    const { plan, step, drawn } = await decoderPlan(backend, 1, 300);
    plan.run(step(0));
    await backend.read(drawn);
    await new Promise((resolve) => setTimeout(resolve, 30)); // the read's staging buffer is reused
    using spy = new Spy().onCreate();
    spy.on(GPUQueue, "submit").on(GPUCommandEncoder, "beginComputePass");
    for (let i = 1; i <= 5; i++) plan.run(step(i));
    const ids = await backend.read(drawn);
    assert.deepEqual(spy.calls, { createCommandEncoder: 1, beginComputePass: 1, submit: 1 });
    plan.run(step(6));
    await Promise.resolve();
    assert.equal(spy.calls.submit, 2, "sent as soon as the caller awaits anything");
    assert.deepEqual((await backend.read(drawn)).slice(0, 6), ids.slice(0, 6));
  },
);

for (const software of [false, true]) {
  gpuTest(
    `run() gives the same ids when steps are queued together and one by one, software: ${software}`,
    async (backend) => {
      const [all, one] = [await decoderPlan(backend, 2, 300), await decoderPlan(backend, 2, 300)];
      for (let i = 0; i < 100; i++) all.plan.run(all.step(i)); // more than one submit holds
      const together = await backend.read(all.drawn);
      for (let i = 0; i < 100; i++) {
        one.plan.run(one.step(i));
        if (i % 9 === 0) await backend.read(one.drawn, 0, 1);
      }
      assert.deepEqual(await backend.read(one.drawn), together);
      assert.ok(new Set(together).size > 20);
    },
    { software, tune: false },
  );
}

// tests/soak/webgpu_test.ts has every tile with every shape.
gpuTest("matmul() agrees with matmulJs() when any tile is chosen", (b) => checkTiles(b, false));

Deno.test({
  name: "weight() is split when it exceeds one binding, and embed() and matmul() read its parts",
  ignore,
  async fn() {
    const limits = GPUSupportedLimits.prototype;
    const name = "maxStorageBufferBindingSize";
    const original = Object.getOwnPropertyDescriptor(limits, name) as PropertyDescriptor;
    Object.defineProperty(limits, name, { get: () => 10 << 10, configurable: true });
    try {
      await using backend = await openWebGpuBackend();
      const [T, V, C] = [5, 300, 66];
      for (const stored of ["NK", "KN"] as StoredOrder[]) {
        await checkMatmulCase(backend, { T, N: V, K: C, stored, bias: true });
        await checkMatmulCase(backend, { T: 1, N: V, K: C, stored });
        const data = randomNumbers(V * C, 3);
        const table = await upload(backend, { data, dtype: "F32", shape: [V, C] }, stored);
        const ids = Int32Array.of(0, 299, 160, -1, 300);
        const y = put(backend, randomNumbers(T * C, 1), [T, C]);
        const from = put(backend, ids, [T], "I32");
        using plan = await backend.record((k) => {
          k.embed(y, table, from);
          k.addPosition(y, table);
        });
        plan.run({ ...stepOf(T), position: 125 });
        const expected = Float32Array.from({ length: T * C }, (_, i) => {
          const [t, c] = [Math.floor(i / C), i % C];
          return (ids[t] < 0 || ids[t] >= V ? 0 : data[ids[t] * C + c]) + data[(125 + t) * C + c];
        });
        assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel, stored);
      }
    } finally {
      Object.defineProperty(limits, name, original);
    }
  },
});

gpuTest(
  "expectFree() reports the free bytes when they are too few, and keeps nothing",
  async (backend) => {
    const { current } = backend.memory;
    assert.ok(backend.expectFree);
    await backend.expectFree("a model", 1000);
    const original = GPUDevice.prototype.popErrorScope;
    GPUDevice.prototype.popErrorScope = async function () {
      await original.call(this);
      return { message: "out of memory" };
    };
    try {
      await assert.rejects(
        backend.expectFree("a model", 1000),
        (error: Error) =>
          error instanceof DeviceError &&
          /^Cannot load "a model" .*at most 0 bytes .*got 1000; choose a smaller/.test(
            error.message,
          ),
      );
    } finally {
      GPUDevice.prototype.popErrorScope = original;
    }
    assert.equal(backend.memory.current, current);
  },
  { software: false },
);

gpuTest("record() keeps the output of a norm when the host may read it", async (backend) => {
  const C = 66;
  const x = put(backend, randomNumbers(C, 1), [1, C]);
  const n = backend.tensor([1, C], "F32", "activations");
  const y = backend.tensor([1, C], "F32", "activations");
  const weight = put(backend, new Float32Array(C).fill(1), [C]);
  const identity = new Float32Array(C * C).map((_, i) => i % (C + 1) === 0 ? 1 : 0);
  const w = await upload(backend, { data: identity, dtype: "F32", shape: [C, C] }, "NK");
  using plan = await backend.record((k) => {
    k.norm(n, x, { kind: "rms", weight, eps: 1e-5 });
    k.matmul(y, n, w);
  });
  plan.run(stepOf(1));
  const normed = await backend.read(n) as Float32Array;
  assert.ok(normed.some((v) => v !== 0));
  assertClose(await backend.read(y) as Float32Array, normed, TOLERANCE.kernel);
});

gpuTest("run() covers every row when there are more than 65535 workgroups", async (backend) => {
  await checkNormCase(backend, { T: 70001, C: 2, kind: "rms" });
  await checkMatmulCase(backend, { T: 131201, N: 65, K: 1 });
});

gpuTest("write() leaves queued steps alone when it comes after them", async (backend) => {
  const { x, y, plan } = await normPlan(backend, 1);
  const filled = (value: number) => new Float32Array(NORM_SIZE).fill(value);
  backend.write(x, filled(5));
  plan.run(stepOf(1));
  backend.write(x, filled(-5));
  assertClose(await backend.read(y) as Float32Array, filled(1), TOLERANCE.kernel);
  plan.run(stepOf(1));
  backend.write(y, filled(7));
  assert.deepEqual(await backend.read(y), filled(7));
});

gpuTest("read() returns the written numbers when counts and offsets are odd", async (backend) => {
  const t = backend.tensor([7], "BF16", "activations");
  backend.write(t, new Uint16Array([1, 2, 3, 4, 5, 6, 7]));
  backend.write(t, new Uint16Array([30, 40]), 2);
  backend.write(t, new Uint16Array([70]), 6);
  assert.deepEqual(await backend.read(t), new Uint16Array([1, 2, 30, 40, 5, 6, 70]));
  assert.deepEqual(await backend.read(t, 3, 2), new Uint16Array([40, 5]));
  assert.deepEqual(await backend.read(t, 6), new Uint16Array([70]));
  assert.deepEqual(await backend.read(t, 7), new Uint16Array(0));
  for (const [count, offset] of [[2, 1], [1, 0], [2, 6], [8, 0]]) {
    assert.throws(() => backend.write(t, new Uint16Array(count), offset), RangeError);
  }
  assert.throws(() => backend.write(t, new Float32Array(1)), TypeError);
  await assert.rejects(backend.read(t, 5, 3), RangeError);
});

gpuTest("memory counts the bytes of live buffers when they are made and freed", async () => {
  using spy = new BufferSpy();
  const backend = await openWebGpuBackend();
  backend.tensor([3, 5], "F16", "kvCache");
  const { plan, ids } = await headPlan(backend);
  plan.run(stepOf(1));
  await backend.read(ids);
  const { classes } = backend.memory;
  assert.equal(classes.kvCache.current, 32); // 15 halves, padded to 16 bytes
  assert.equal(classes.weights.current, 96 * 72 * 2); // panels of 32 rows, words of 8 inputs
  assert.equal(classes.staging.current, 64 * 256 + 4096); // the steps' submit, and the read's
  assert.equal(backend.memory.current, spy.bytes);
  assert.equal(backend.memory.peak, spy.peak);
  const held = spy.bytes;
  plan[Symbol.dispose]();
  assert.equal(spy.bytes, held - 4 * 65); // sampling's scratch
  assert.equal(backend.memory.current, spy.bytes);
  await backend[Symbol.asyncDispose]();
  assert.equal(spy.alive.size, 0);
  assert.equal(backend.memory.current, 0);
  for (const { current } of Object.values(classes)) assert.equal(current, 0);
  plan[Symbol.dispose]();
  assert.equal(backend.memory.current, 0);
  await assert.rejects(backend.read(ids), DeviceError);
});

gpuTest(
  "weight() throws before it allocates when a binding cannot hold a panel",
  async (backend) => {
    using spy = new Spy().on(GPUDevice, "createBuffer");
    const made = backend.weight([1, 2 ** 26], "F32", () => {}, { stored: "NK" });
    await assert.rejects(
      made,
      (error: Error) =>
        error instanceof RangeError &&
        /expected 32 rows within \d+ bytes .* got 8589934592$/.test(error.message),
    );
    assert.throws(() => backend.tensor([2 ** 32], "F32", "activations"), RangeError);
    assert.deepEqual(spy.calls, {});
  },
);

gpuTest(
  "record() throws a RangeError and frees its scratch when operands do not fit",
  async (backend) => {
    const t = backend.tensor([1, 3], "F32", "activations");
    const weight = backend.tensor([4], "F32", "activations");
    const { current } = backend.memory;
    await assert.rejects(
      backend.record((k) => k.norm(t, t, { kind: "rms", weight, eps: 0 })),
      RangeError,
    );
    const both = backend.tensor([2], "I32", "activations");
    const counter = backend.tensor([3], "U32", "activations");
    const held = backend.memory.current;
    const sampling = { settings: weight, counter, seen: counter, drawn: both };
    await assert.rejects(backend.record((k) => k.sample(both, t, sampling)), RangeError);
    assert.equal(backend.memory.current, held);
    assert.ok(held > current);
  },
);

gpuTest("record() names the kernel when its shader does not compile", async (backend) => {
  const original = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    return original.call(this, { ...descriptor, code: descriptor.code + "\nbroken" });
  };
  try {
    await assert.rejects(
      normPlan(backend),
      (error: Error) =>
        error instanceof DeviceError &&
        /^Cannot compile "norm" on webgpu: .*broken/s.test(error.message),
    );
  } finally {
    GPUDevice.prototype.createShaderModule = original;
  }
});

gpuTest(
  "read() throws the queue's error when a buffer is invalid or the device lost",
  async () => {
    let device: GPUDevice | undefined;
    using _spy = new Spy().on(GPUDevice, "createBuffer", (self) => device = self as GPUDevice);
    await using backend = await openWebGpuBackend();
    const { y, plan } = await normPlan(backend);
    const { MAP_READ, STORAGE } = GPUBufferUsage;
    device?.createBuffer({ size: 4, usage: MAP_READ | STORAGE });
    plan.run(stepOf(3));
    await assert.rejects(backend.read(y), DeviceError);
    assert.equal((await backend.read(y)).length, 3 * NORM_SIZE);
    device?.destroy();
    plan.run(stepOf(3));
    for (let i = 0; i < 2; i++) {
      await assert.rejects(
        backend.read(y),
        (error: Error) => error instanceof DeviceError && /lost/.test(error.message),
      );
    }
  },
);

gpuTest("read() reports a lost device when it is lost between two steps", async (backend) => {
  let device: GPUDevice | undefined;
  using _spy = new Spy().on(
    GPUDevice,
    "createCommandEncoder",
    (self) => device = self as GPUDevice,
  );
  const { plan, step, drawn } = await decoderPlan(backend, 1, 40);
  for (let i = 0; i < 3; i++) plan.run(step(i));
  await backend.read(drawn);
  plan.run(step(3));
  device?.destroy();
  plan.run(step(4));
  for (let i = 0; i < 2; i++) {
    await assert.rejects(
      backend.read(drawn),
      (error: Error) =>
        error instanceof DeviceError && /lost.*open the backend again/.test(error.message),
    );
  }
  plan.run(step(5));
  await assert.rejects(
    upload(backend, { data: randomNumbers(4, 1), dtype: "F32", shape: [2, 2] }, "NK").then(() =>
      backend.read(drawn)
    ),
    DeviceError,
  );
});

Deno.test("openWebGpuBackend() throws and probeWebGpu() is null when there is no WebGPU or no adapter", async () => {
  const denied = [
    undefined,
    { requestAdapter: () => Promise.resolve(null) },
    { requestAdapter: () => Promise.reject(new Error("denied")) },
  ];
  for (const gpu of denied) {
    Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
    try {
      assert.equal(await probeWebGpu(), null);
      await assert.rejects(
        openWebGpuBackend(),
        (error: Error) =>
          error instanceof DeviceError &&
          /^Cannot open "webgpu": .*choose "cpu"$/.test(error.message),
      );
    } finally {
      Reflect.deleteProperty(navigator, "gpu");
    }
  }
});

gpuTest("openWebGpuBackend() opens when a device grants no feature", async () => {
  const original = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = function (descriptor) {
    if ([...descriptor?.requiredFeatures ?? []].length) {
      return Promise.reject(new TypeError("unknown feature"));
    }
    return original.call(this, descriptor);
  };
  try {
    await using backend = await openWebGpuBackend();
    await checkMatmulCase(backend, { T: 1, N: 3, K: 5 });
  } finally {
    GPUAdapter.prototype.requestDevice = original;
  }
});

gpuTest("openWebGpuBackend() describes the adapter when it opens", async (backend) => {
  assert.equal(backend.name, "webgpu");
  assert.equal(backend.threads, 1);
  assert.equal(backend.description, adapter?.description);
  const software = (await navigator.gpu.requestAdapter())?.info.isFallbackAdapter ?? false;
  assert.equal(adapter?.software, software);
  assert.equal(backend.description.endsWith(", in software"), software);
});

import assert from "node:assert/strict";
import type { Backend, Plan } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import type { Rows } from "../../kernels/matmul/mod.ts";
import { narrow, type Tensor } from "../../kernels/tensor.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { checkMatmulCase, checkNormCase, put, stepOf, twinTests, upload } from "./twins.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";

const adapter = await globalThis.navigator?.gpu?.requestAdapter() ?? null;
const required = Deno.env.get("WGSLM_REQUIRE_WEBGPU") === "1";
const ignore = adapter === null && !required;
if (ignore) {
  console.warn(
    "webgpu_test.ts: SKIPPED, no WebGPU adapter here (WGSLM_REQUIRE_WEBGPU=1 makes that a failure)",
  );
}

/** A test that needs an adapter. */
function gpuTest(name: string, run: (backend: Backend) => Promise<void>): void {
  Deno.test({
    name,
    ignore,
    async fn() {
      await using backend = await openWebGpuBackend();
      await run(backend);
    },
  });
}

twinTests(gpuTest);

/** Counts the calls of some methods of a WebGPU class while it is in use. */
class Spy implements Disposable {
  readonly calls: Record<string, number> = {};
  readonly #undo: (() => void)[] = [];

  /** `seen` is given what each call was given, with `this` and its result in front. */
  on(
    { prototype }: { prototype: object },
    method: string,
    seen: (self: unknown, result: unknown, args: unknown[]) => void = () => {},
  ): this {
    const calls = this.calls;
    const original = Reflect.get(prototype, method) as (...args: unknown[]) => unknown;
    Reflect.set(prototype, method, function (this: unknown, ...args: unknown[]) {
      calls[method] = (calls[method] ?? 0) + 1;
      const result = original.apply(this, args);
      seen(this, result, args);
      return result;
    });
    this.#undo.push(() => Reflect.set(prototype, method, original));
    return this;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo) undo();
  }
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

/** norm, matmul and sample as a head has them, over one row. */
async function headPlan(backend: Backend): Promise<{ plan: Plan; ids: Tensor }> {
  const [V, C] = [65, NORM_SIZE];
  const x = put(backend, randomNumbers(C, 1), [1, C]);
  const weight = put(backend, new Float32Array(C).fill(1), [C]);
  const matrix: Rows = {
    data: narrow(randomNumbers(V * C, 2), "BF16"),
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

gpuTest(
  "run() makes nothing but one pass and one submit when a step is replayed",
  async (backend) => {
    const { plan, ids } = await headPlan(backend);
    const made = Object.getOwnPropertyNames(GPUDevice.prototype).filter((name) =>
      name.startsWith("create")
    );
    using spy = new Spy();
    for (const method of made) spy.on(GPUDevice, method);
    spy.on(GPUQueue, "submit").on(GPUCommandEncoder, "beginComputePass");
    spy.on(GPUComputePassEncoder, "dispatchWorkgroups");
    for (let i = 0; i < 5; i++) plan.run(stepOf(1));
    assert.deepEqual({ ...spy.calls }, {
      createCommandEncoder: 5,
      beginComputePass: 5,
      dispatchWorkgroups: 15,
      submit: 5,
    });
    await backend.read(ids);
  },
);

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

gpuTest("read() gives what write() was given when counts and offsets are odd", async (backend) => {
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

gpuTest("memory counts the bytes of the buffers that there are when they come and go", async () => {
  let [bytes, most] = [0, 0];
  const alive = new Set<GPUBuffer>();
  using spy = new Spy();
  spy.on(GPUDevice, "createBuffer", (_, buffer) => {
    alive.add(buffer as GPUBuffer);
    bytes += (buffer as GPUBuffer).size;
    most = Math.max(most, bytes);
  });
  spy.on(GPUBuffer, "destroy", (buffer) => {
    if (alive.delete(buffer as GPUBuffer)) bytes -= (buffer as GPUBuffer).size;
  });
  const backend = await openWebGpuBackend();
  backend.tensor([3, 5], "F16", "kvCache");
  const { plan, ids } = await headPlan(backend);
  plan.run(stepOf(1));
  await backend.read(ids);
  const { classes } = backend.memory;
  assert.equal(classes.kvCache.current, 32); // 15 halves, filled up to fours
  assert.equal(classes.weights.current, 96 * 68 * 2); // panels of 32 rows, groups of 4 inputs
  assert.equal(classes.staging.current, 16); // the step
  assert.equal(backend.memory.current, bytes);
  assert.equal(backend.memory.peak, most);
  const held = bytes;
  plan[Symbol.dispose]();
  assert.equal(bytes, held - 4 * 65); // sampling's scratch
  assert.equal(backend.memory.current, bytes);
  await backend[Symbol.asyncDispose]();
  assert.equal(alive.size, 0);
  assert.equal(backend.memory.current, 0);
  for (const { current } of Object.values(classes)) assert.equal(current, 0);
  plan[Symbol.dispose]();
  assert.equal(backend.memory.current, 0);
  await assert.rejects(backend.read(ids), DeviceError);
});

gpuTest("weight() throws before it allocates when a binding cannot hold it", async (backend) => {
  using spy = new Spy().on(GPUDevice, "createBuffer");
  const made = backend.weight([2 ** 20, 2 ** 12], "F32", () => {}, { stored: "NK" });
  await assert.rejects(
    made,
    (error: Error) =>
      error instanceof RangeError &&
      /expected at most \d+ bytes .* got 17179869184$/.test(error.message),
  );
  assert.throws(() => backend.tensor([2 ** 32], "F32", "activations"), RangeError);
  assert.deepEqual(spy.calls, {});
});

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
  "read() throws what went wrong in the queue when a buffer is bad or the device lost",
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

Deno.test("openWebGpuBackend() says what to do when there is no WebGPU or no adapter", async () => {
  for (const gpu of [undefined, { requestAdapter: () => Promise.resolve(null) }]) {
    Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
    try {
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

gpuTest("openWebGpuBackend() tells the adapter when it opens", (backend) => {
  assert.equal(backend.name, "webgpu");
  assert.equal(backend.threads, 1);
  const software = adapter?.info.isFallbackAdapter ?? false;
  assert.equal(backend.description.endsWith(", in software"), software);
  return Promise.resolve();
});

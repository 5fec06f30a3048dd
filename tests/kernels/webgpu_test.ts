import assert from "node:assert/strict";
import type { Activation } from "../../kernels/activation.ts";
import type { Backend, Plan, Recorder } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { matmulJs, type MatmulOptions, type Rows } from "../../kernels/matmul.ts";
import { normJs, type NormOptions } from "../../kernels/norm.ts";
import { NOT_FINITE, sampleJs } from "../../kernels/sample.ts";
import {
  type Dtype,
  type HostArray,
  narrow,
  type StoredOrder,
  type Tensor,
  type Weight,
  type WeightDtype,
} from "../../kernels/tensor.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
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

/** The step of `rows` rows at the start of a text. */
const stepOf = (rows: number) => ({ rows, position: 0, slot: 0, length: rows });

/** A tensor that holds `data`. */
function put(backend: Backend, data: HostArray, shape: readonly number[], dtype: Dtype = "F32") {
  const t = backend.tensor(shape, dtype, "activations");
  backend.write(t, data);
  return t;
}

/** Runs what `build` records once, over `rows` rows. */
async function runOnce(backend: Backend, rows: number, build: (k: Recorder) => void) {
  using plan = await backend.record(build);
  plan.run(stepOf(rows));
}

// norm

interface NormCase extends Pick<NormOptions, "kind" | "offset" | "residual" | "scale"> {
  T: number;
  C: number;
  bias?: boolean;
  inPlace?: boolean;
  rows?: number;
}

async function checkNormCase(backend: Backend, test: NormCase): Promise<void> {
  const { T, C, bias, inPlace, rows = T, ...options } = test;
  const shape = [T, C];
  const xs = randomNumbers(T * C, 1).map((v) => 3 * v + 0.5);
  const expected = inPlace ? xs.slice() : randomNumbers(T * C, 2);
  const [weights, biases] = [randomNumbers(C, 3), bias ? randomNumbers(C, 4) : undefined];
  const x = put(backend, xs, shape);
  const y = inPlace ? x : put(backend, expected, shape);
  const weight = put(backend, weights, [C]);
  const shift = biases && put(backend, biases, [C]);
  const common = { ...options, eps: 1e-5 };
  await runOnce(
    backend,
    rows,
    (k) => k.norm(y, x, { ...common, weight, bias: shift }),
  );
  normJs(expected, inPlace ? expected : xs, { ...common, weight: weights, bias: biases }, rows);
  assertClose(
    await backend.read(y) as Float32Array,
    expected,
    TOLERANCE.kernel,
    JSON.stringify(test),
  );
}

gpuTest("norm() agrees with normJs() when rows are ragged", async (backend) => {
  for (const C of [1, 2, 65, 66, 528]) {
    for (const T of [1, 3, 129]) {
      await checkNormCase(backend, { T, C, kind: "layer", bias: true });
      await checkNormCase(backend, { T, C, kind: "rms" });
    }
  }
});

gpuTest("norm() agrees with normJs() when every option is combined", async (backend) => {
  const cases: NormCase[] = [];
  for (const kind of ["layer", "rms"] as const) {
    for (const bias of [false, true]) {
      for (const residual of [false, true]) {
        for (const inPlace of [false, true]) {
          for (const rest of [{}, { offset: 1, scale: 0.125 }]) {
            cases.push({ T: 3, C: 66, kind, bias, residual, inPlace, ...rest });
          }
        }
      }
    }
  }
  for (const test of cases) await checkNormCase(backend, test);
});

gpuTest("norm() leaves the rows beyond the step when it has fewer than T", async (backend) => {
  await checkNormCase(backend, { T: 5, C: 66, kind: "rms", rows: 2 });
});

// matmul

interface MatmulCase extends Omit<MatmulOptions, "bias" | "gate"> {
  T: number;
  N: number;
  K: number;
  dtype?: WeightDtype;
  stored?: StoredOrder;
  bias?: boolean;
  gate?: boolean;
  rows?: number;
}

/** A weight with the numbers of `rows`, handed over as they would stand in a file. */
function upload(
  backend: Backend,
  { data, dtype, shape: [N, K] }: Rows,
  stored: StoredOrder,
): Promise<Weight> {
  const fill = (row: number, count: number, into: Float32Array | Uint16Array) => {
    const length = stored === "NK" ? K : N;
    assert.equal(into.length, count * length);
    for (let i = 0; i < into.length; i++) {
      const [r, c] = [row + Math.floor(i / length), i % length];
      into[i] = stored === "NK" ? data[r * K + c] : data[c * K + r];
    }
  };
  return backend.weight([N, K], dtype, fill, { stored });
}

async function checkMatmulCase(backend: Backend, test: MatmulCase): Promise<void> {
  const { T, N, K, dtype = "F32", stored = "NK", bias, gate, rows = T, ...options } = test;
  const xs = randomNumbers(T * K, 1);
  const expected = randomNumbers(T * N, 2);
  const matrix: Rows = { data: narrow(randomNumbers(N * K, 3), dtype), dtype, shape: [N, K] };
  const biases = bias ? randomNumbers(N, 4) : undefined;
  const gates = gate ? randomNumbers(T * N, 5) : undefined;
  const [x, y] = [put(backend, xs, [T, K]), put(backend, expected, [T, N])];
  const weight = await upload(backend, matrix, stored);
  const bound = {
    ...options,
    bias: biases && put(backend, biases, [N]),
    gate: gates && put(backend, gates, [T, N]),
  };
  await runOnce(backend, rows, (k) => k.matmul(y, x, weight, bound));
  matmulJs(expected, xs, matrix, { ...options, bias: biases, gate: gates }, rows);
  assertClose(
    await backend.read(y) as Float32Array,
    expected,
    TOLERANCE.sum,
    JSON.stringify(test),
  );
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

gpuTest("matmul() agrees with matmulJs() when shapes are ragged", async (backend) => {
  for (const [N, K] of [[1, 1], [66, 1], [33, 2], [65, 66], [396, 65], [65, 528]]) {
    for (const T of [1, 3, 129]) {
      for (const dtype of DTYPES) {
        for (const stored of ["NK", "KN"] as const) {
          await checkMatmulCase(backend, { T, N, K, dtype, stored });
        }
      }
    }
  }
});

gpuTest("matmul() agrees with matmulJs() when its epilogue has every option", async (backend) => {
  const options: Partial<MatmulCase>[] = [
    { bias: true },
    { gate: true },
    { scale: 0.125 },
    { softCap: 3 },
    { residual: true },
    ...(["relu", "gelu", "geluTanh", "silu"] as Activation[]).flatMap((activation) => [
      { activation },
      { activation, bias: true, gate: true, scale: -20, softCap: 30, residual: true },
    ]),
  ];
  for (const T of [1, 3]) {
    for (const option of options) await checkMatmulCase(backend, { T, N: 65, K: 66, ...option });
  }
});

gpuTest("matmul() leaves the rows beyond the step when it has fewer than T", async (backend) => {
  await checkMatmulCase(backend, { T: 129, N: 65, K: 66, rows: 6 });
});

gpuTest(
  "matmul() has activations of float accuracy when inputs are small and large",
  async (backend) => {
    const T = 1025;
    const xs = Float32Array.from({ length: T }, (_, i) => (i - 512) / 32);
    xs[0] = -1000;
    xs[T - 1] = 1000;
    const one: Rows = { data: new Float32Array([1]), dtype: "F32", shape: [1, 1] };
    const x = put(backend, xs, [T, 1]);
    const y = backend.tensor([T, 1], "F32", "activations");
    const weight = await upload(backend, one, "NK");
    for (const activation of ["relu", "gelu", "geluTanh", "silu"] as Activation[]) {
      await runOnce(backend, T, (k) => k.matmul(y, x, weight, { activation }));
      const expected = new Float32Array(T);
      matmulJs(expected, xs, one, { activation }, T);
      assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel, activation);
    }
  },
);

gpuTest("matmul() keeps subnormal weights when they are F16", async (backend) => {
  const matrix: Rows = { data: new Uint16Array([1, 0x83ff, 512]), dtype: "F16", shape: [1, 3] };
  const xs = new Float32Array([2 ** 24, 2 ** 12, 2 ** 15]);
  const expected = new Float32Array(1);
  const [x, y] = [put(backend, xs, [1, 3]), put(backend, expected, [1, 1])];
  const weight = await upload(backend, matrix, "NK");
  await runOnce(backend, 1, (k) => k.matmul(y, x, weight));
  matmulJs(expected, xs, matrix, {}, 1);
  assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.sum);
});

gpuTest(
  "matmul() lets a NaN through when there is a cap, and keeps it in its row",
  async (backend) => {
    const [T, N, K] = [3, 2, 3];
    const xs = new Float32Array(T * K).fill(1);
    new Uint32Array(xs.buffer)[K] = 0x7fc00000;
    const matrix: Rows = { data: new Float32Array(N * K).fill(1), dtype: "F32", shape: [N, K] };
    const x = put(backend, xs, [T, K]);
    const y = backend.tensor([T, N], "F32", "activations");
    const weight = await upload(backend, matrix, "NK");
    await runOnce(backend, T, (k) => k.matmul(y, x, weight, { softCap: 30 }));
    const nan = Array.from(await backend.read(y), Number.isNaN);
    assert.deepEqual(nan, [false, false, true, true, false, false]);
  },
);

gpuTest("weight() asks for rows in order and in pieces when it is large", async (backend) => {
  const [N, K] = [2100, 1030];
  const data = randomNumbers(N * K, 3);
  const xs = randomNumbers(K, 1);
  const expected = new Float32Array(N);
  matmulJs(expected, xs, { data, dtype: "F32", shape: [N, K] }, {}, 1);
  const [x, y] = [put(backend, xs, [1, K]), backend.tensor([1, N], "F32", "activations")];
  for (const stored of ["NK", "KN"] as const) {
    let [next, calls] = [0, 0];
    const weight = await backend.weight([N, K], "F32", async (row, count, into) => {
      assert.equal(row, next);
      next += count;
      calls++;
      await Promise.resolve();
      if (stored === "NK") into.set(data.subarray(row * K, (row + count) * K));
      else {
        for (let i = 0; i < into.length; i++) {
          into[i] = data[(i % N) * K + row + Math.floor(i / N)];
        }
      }
    }, { stored });
    assert.equal(next, stored === "NK" ? N : K);
    assert.ok(calls > 1 && calls < 10, `${calls} calls`);
    await runOnce(backend, 1, (k) => k.matmul(y, x, weight));
    assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.sum, stored);
  }
});

// sample

interface SampleCase {
  V: number;
  settings: readonly [temperature: number, topK: number, topP: number, penalty: number];
  seed?: number;
  draws?: number;
  logits?: (i: number) => number;
}

/** Draws on both sides with the same state, and compares all that is left on the device. */
async function checkSampleCase(backend: Backend, test: SampleCase): Promise<void> {
  const { V, settings, seed = 1, draws = 6, logits } = test;
  const R = 4; // fewer than draws, so that the ring comes round
  const numbers = logits
    ? Float32Array.from({ length: V }, (_, i) => logits(i))
    : randomNumbers(V, seed).map((v) => 8 * v);
  const host = {
    settings: new Float32Array(settings),
    counter: new Uint32Array([seed, 0x9e3779b9, 0]),
    seen: new Uint32Array(V),
    drawn: new Int32Array(R),
  };
  const device = {
    settings: put(backend, host.settings, [4]),
    counter: put(backend, host.counter, [3], "U32"),
    seen: put(backend, host.seen, [V], "U32"),
    drawn: put(backend, host.drawn, [R], "I32"),
  };
  const from = put(backend, numbers, [1, V]);
  const ids = backend.tensor([2], "I32", "activations");
  const expected = new Int32Array(2);
  using plan = await backend.record((k) => k.sample(ids, from, device));
  for (let draw = 0; draw < draws; draw++) {
    plan.run(stepOf(1));
    sampleJs(expected, numbers, host);
    if (draw % R === R - 1) assert.deepEqual(await backend.read(device.drawn), host.drawn);
  }
  const what = JSON.stringify(test);
  assert.deepEqual(await backend.read(device.drawn), host.drawn, what);
  assert.deepEqual(await backend.read(ids), expected, what);
  assert.deepEqual(await backend.read(device.counter), host.counter, what);
  assert.deepEqual(await backend.read(device.seen), host.seen, what);
}

gpuTest("sample() takes the lowest of the greatest ids when it is greedy", async (backend) => {
  for (const V of [1, 2, 65, 396, 1000]) {
    await checkSampleCase(backend, { V, settings: [0, 0, 1, 1] });
    await checkSampleCase(backend, { V, settings: [0, 0, 1, 1.3] });
    await checkSampleCase(backend, { V, settings: [0, 0, 1, 1], logits: (i) => (i * 7) % 5 });
    await checkSampleCase(backend, { V, settings: [0, 0, 1, 1], logits: (i) => i === 0 ? -0 : 0 });
    await checkSampleCase(backend, { V, settings: [0, 0, 1, 1], logits: (i) => -1 - (i % 3) });
  }
});

gpuTest("sample() draws the ids of sampleJs() when settings vary", async (backend) => {
  const settings: SampleCase["settings"][] = [
    [1, 0, 1, 1],
    [0.7, 0, 1, 1],
    [5, 0, 1, 1],
    [1, 1, 1, 1],
    [3, 40, 1, 1],
    [3, 1e6, 1, 1],
    [3, 0, 0.9, 1],
    [3, 0, 0, 1],
    [1, 0, 0.5, 1.2],
    [2, 50, 0.95, 1.1],
  ];
  for (const V of [1, 2, 65, 396, 1000]) {
    for (const setting of settings) {
      await checkSampleCase(backend, { V, settings: setting, seed: V });
    }
  }
});

gpuTest("sample() keeps equal logits together when they stand at a threshold", async (backend) => {
  const logits = (i: number) => Math.floor(i / 10) % 7;
  for (let seed = 0; seed < 5; seed++) {
    for (const settings of [[2, 15, 1, 1], [2, 0, 0.4, 1], [2, 30, 0.6, 1]] as const) {
      await checkSampleCase(backend, { V: 396, settings, logits, seed });
    }
  }
});

gpuTest(
  "sample() draws the ids of sampleJs() when it is asked hundreds of times",
  async (backend) => {
    await checkSampleCase(backend, { V: 65, settings: [4, 0, 1, 1], draws: 300 });
    await checkSampleCase(backend, { V: 65, settings: [4, 20, 0.9, 1.1], draws: 300 });
  },
);

gpuTest("sample() draws the ids of sampleJs() when the vocabulary is GPT-2's", async (backend) => {
  await checkSampleCase(backend, { V: 50257, settings: [2, 0, 1, 1] });
  await checkSampleCase(backend, { V: 50257, settings: [2, 200, 0.9, 1.1] });
});

gpuTest("sample() gives NOT_FINITE when one logit is not finite", async (backend) => {
  const V = 396;
  const bad = [0x7fc00000, 0xffc00001, 0x7f800001, 0x7f800000, 0xff800000];
  for (const [i, bits] of bad.entries()) {
    for (const temperature of [0, 1]) {
      const logits = randomNumbers(V, 1);
      new Uint32Array(logits.buffer)[[0, 31, 32, 200, V - 1][i]] = bits;
      const counter = put(backend, new Uint32Array([1, 2, 5]), [3], "U32");
      const seen = backend.tensor([V], "U32", "activations");
      const drawn = backend.tensor([4], "I32", "activations");
      const ids = backend.tensor([1], "I32", "activations");
      const settings = put(backend, new Float32Array([temperature, 40, 0.9, 1]), [4]);
      const from = put(backend, logits, [1, V]);
      await runOnce(backend, 1, (k) => k.sample(ids, from, { settings, counter, seen, drawn }));
      const what = bits.toString(16);
      assert.deepEqual(await backend.read(ids), new Int32Array([NOT_FINITE]), what);
      assert.deepEqual(await backend.read(drawn), new Int32Array([0, NOT_FINITE, 0, 0]), what);
      assert.deepEqual(await backend.read(counter), new Uint32Array([1, 2, 6]), what);
      assert.deepEqual(await backend.read(seen), new Uint32Array(V), what);
    }
  }
});

// the contract

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

gpuTest("record() names the operation when there is no shader for it", async (backend) => {
  const t = backend.tensor([1, 1], "F32", "activations");
  const table = await upload(
    backend,
    { data: new Float32Array(1), dtype: "F32", shape: [1, 1] },
    "NK",
  );
  const builds: Record<string, (k: Recorder) => void> = {
    embed: (k) => k.embed(t, table, t),
    addPosition: (k) => k.addPosition(t, table),
    writeKv: (k) => k.writeKv(t, { k: t, v: t }, t),
    attention: (k) => k.attention(t, t, { k: t, v: t }),
  };
  for (const [op, build] of Object.entries(builds)) {
    await assert.rejects(
      backend.record(build),
      (error: Error) =>
        error instanceof DeviceError &&
        error.message.startsWith(`Cannot record "${op}" on webgpu: `),
    );
  }
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

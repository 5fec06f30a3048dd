import assert from "node:assert/strict";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/load.ts";
import { Runner } from "../../engine/runner.ts";
import { checkpointWeights, uploadWeights } from "../../engine/weights/mod.ts";
import type { Backend, Segment } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { WEB_HOST } from "../../kernels/host.ts";
import { Memory } from "../../kernels/memory.ts";
import { openBackend } from "../../kernels/mod.ts";
import { narrow, type Weight, type WeightDtype, widen } from "../../kernels/formats/mod.ts";
import { i32, ModuleBuilder } from "../../kernels/asm/assembler.ts";
import { atomics } from "../../kernels/asm/atomics.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { at, type ControlWord, controlWords, type Run } from "../../kernels/wasm/control.ts";
import { defineKernel, type Items, type Kernel } from "../../kernels/asm/kernel.ts";
import { LinearMemory } from "../../kernels/wasm/memory.ts";
import { Pool } from "../../kernels/wasm/pool.ts";
import { defineRun } from "../../kernels/wasm/program.ts";
import { until, within } from "../patience.ts";
import { runDeno } from "../process.ts";
import { fixture } from "../testing.ts";
import { layers, testDisposal } from "./layers.ts";
import { put, stepOf, upload } from "./twins.ts";

const STEP: Segment = { rows: 3, position: 0, slot: 0, length: 1 };

/** A thread pool with plans of test kernels. */
class Bench implements AsyncDisposable {
  private constructor(readonly linear: LinearMemory, readonly pool: Pool) {}

  static async open(threads: number): Promise<Bench> {
    const linear = new LinearMemory(new Memory(), true);
    return new Bench(linear, await Pool.start(linear.wasm, threads, WEB_HOST));
  }

  /** Allocates `count` I32. */
  words(count: number): { address: number; view: () => Int32Array } {
    const block = this.linear.allocate(4 * count, "activations");
    const view = () => this.linear.view(block, "I32", 0, count) as Int32Array;
    return { address: block.address, view };
  }

  /** Current value of a control word. */
  control(word: ControlWord): number {
    return Atomics.load(controlWords(this.linear.wasm), at(word));
  }

  /** A plan that calls one kernel once per element of `items`. */
  async plan(
    items: readonly Items[],
    operands: readonly number[],
    define: (m: ModuleBuilder) => Kernel,
  ): Promise<(step?: Segment) => void> {
    const m = new ModuleBuilder({ shared: true });
    const kernel = define(m);
    const entries = items.map((items) => ({ kernel, operands, items }));
    defineRun(m, entries, { threads: this.pool.threads, callerSleeps: true });
    const module = await WebAssembly.compile(m.toBytes());
    const env = { memory: this.linear.wasm };
    const program = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
    const plan = await this.pool.load(module);
    return (step = STEP) => this.pool.run(plan, program, step);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
  }
}

/**
 * words[item] = 3 · words[item] + 1: shows an item that is missed or repeated. Each item has a
 * separate word.
 */
const step3 = (m: ModuleBuilder): Kernel =>
  defineKernel(m, ["words"], (f, { words, begin, end }) => {
    const at = f.local("int", "at");
    f.for(begin, begin, end, 1, () => {
      at.set(words.plus(begin.shl(2)));
      f.store(at, i32.load(at).times(3).plus(1));
    });
  });

for (const threads of [1, 2, 3, 4]) {
  Deno.test(`run() computes every item of every entry once on ${threads} threads`, async () => {
    await using bench = await Bench.open(threads);
    const { address, view } = bench.words(3000);
    const counts = [1000, 1, 0, 7, 333].flatMap((count) => [
      { count, perRow: false },
      { count, perRow: true },
      { count, perRow: false, perKeys: 4 },
    ]);
    const run = await bench.plan(counts, [address], step3);
    const expected = new Int32Array(3000);
    for (let round = 0; round < 200; round++) {
      const [rows, length] = [1 + round % 3, 1 + round % 12];
      run({ ...STEP, rows, length });
      for (const { count, perRow, perKeys } of counts) {
        const items = count * (perKeys ? Math.ceil(length / perKeys) : perRow ? rows : 1);
        for (let i = 0; i < items; i++) expected[i] = Math.imul(expected[i], 3) + 1;
      }
    }
    assert.deepEqual(view(), expected);
  });
}

Deno.test("run() continues when workers join, sleep and leave", async () => {
  await using bench = await Bench.open(4);
  const { address, view } = bench.words(64);
  const run = await bench.plan([{ count: 64, perRow: false }], [address], step3);
  let expected = 0;
  const again = () => {
    run();
    expected = Math.imul(expected, 3) + 1;
  };
  for (let round = 0; round < 20; round++) {
    again();
    await new Promise((resolve) => setTimeout(resolve, 4)); // workers fall asleep
    again();
    const loading = bench.plan([{ count: 1, perRow: false }], [address], step3);
    for (let i = 0; i < 10; i++) again(); // workers are in their event loops
    await loading;
    bench.pool.limit(1 + round % 4);
  }
  await bench.pool.dismiss(2);
  assert.equal(bench.pool.threads, 2);
  again();
  await bench.pool.dismiss(1);
  again();
  assert.deepEqual(view(), new Int32Array(64).fill(expected));
});

Deno.test("mapAhead() touches every page while runs go on, and changes no byte", async () => {
  await using bench = await Bench.open(3);
  const { address, view } = bench.words(300_000); // 18 pages
  const run = await bench.plan([{ count: 300_000, perRow: false }], [address], step3);
  const [first, end] = bench.linear.pagesAhead(2 ** 22);
  assert.equal(end - first, 63); // the rest of the last page in use comes first
  const expected = new Int32Array(300_000);
  for (let round = 0; round < 3; round++) {
    view().set(expected.map((_, i) => i + round));
    bench.pool.mapAhead(0, end);
    run();
    await until("workers to map all pages", () => bench.control("ahead") >= end);
    assert.deepEqual(view(), expected.map((_, i) => 3 * (i + round) + 1));
  }
});

/** Waits until a second thread enters; that thread traps. */
const trap = (m: ModuleBuilder): Kernel =>
  defineKernel(m, ["calls"], (f, { calls }) => {
    const before = f.local("i32", "before");
    before.set(atomics.add(calls, 1));
    f.if(before.eq(1), () => f.do({ type: "void", code: [0x00] })); // unreachable
    f.while(atomics.load(calls).lt(2), () => {});
  });

Deno.test("run() ends and failure() names the thread when a thread traps", async () => {
  let [here, there] = [0, 0];
  for (let round = 0; round < 30 && !(here && there); round++) {
    await using bench = await Bench.open(3);
    const { address } = bench.words(1);
    const nine = { count: 9, perRow: false };
    const run = await bench.plan([nine, nine], [address], trap);
    try {
      run();
      assert.ok(bench.pool.failed);
      const error = await bench.pool.failure();
      assert.ok(error instanceof DeviceError);
      assert.match(error.message, /^Cannot go on with "wasm": thread [12] failed \(unreachable\)/);
      there++;
    } catch (error) {
      assert.ok(error instanceof WebAssembly.RuntimeError);
      here++;
    }
    assert.ok(bench.pool.failed);
    run(); // does nothing
  }
  assert.ok(there > 0);
});

Deno.test("run() returns equal bits on 1 to 4 threads", async () => {
  const expected = new Map<number, Float32Array>();
  for (const threads of [1, 2, 3, 4]) {
    await using backend = await openWasmBackend({ threads });
    assert.equal(backend.threads, threads);
    for (const T of [1, 7, 65]) {
      const run = await layers(backend, T);
      for (let i = 0; i < 20; i++) {
        const result = await run();
        assert.ok(result.every(Number.isFinite));
        if (!expected.has(T)) expected.set(T, result);
        assert.deepEqual(result, expected.get(T), `${threads} threads, T ${T}`);
      }
    }
  }
});

Deno.test("run() of two backends at once keeps their memories separate", async () => {
  await using one = await openWasmBackend({ threads: 2 });
  await using other = await openWasmBackend({ threads: 3 });
  const [first, second] = [await layers(one, 5), await layers(other, 9)];
  const [expected, expected2] = [await first(), await second()];
  for (let i = 0; i < 50; i++) {
    const [a, b] = await Promise.all([first(), second()]);
    assert.deepEqual(a, expected);
    assert.deepEqual(b, expected2);
  }
});

Deno.test("run() ends while other threads keep every processor busy", async () => {
  await using backend = await openWasmBackend({ threads: 4 });
  const run = await layers(backend, 3);
  const expected = await run();
  const url = URL.createObjectURL(new Blob(["postMessage(0); for (;;);"]));
  const hogs = Array.from({ length: 4 }, () => new Worker(url, { type: "module" }));
  try {
    await Promise.all(hogs.map((hog) => new Promise((resolve) => hog.onmessage = resolve)));
    await within("50 runs", async () => {
      for (let runs = 0; runs < 50; runs++) assert.deepEqual(await run(), expected);
    });
  } finally {
    for (const hog of hogs) hog.terminate();
    URL.revokeObjectURL(url);
  }
});

// tests/soak/wasm_test.ts tries every moment of the first 25.
for (const ticks of [0, 1, 2, 5, 12]) testDisposal(ticks);

Deno.test("asyncDispose() ends the threads when a plan, a weight and a run are in progress", async () => {
  const backend = await openWasmBackend({ threads: 3 });
  const run = await layers(backend, 3);
  await run();
  const last = run();
  const recording = layers(backend, 2);
  const loading = backend.weight([64, 64], "F32", async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }, { stored: "NK" });
  const lost = [recording, loading].map((made) => assert.rejects(made, /it was disposed of$/));
  await backend[Symbol.asyncDispose]();
  await last;
  await Promise.all(lost);
  assert.equal(backend.memory.current, 0);
  await assert.rejects(run(), /^DeviceError: Cannot use "wasm": it was disposed of$/);
  await backend[Symbol.asyncDispose]();
});

Deno.test("openWasmBackend() lets the process exit without a dispose", async () => {
  const url = (path: string) =>
    JSON.stringify(new URL(`../../kernels/${path}`, import.meta.url).href);
  const script = `
    const { openWasmBackend } = await import(${url("wasm/backend.ts")});
    const backend = await openWasmBackend({ threads: 2 });
    const plan = await backend.record(() => {});
    plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
    console.log(backend.threads);`;
  const { code, stdout, stderr } = await runDeno(["eval", "--no-config", script]);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, "2\n");
});

Deno.test("openWasmBackend() probes the number of threads when none is given", async () => {
  await using backend = await openWasmBackend();
  assert.ok(backend.threads >= 1 && backend.threads <= navigator.hardwareConcurrency);
  await using again = await openWasmBackend();
  assert.equal(again.threads, backend.threads);
  const run = await layers(again, 2);
  assert.deepEqual(await run(), await run());
});

Deno.test("openWasmBackend() rejects a number of threads out of range", async () => {
  for (const threads of [0, -1, 1.5, 65, NaN]) {
    await assert.rejects(
      openWasmBackend({ threads }),
      new RegExp(`^RangeError: Cannot open "wasm": expected 1 to 64 threads, got ${threads}$`),
    );
  }
});

Deno.test("openWasmBackend() uses one thread when memory cannot be shared", async () => {
  const { SharedArrayBuffer } = globalThis;
  await using forced = await openWasmBackend({ threads: 3, shared: false });
  assert.equal(forced.threads, 1);
  const run = await layers(forced, 3);
  try {
    Reflect.deleteProperty(globalThis, "SharedArrayBuffer");
    await using found = await openWasmBackend({ threads: 3 });
    assert.equal(found.threads, 1);
    assert.deepEqual(await (await layers(found, 3))(), await run());
  } finally {
    Object.defineProperty(globalThis, "SharedArrayBuffer", {
      value: SharedArrayBuffer,
      configurable: true,
      writable: true,
    });
  }
});

Deno.test("run() returns the same bits when the calling thread must not sleep", async () => {
  await using sleeps = await openWasmBackend({ threads: 2 });
  await using spins = await openWasmBackend({ threads: 2, callerSleeps: false });
  const { wait } = Atomics;
  try {
    Atomics.wait = () => {
      throw new TypeError("Atomics.wait cannot be called in this context");
    };
    await using found = await openWasmBackend({ threads: 2 });
    const expected = await (await layers(sleeps, 4))();
    for (const backend of [spins, found]) {
      const run = await layers(backend, 4);
      for (let i = 0; i < 20; i++) assert.deepEqual(await run(), expected);
    }
  } finally {
    Atomics.wait = wait;
  }
});

Deno.test("weight() packs every number on 1 and 3 threads, for each dtype and order", async () => {
  await using one = await openWasmBackend({ threads: 1 });
  await using three = await openWasmBackend({ threads: 3 });
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    for (const shape of [[1, 1], [17, 9], [40, 16400], [16400, 40], [1030, 530]] as const) {
      const data = narrow(coarseNumbers(shape[0] * shape[1]), dtype);
      const expected = expectedRows(shape, dtype, data);
      for (const stored of ["NK", "KN"] as const) {
        for (const backend of [one, three]) {
          const rows = await rowsThrough(
            backend,
            await upload(backend, { data, dtype, shape }, stored),
          );
          assert.deepEqual(rows, expected, `${dtype} ${stored} ${shape} ${backend.threads}`);
        }
      }
    }
  }
});

/** Numbers that every dtype represents exactly, with a period of 251. */
function coarseNumbers(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => (i * 37 % 251 - 125) / 64);
}

/**
 * Columns of a weight [N, K], read by matmul with one-hot rows: the columns of `inputsOf(K)`.
 */
async function rowsThrough(backend: Backend, weight: Weight): Promise<Float32Array> {
  const [N, K] = weight.shape;
  const inputs = inputsOf(K);
  const xs = new Float32Array(inputs.length * K);
  inputs.forEach((k, t) => xs[t * K + k] = 1);
  const x = put(backend, xs, [inputs.length, K]);
  const y = backend.tensor([inputs.length, N], "F32", "activations");
  using plan = await backend.record((k) => k.matmul(y, x, weight));
  plan.run(stepOf(inputs.length));
  return await backend.read(y) as Float32Array;
}

function expectedRows(
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
  data: Float32Array | Uint16Array,
): Float32Array {
  const numbers = new Float32Array(N * K);
  widen(numbers, data, dtype, 0, N * K);
  return Float32Array.from(
    inputsOf(K).flatMap((k) => Array.from({ length: N }, (_, n) => numbers[n * K + k])),
  );
}

function inputsOf(K: number): number[] {
  return [...new Set([0, 1, 7, K >> 1, K - 5, K - 1].filter((k) => k >= 0 && k < K))];
}

Deno.test("weight() keeps the overflow of concurrently packed weights separate", async () => {
  for (const threads of [1, 2]) {
    await using backend = await openWasmBackend({ threads });
    const [N, K] = [600, 1030];
    const made = Array.from(
      { length: 4 },
      (_, number) =>
        backend.weight([N, K], "F16", async (row, count, into) => {
          await new Promise((resolve) => setTimeout(resolve, (number * 7 + row) % 3));
          const bits = new Uint16Array(into.buffer, into.byteOffset, count * K);
          bits.fill(0x3c00 + number);
          if (number === 1) bits[0] = 0x7c00;
        }, { stored: "NK" }),
    );
    const weights = await Promise.all(made);
    assert.deepEqual(weights.map(({ dtype }) => dtype), ["F16", "F32", "F16", "F16"]);
    for (const number of [0, 2, 3]) {
      const rows = await rowsThrough(backend, weights[number]);
      assert.deepEqual(rows, new Float32Array(rows.length).fill(1 + number / 1024));
    }
  }
});

Deno.test("weight() frees its memory when reading rows fails", async () => {
  await using backend = await openWasmBackend({ threads: 2 });
  const { current } = backend.memory;
  let calls = 0;
  await assert.rejects(
    backend.weight([4096, 512], "F32", () => {
      if (++calls === 3) throw new Error("torn");
    }, { stored: "NK" }),
    /^Error: torn$/,
  );
  assert.equal(backend.memory.current, current);
  const run = await layers(backend, 2);
  assert.deepEqual(await run(), await run());
});

Deno.test('openBackend("cpu") opens js when WebAssembly has no SIMD', async () => {
  await using best = await openBackend("cpu", { threads: 1 });
  assert.equal(best.name, "wasm");
  const { validate } = WebAssembly;
  try {
    WebAssembly.validate = () => false;
    await using backend = await openBackend("cpu");
    assert.equal(backend.name, "js");
  } finally {
    WebAssembly.validate = validate;
  }
});

const MODEL = fixture("labcore/rope66");

Deno.test("a whole model returns equal bits on 1 to 4 threads", async () => {
  using checkpoint = await openCheckpoint(MODEL);
  const a = readArchitecture(JSON.parse(await Deno.readTextFile(`${MODEL}/config.json`)), MODEL);
  const source = await checkpointWeights(checkpoint, a, "auto");
  const ids = Array.from({ length: 40 }, (_, i) => i * 7 % a.vocabSize);
  const sampling = { temperature: 0.9, topK: 20, topP: 0.9, repetitionPenalty: 1.1 };
  let expected: unknown;
  for (const threads of [1, 2, 3, 4]) {
    await using backend = await openWasmBackend({ threads });
    const weights = await uploadWeights(backend, a, source, a.blockSize + 1, () => {});
    const options = { id: MODEL, slots: a.blockSize, chunk: 16 };
    const runner = await Runner.create(backend, a, weights, options);
    const logits = await runner.logits(ids);
    runner.startSampling(sampling, 7);
    await runner.prefill(ids);
    const drawn = [];
    while (drawn.length < 60) drawn.push(...await runner.draw(1)); // beyond the context, too
    const result = { logits, drawn, last: await runner.decode() };
    assert.deepEqual(result, expected ??= result, `${threads} threads`);
  }
});

Deno.test("generate() ends when it is aborted, and when its model is disposed (wasm)", async () => {
  const model = await loadModel(MODEL, { device: "wasm", threads: 2 });
  const before = model.memory.current;
  const controller = new AbortController();
  const { signal } = controller;
  let last;
  let count = 0;
  for await (last of model.generate([1, 2], { maxNewTokens: 1e6, ignoreEos: true, signal })) {
    if (++count === 5) controller.abort();
  }
  assert.equal(last?.finishReason, "aborted");
  assert.equal(model.memory.current, before);
  const disposed = async () => {
    count = 0;
    for await (const _ of model.generate([1, 2], { maxNewTokens: 1e6, ignoreEos: true })) {
      if (++count === 5) await model[Symbol.asyncDispose]();
    }
  };
  await assert.rejects(disposed(), /it was disposed of$/);
  assert.equal(model.memory.current, 0);
});

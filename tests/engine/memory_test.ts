/** Memory estimates against the tracked bytes of loaded models. */
import assert from "node:assert/strict";
import { GPT2 } from "../../bench/decode.ts";
import { totalmem } from "node:os";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { type BackendFit, fitBackend, fitBackends } from "../../engine/fit.ts";
import { estimateMemory, expectFits, fitMemory, type MemoryEstimate } from "../../engine/memory.ts";
import { describeCheckpoint, loadModel, type RandomModel } from "../../engine/load.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { type Backend, openBackend, type TensorSizes } from "../../kernels/mod.ts";
import type { WeightDtype } from "../../kernels/mod.ts";
import { randomWeights } from "../../engine/weights/mod.ts";
import { fixture, readJson } from "../testing.ts";

const TINY = ["gpt2", "gpt2-f16", "llama", "llama-bf16", "gemma3", "phi", "smollm3"];

/** Bytes by which an estimate for `wasm` may exceed the peak. */
const spare = (bytes: number) => 2 ** 20 + bytes / 128;

function expectFit(fits: Awaited<ReturnType<typeof fitBackends>>, name: string): BackendFit {
  const found = fits.find((backend) => backend.name === name)!;
  assert.ok("fits" in found, JSON.stringify(found));
  return found;
}

/** A run of a shape, with its memory estimate. */
function sizedRun(
  config: Record<string, unknown>,
  contextLength: number,
  dtype: WeightDtype,
): { contextLength: number; memory: MemoryEstimate } {
  const a = readArchitecture(config, "the shape");
  const memory = estimateMemory(a, randomWeights(a, 0, dtype), { contextLength });
  return { contextLength, memory };
}

async function peakOf(source: string | RandomModel, device: "js" | "wasm"): Promise<number> {
  // The probe of a busy machine may keep fewer threads, which take less.
  const options = { device, threads: 2, dtype: "auto", contextLength: 64 } as const;
  await using model = await loadModel(source, options);
  for await (const _ of model.generate([1, 2, 3], { maxNewTokens: 4, ignoreEos: true }));
  return model.memory.peak;
}

for (const device of ["js", "wasm"] as const) {
  // Exactly on js, within 1 MiB and 0.8 % on wasm.
  Deno.test(`${device}: fitBackend() estimates the peak of a run`, async () => {
    const assertEstimate = (name: string, estimate: number, peak: number) => {
      const most = device === "js" ? peak : peak + spare(peak);
      assert.ok(estimate >= peak && estimate <= most, `${name}: ${estimate} for ${peak}`);
    };
    await using backend = await openBackend(device, { threads: 2 });
    for (const name of TINY) {
      const folder = fixture(`tiny/${name}`);
      const description = await describeCheckpoint(folder, { contextLength: 64 });
      const { needs } = await fitBackend(backend, description);
      assertEstimate(name, needs.total, await peakOf(folder, device));
    }
    const { needs } = await fitBackend(backend, sizedRun(GPT2, 64, "F32"));
    assertEstimate("GPT-2's shape", needs.total, await peakOf({ config: GPT2 }, device));
  });
}

Deno.test("fitBackends() reports the room and the longest context that fits", async () => {
  const config = {
    ...readJson<Record<string, unknown>>("tiny/llama/config.json"),
    max_position_embeddings: 2 ** 30,
  };
  const asked = 2 ** 30;
  const run = sizedRun(config, asked, "BF16");
  const all = await fitBackends(run);
  const rooms = { js: totalmem(), wasm: Math.min(2 ** 34, totalmem()) };
  for (const [name, room] of Object.entries(rooms)) {
    const { fits, room: has, needs, alternatives } = expectFit(all, name);
    assert.equal(fits, false, name);
    assert.equal(has, room, name);
    assert.ok(needs.total > room, name);
    await using backend = await openBackend(name as "js" | "wasm");
    const [{ contextLength, dtype }] = alternatives;
    assert.equal(dtype, undefined);
    const expectRun = (contextLength: number) =>
      expectFits(backend, {
        id: "x",
        contextLength,
        memory: run.memory.with({ contextLength, backend }),
      });
    await expectRun(contextLength);
    await assert.rejects(expectRun(contextLength + 1), DeviceError);
  }
});

/** A GPU of limited memory and binding size, both in bytes. */
function fakeGpu(bytes: number, binding: number) {
  let taken = 0;
  return {
    name: "webgpu" as const,
    onGpu: true,
    nominalFlops: 1e12,
    get taken() {
      return taken;
    },
    expectFree: ((what, asked, largest = 0) => {
      taken = Math.max(taken, asked);
      return asked > bytes || largest > binding
        ? Promise.reject(new DeviceError(`no room for ${what}`))
        : Promise.resolve();
    }) satisfies Backend["expectFree"],
  };
}

Deno.test("fitBackend() finds a GPU's room by allocating no more than the run needs", async () => {
  const run = sizedRun(GPT2, 1024, "F32");
  const whole = await fitBackend(fakeGpu(1e9, 1e8), run);
  assert.deepEqual([whole.fits, whole.room, whole.tensorRoom], [true, null, 1e8]);
  assert.deepEqual(whole.alternatives, []);

  const gpu = fakeGpu(5e8, 1e8); // the weights as they are leave no room for a cache of 1024
  const { fits, needs, room, alternatives } = await fitBackend(gpu, run);
  assert.deepEqual([fits, room], [false, 5e8]);
  assert.equal(gpu.taken, needs.total);
  const [shorter, narrower] = alternatives;
  assert.ok(shorter.contextLength > 1 && shorter.contextLength < 1024);
  assert.equal(shorter.dtype, undefined);
  assert.deepEqual(narrower, { contextLength: 1024, dtype: "Q4_0" });

  const narrow = await fitBackend(fakeGpu(1e9, 1e6), run);
  assert.deepEqual([narrow.fits, narrow.room, narrow.tensorRoom], [false, null, 1e6]);
  assert.ok(narrow.needs.largest > 1e6);
  const none = await fitBackend(fakeGpu(1e6, 1e8), run);
  assert.deepEqual([none.fits, none.room, none.alternatives], [false, 1e6, []]);
});

Deno.test("fitMemory() halves the rows of a chunk until they fit, and no further than 128", async () => {
  const run = sizedRun(GPT2, 1024, "F32");
  const gpu = (bytes: number) => ({ ...fakeGpu(bytes, 1e9), prefillRows: 512 });
  const sizes = [512, 256, 128].map((chunk) => run.memory.with({ chunk, backend: gpu(0) }).total);
  assert.ok(sizes[0] > sizes[1] && sizes[1] > sizes[2]);
  for (const [i, chunk] of [512, 256, 128].entries()) {
    const backend = gpu(sizes[i]);
    const memory = run.memory.with({ backend });
    assert.equal(memory.chunk, 512);
    const fitted = await fitMemory(backend, { ...run, id: "x", memory });
    assert.deepEqual([fitted.chunk, fitted.total], [chunk, sizes[i]]);
    const { fits, needs } = await fitBackend(backend, run);
    assert.deepEqual([fits, needs.total], [true, sizes[i]]);
  }
  const backend = gpu(sizes[2] - 1);
  const memory = run.memory.with({ backend });
  await assert.rejects(fitMemory(backend, { ...run, id: "x", memory }), DeviceError);
  assert.equal(backend.prefillRows, 512);
  assert.equal((await fitBackend(backend, run)).fits, false);
  // A short context has no rows beyond it, and a CPU keeps to 128.
  assert.equal(run.memory.with({ contextLength: 200, backend }).chunk, 200);
  assert.ok(run.memory.with({ backend: { nominalFlops: 1e15 } }).chunk === 128);
});

Deno.test("estimateMemory() shrinks the cache with the context, as loadModel() does", async () => {
  const folder = fixture("tiny/llama");
  const { architecture: a } = await describeCheckpoint(folder);
  for (const contextLength of [a.blockSize, 16, 1]) {
    const { memory } = await describeCheckpoint(folder, { contextLength });
    const bytes = 2 * 4 * a.nLayer * a.nKvHead * a.headDim * contextLength;
    assert.equal(memory.classes.kvCache, bytes);
    for (const device of ["js", "wasm"] as const) {
      await using model = await loadModel(folder, { device, contextLength });
      assert.equal(model.contextLength, contextLength);
      assert.equal(model.memory.classes.kvCache.current, bytes);
    }
  }
  for (const contextLength of [a.blockSize + 1, 0, 1.5]) {
    const expected = new RangeError(
      `Cannot load: expected a context of 1 to ${a.blockSize} tokens, got ${contextLength}`,
    );
    await assert.rejects(loadModel(folder, { device: "js", contextLength }), expected);
    await assert.rejects(describeCheckpoint(folder, { contextLength }), expected);
  }
});

Deno.test("estimateMemory() adds the scratch of any backend", () => {
  const { memory } = sizedRun(GPT2, 64, "F32");
  const asked: TensorSizes[] = [];
  const backend = {
    nominalFlops: 1e9,
    readAhead: 64,
    scratchBytes(sizes: TensorSizes) {
      asked.push(sizes);
      return 1000;
    },
  };
  const { nominalFlops } = backend;
  const plain = memory.with({ backend: { nominalFlops } });
  const own = memory.with({ backend });
  assert.equal(own.chunk, plain.chunk);
  assert.notEqual(own.chunk, memory.chunk); // a slow backend takes fewer rows at a time
  assert.equal(own.total, plain.total + 4 * 63 + 1000);
  assert.equal(own.classes.activations, plain.classes.activations + 4 * 63 + 1000);
  const widest = 4 * own.chunk * 4 * GPT2.n_embd; // the MLP's hidden rows
  assert.deepEqual(asked, [{ total: own.total - 1000, rows: own.chunk, widest }]);
});

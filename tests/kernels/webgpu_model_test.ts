/** Tests of whole models on the WebGPU backend. */
import { assertClose, fixture, randomNumbers, TOLERANCE } from "../testing.ts";
import assert from "node:assert/strict";
import type { GeneratedToken, GenerateOptions } from "../../engine/generate.ts";
import { loadModel } from "../../engine/load.ts";
import { instrumentsOf, type Model } from "../../engine/model.ts";
import type { Backend } from "../../kernels/backend.ts";
import { TILES } from "../../kernels/ops/matmul/tiles.ts";
import { openBackend } from "../../kernels/mod.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { shareDevices } from "./shared_gpu.ts";
import { BufferSpy, Spy } from "./spy.ts";
import { put, stepOf, upload } from "./twins.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { CacheFolder } from "./cache_folder.ts";

const ignore = await ignoreWithoutAdapter("webgpu_model_test.ts");
if (!ignore) shareDevices();

/** Logits of the last of `ids`, from an empty cache. */
const lastLogits = (model: Model, ids: readonly number[]) =>
  instrumentsOf(model).run(ids, (runner) => runner.lastLogits(ids));

for (const software of [false, true]) {
  Deno.test({
    name: `fuse() keeps the results of a norm when its kernels are for ${
      software ? "a software adapter" : "a GPU"
    }`,
    ignore,
    fn: async () => {
      await using gpu = await openWebGpuBackend({ software, tune: false });
      await using js = await openBackend("js");
      for (const T of [1, 5]) {
        for (const [N, K] of [[10, 66], [3, 3], [768, 768], [65, 260], [2304, 528], [40, 4100]]) {
          for (const kind of ["layer", "rms"] as const) {
            const [expected, got] = await Promise.all(
              [js, gpu].map((backend) => normedProducts(backend, T, N, K, kind)),
            );
            assertClose(got, expected, TOLERANCE.sum, `${kind} [${T}, ${N}, ${K}]`);
          }
        }
      }
    },
  });
}

/** Rows whose norm cancels if its sums are not centred, by what they are like. */
const OFF_CENTRE: Readonly<Record<string, (v: number, i: number) => number>> = {
  "a mean of 100 deviations": (v) => 100 + v,
  "a mean of -1e4 deviations": (v) => v - 1e4,
  "a large first number": (v, i) => i === 0 ? 3000 : v,
  "large numbers where the mean is sampled": (v, i) => i % 128 < 4 ? 1000 + v : v,
  "equal numbers": () => 0.1,
};

for (const [what, change] of Object.entries(OFF_CENTRE)) {
  Deno.test({
    name: `fuse() keeps the results of a norm when a row has ${what}`,
    ignore,
    fn: async () => {
      await using js = await openBackend("js");
      for (const options of [{}, { subgroups: false }]) {
        await using gpu = await openWebGpuBackend({ software: false, tune: false, ...options });
        for (const [N, K] of [[33, 66], [40, 512], [20, 4100]]) {
          const [expected, got] = await Promise.all(
            [js, gpu].map((backend) => normedProducts(backend, 1, N, K, "layer", change)),
          );
          assertClose(got, expected, TOLERANCE.sum, `[${N}, ${K}]`);
        }
      }
    },
  });
}

/** A product of a norm whose output a later norm overwrites: only then is the first one fused. */
async function normedProducts(
  backend: Backend,
  T: number,
  N: number,
  K: number,
  kind: "layer" | "rms",
  change: (v: number, i: number) => number = (v) => v,
): Promise<Float32Array> {
  const x = put(backend, randomNumbers(T * K, 1).map(change), [T, K]);
  const weight = put(backend, randomNumbers(K, 2), [K]);
  const bias = kind === "layer" ? put(backend, randomNumbers(K, 3), [K]) : undefined;
  const n = backend.tensor([T, K], "F32", "activations");
  const y = backend.tensor([T, N], "F32", "activations");
  const data = randomNumbers(N * K, 4);
  const w = await upload(backend, { data, dtype: "F32", shape: [N, K] }, "NK");
  const options = { kind, weight, bias, eps: 1e-5, offset: kind === "rms" ? 1 : 0 };
  using plan = await backend.record((k) => {
    k.norm(n, x, options);
    k.matmul(y, n, w);
    k.norm(n, x, { kind: "rms", weight, eps: 1e-5 });
  });
  plan.run(stepOf(T));
  return await backend.read(y) as Float32Array;
}

Deno.test({
  name: "loadModel() refuses a cache beyond one binding before anything is uploaded",
  ignore,
  fn: async () => {
    const config = {
      family: "labcore",
      vocab_size: 65,
      block_size: 2 ** 28,
      n_layer: 1,
      n_head: 8,
      n_embd: 512,
      use_rope: true,
    };
    using _card = new Card(); // whose memory is not the host's
    await assert.rejects(
      loadModel({ config }, { device: "webgpu", contextLength: 2 ** 27 }),
      { name: "DeviceError", message: /no tensor of more than \d+ bytes \(one binding\)/ },
    );
  },
});

Deno.test({
  name: "loadModel() refuses a model beyond a software adapter's host memory before it allocates",
  ignore,
  fn: async () => {
    const sizes = { vocab_size: 65, block_size: 64, n_layer: 9000, n_head: 8, n_embd: 2048 };
    using _software = new Card("llvmpipe");
    using buffers = new BufferSpy();
    await assert.rejects(
      loadModel({ config: { family: "gpt2", ...sizes } }, { device: "webgpu" }),
      {
        name: "DeviceError",
        message: /^Cannot load "random weights": expected at most .* memory\), got \d+\.\d GiB/,
      },
    );
    assert.ok(buffers.peak < 2 ** 20, `${buffers.peak}`);
    assert.equal(buffers.alive.size, 0);
  },
});

/** A model whose context is longer than a prefill chunk of a GPU. */
const LONG = {
  config: { family: "gpt2", vocab_size: 65, block_size: 700, n_layer: 1, n_head: 2, n_embd: 32 },
};

/** Devices that report no free memory for an activation of more than `most` bytes. */
class SmallDevice implements Disposable {
  readonly #spy = new Spy();

  constructor(most: number) {
    this.#spy.on(GPUDevice, "createBuffer", (device, _buffer, [descriptor]) => {
      const { label, size } = descriptor as GPUBufferDescriptor;
      if (label !== "activations" || size <= most) return;
      const error = new GPUOutOfMemoryError("no memory");
      const event = new GPUUncapturedErrorEvent("uncapturederror", { error });
      (device as GPUDevice).dispatchEvent(event);
    });
  }

  [Symbol.dispose](): void {
    this.#spy[Symbol.dispose]();
  }
}

Deno.test({
  name: "loadModel() takes 512 rows a chunk on a GPU, and 128 when they do not fit its memory",
  ignore,
  fn: async () => {
    using _card = new Card();
    await using js = await loadModel(LONG, { device: "js" });
    const ids = Array.from({ length: 600 }, (_, i) => (i * 7) % 65);
    const expected = await lastLogits(js, ids);
    const hidden = 4 * 4 * 32; // bytes of a row of the MLP
    for (const [most, rows] of [[Infinity, 512], [256 * hidden, 128]]) {
      using buffers = new BufferSpy();
      using _small = new SmallDevice(most);
      await using model = await loadModel(LONG, { device: "webgpu", tune: false });
      assertClose(await lastLogits(model, ids), expected, TOLERANCE.logits);
      const { chunk } = await instrumentsOf(model).run(ids, (runner) => Promise.resolve(runner));
      assert.equal(chunk, rows);
      const notes = rows === 512
        ? []
        : ["Prefill takes 128 rows at a time: 512 do not fit the device's memory."];
      assert.deepEqual(model.notes, notes);
      const all = await instrumentsOf(model).run(ids, (runner) => runner.logits(ids));
      assertClose(all.subarray(-65), expected, TOLERANCE.logits);
      await model[Symbol.asyncDispose]();
      assert.equal(buffers.alive.size, 0);
    }
  },
});

Deno.test({
  name: "generate() uses no kernel chosen by timing when it is deterministic",
  ignore,
  fn: async () => {
    await using caches = await CacheFolder.make();
    using _card = new Card();
    const ids = [1, 2, 3, 4, 5, 6, 7];
    const open = (tune: boolean) =>
      loadModel(fixture("labcore/learned"), { device: "webgpu", tune });
    const draw = async (model: Model, deterministic: boolean) => {
      const drawn = model.generate(ids, { maxNewTokens: 3, seed: 1, deterministic });
      return await Array.fromAsync(drawn, ({ id }) => id);
    };
    await using fixed = await open(false);
    const expected = await lastLogits(fixed, ids);
    await (await open(true))[Symbol.asyncDispose]();
    const [file, ...others] = await caches.tiles();
    assert.deepEqual(others, []);
    const kept = JSON.parse(await Deno.readTextFile(file));
    assert.equal(kept.adapter, "A card");
    // Pretends that the tile with another order of sums was the fastest.
    for (const key of Object.keys(kept.choices)) {
      kept.choices[key] = TILES[key.endsWith("one") ? "decode" : "prefill"].length - 1;
    }
    await Deno.writeTextFile(file, JSON.stringify(kept));
    await using model = await open(true);
    const tuned = await lastLogits(model, ids);
    assert.notDeepEqual(tuned, expected, "other sums, other bits");
    assertClose(tuned, expected, TOLERANCE.logits);
    const drawn = await draw(model, true);
    assert.deepEqual(drawn, await draw(fixed, true));
    assert.deepEqual(await lastLogits(model, ids), expected);
    const { current } = model.memory;
    await draw(model, false);
    assert.deepEqual(await lastLogits(model, ids), tuned);
    await draw(model, true);
    assert.equal(model.memory.current, current, "its plans are made once");
  },
});

Deno.test({
  name:
    "generate() ends soon when a timer aborts it, despite queued steps, and can be called again",
  ignore,
  fn: async () => {
    await using model = await loadModel(fixture("labcore/learned"), { device: "webgpu" });
    const draw = (options: GenerateOptions) => model.generate([1, 2, 3], { seed: 1, ...options });
    // The grouping of ids (`ahead`) depends on the time of a step; the ids do not.
    const first = () => Array.fromAsync(draw({ maxNewTokens: 20 }), ({ id }) => id);
    const expected = await first();
    const controller = new AbortController();
    let count = 0;
    let last: GeneratedToken | undefined;
    for await (last of draw({ maxNewTokens: 1e9, signal: controller.signal })) {
      if (++count !== 20) continue;
      setTimeout(() => controller.abort(), 100);
    }
    // 10⁹ tokens would take years.
    assert.equal(last?.finishReason, "aborted");
    assert.deepEqual(await first(), expected);
  },
});

/** An adapter with another name, which alone identifies it as software. */
class Card implements Disposable {
  readonly #original: PropertyDescriptorMap = Object.getOwnPropertyDescriptors(
    GPUAdapterInfo.prototype,
  );

  constructor(name = "A card") {
    const get = (value: unknown) => ({ get: () => value, configurable: true });
    Object.defineProperties(GPUAdapterInfo.prototype, {
      description: get(name),
      isFallbackAdapter: get(false),
    });
  }

  [Symbol.dispose](): void {
    const { description, isFallbackAdapter } = this.#original;
    Object.defineProperties(GPUAdapterInfo.prototype, { description, isFallbackAdapter });
  }
}

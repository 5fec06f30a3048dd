import assert from "node:assert/strict";
import { TILE_STORE } from "../../engine/host/tile_cache.ts";
import { TILES } from "../../kernels/ops/matmul/tiles.ts";
import { measureWebGpu, openWebGpuBackend, probeWebGpu } from "../../kernels/webgpu/backend.ts";
import type { GpuWeight } from "../../kernels/webgpu/weights.ts";
import { SharedDevices } from "./shared_gpu.ts";
import { BufferSpy, Spy } from "./spy.ts";
import { checkMatmulCase } from "./twins.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { CacheFolder } from "./cache_folder.ts";

const ignore = await ignoreWithoutAdapter("tuner_test.ts");

/** A tile store that counts its saves. */
function storeOf(text: string | null) {
  const store = {
    text,
    keys: new Set<string>(),
    saved: 0,
    load: (key: string) => {
      store.keys.add(key);
      return Promise.resolve(store.text);
    },
    save: (key: string, text: string) => {
      store.keys.add(key);
      store.text = text;
      store.saved++;
      return Promise.resolve();
    },
  };
  return store;
}

Deno.test({
  name: "record() times each shape once, and loads only choices of the same adapter",
  ignore,
  async fn() {
    using _devices = new SharedDevices(); // 11 backends compile the same shaders
    const record = async (store: ReturnType<typeof storeOf>, tune?: boolean) => {
      await using backend = await openWebGpuBackend({ software: false, tune, store });
      for (const T of [1, 9]) await checkMatmulCase(backend, { T, N: 66, K: 130, bias: true });
      await checkMatmulCase(backend, { T: 1, N: 66, K: 130 });
      return store;
    };
    const first = await record(storeOf(null));
    assert.equal(first.saved, 2);
    const kept = JSON.parse(first.text as string);
    assert.equal(kept.adapter, (await probeWebGpu())?.description);
    assert.deepEqual([...first.keys], [`${kept.adapter}, version ${kept.version}`]);
    assert.deepEqual(Object.keys(kept.choices), ["66x130 F32 one", "66x130 F32 9 many"]);
    assert.equal((await record(storeOf(first.text))).saved, 0);
    const wrong = { "66x130 F32 one": 99, "66x130 F32 9 many": -1 };
    for (
      const text of [
        "",
        "{",
        "[]",
        "null",
        JSON.stringify({ ...kept, version: 0 }),
        JSON.stringify({ ...kept, adapter: "another" }),
        JSON.stringify({ ...kept, choices: wrong }),
        JSON.stringify({ ...kept, choices: null }),
      ]
    ) {
      assert.equal((await record(storeOf(text))).saved, 2, text);
    }
    assert.equal((await record(storeOf(null), false)).saved, 0);
  },
});

Deno.test({
  name: "record() keeps the choices of another process, and runs when a store fails",
  ignore,
  async fn() {
    using _devices = new SharedDevices();
    const store = storeOf(null);
    await using one = await openWebGpuBackend({ software: false, store });
    await using two = await openWebGpuBackend({ software: false, store });
    await checkMatmulCase(one, { T: 1, N: 3, K: 5 });
    await checkMatmulCase(two, { T: 1, N: 4, K: 5 });
    await checkMatmulCase(one, { T: 1, N: 6, K: 5 });
    const { choices } = JSON.parse(store.text as string);
    assert.deepEqual(Object.keys(choices).sort(), ["3x5 F32 one", "4x5 F32 one", "6x5 F32 one"]);
    const refuse = () => Promise.reject(new Error("no room"));
    const refusing = { load: refuse, save: refuse };
    await using backend = await openWebGpuBackend({ software: false, store: refusing });
    await checkMatmulCase(backend, { T: 1, N: 3, K: 5 });
  },
});

Deno.test({
  name: "record() times for at most two seconds, and each tile of a shape",
  ignore,
  async fn() {
    const store = storeOf(null);
    const shapes = Array.from({ length: 6 }, (_, i) => 1024 + 64 * i);
    await using backend = await openWebGpuBackend({ software: false, store });
    using clock = new SlowClock(50);
    for (const N of shapes) await checkMatmulCase(backend, { T: 1, N, K: 8 });
    const measured = Object.keys(JSON.parse(store.text as string).choices);
    assert.ok(measured.length > 0 && measured.length < shapes.length, `${measured}`);
    assert.deepEqual(measured, shapes.slice(0, measured.length).map((N) => `${N}x8 F32 one`));
    assert.ok(clock.asked > measured.length * 2 * TILES.decode.length);
  },
});

Deno.test({
  name: "record() times a tile with another layer's weight each time, and writes no operand",
  ignore,
  async fn() {
    const [N, K, layers] = [66, 130, 3];
    await using backend = await openWebGpuBackend({ software: false });
    const numbers = (length: number, value: number) => new Float32Array(length).fill(value);
    const put = (length: number, value: number) => {
      const tensor = backend.tensor([1, length], "F32", "activations");
      backend.write(tensor, numbers(length, value));
      return tensor;
    };
    const [x, n, y, gate] = [put(K, 1), put(K, 2), put(N, 3), put(N, 4)];
    const norm = backend.tensor([K], "F32", "activations");
    const bias = backend.tensor([N], "F32", "activations");
    const weights = await Promise.all(
      Array.from(
        { length: layers },
        () => backend.weight([N, K], "F32", () => {}, { stored: "NK" }),
      ),
    );
    /** Weight and number of operands of a bind group. */
    const bound = new Map<unknown, { buffer: unknown; operands: number }>();
    const runs: { buffer: unknown; operands: number }[] = [];
    const buffers = new Set(weights.map((weight) => (weight as GpuWeight).parts[0].buffer));
    using _spy = new Spy()
      .on(GPUDevice, "createBindGroup", (_self, group, [descriptor]) => {
        const entries = [...(descriptor as GPUBindGroupDescriptor).entries];
        const { resource } = entries.find(({ binding }) => binding === 2) ?? {};
        const { buffer } = (resource ?? {}) as GPUBufferBinding;
        if (buffers.has(buffer)) bound.set(group, { buffer, operands: entries.length });
      })
      .on(GPUComputePassEncoder, "setBindGroup", (_self, _result, [index, group]) => {
        const weight = index === 1 && bound.get(group);
        if (weight) runs.push(weight);
      });
    const options = { bias, gate, residual: true };
    using _plan = await backend.record((k) => {
      for (const weight of weights) {
        k.norm(n, x, { kind: "layer", weight: norm, bias: norm, eps: 1e-5 });
        k.matmul(y, n, weight, options);
      }
      k.norm(n, x, { kind: "layer", weight: norm, bias: norm, eps: 1e-5 });
    });
    assert.ok(runs.length > 2 * TILES.decode.length, `${runs.length} products`);
    const repeated = runs.filter(({ buffer }, i) => i > 0 && runs[i - 1].buffer === buffer);
    assert.equal(repeated.length, 0, "two consecutive timings bind different weights");
    assert.equal(new Set(runs.map(({ buffer }) => buffer)).size, layers);
    // y, x, weight, bias, gate, norm's weight and bias; under split-K the epilogue comes later.
    assert.deepEqual(new Set(runs.map(({ operands }) => operands)), new Set([7, 5]));
    for (
      const [tensor, length, value] of [[x, K, 1], [n, K, 2], [y, N, 3], [gate, N, 4]] as const
    ) {
      assert.deepEqual(await backend.read(tensor), numbers(length, value));
    }
  },
});

/** A clock that advances some milliseconds per reading. */
class SlowClock implements Disposable {
  asked = 0;
  readonly #original = performance.now;

  constructor(ms: number) {
    performance.now = () => ms * this.asked++;
  }

  [Symbol.dispose](): void {
    performance.now = this.#original;
  }
}

Deno.test({
  name: "record() takes the fastest tile, and recordFixed() the same one in every process",
  ignore,
  async fn() {
    const [N, K, T] = [66, 130, 1];
    /** The shader of a product. */
    const shaderOf = async (store: ReturnType<typeof storeOf>, fixed: boolean) => {
      await using backend = await openWebGpuBackend({ software: false, store });
      const shaders: string[] = [];
      using _spy = new Spy().on(GPUDevice, "createShaderModule", (_self, _module, [descriptor]) => {
        shaders.push((descriptor as GPUShaderModuleDescriptor).code);
      });
      const [x, y] = [K, N].map((width) => backend.tensor([T, width], "F32", "activations"));
      const weight = await backend.weight([N, K], "F32", () => {}, { stored: "NK" });
      const record = fixed ? backend.recordFixed! : backend.record.bind(backend);
      using _plan = await record((k) => k.matmul(y, x, weight));
      return shaders.at(-1);
    };
    const measured = storeOf(null);
    await shaderOf(measured, false);
    const kept = JSON.parse(measured.text as string);
    const [tuned, fixed] = [new Set(), new Set()];
    for (const choice of TILES.decode.keys()) {
      const store = storeOf(
        JSON.stringify({ ...kept, choices: { [`${N}x${K} F32 one`]: choice } }),
      );
      tuned.add(await shaderOf(store, false));
      fixed.add(await shaderOf(store, true));
      assert.equal(store.saved, 0);
    }
    assert.equal(tuned.size, TILES.decode.length);
    assert.equal(fixed.size, 1);
  },
});

for (const options of [{ software: true }, { software: false, tune: false }]) {
  Deno.test({
    name: `recordFixed() is missing when tiles are not timed: ${JSON.stringify(options)}`,
    ignore,
    async fn() {
      await using backend = await openWebGpuBackend(options);
      assert.equal(backend.recordFixed, undefined);
    },
  });
}

Deno.test("TILE_STORE keeps a text for each key, and tolerates a path that is no folder", async () => {
  await using caches = await CacheFolder.make();
  const keys = ["A card (driver 1.2), version 1", "A card (driver 1.2), version 2", "../é/\\:*?"];
  for (const key of keys) {
    assert.equal(await TILE_STORE.load(key), null);
    await TILE_STORE.save(key, "old");
    await TILE_STORE.save(key, `text of ${key}`);
  }
  for (const key of keys) assert.equal(await TILE_STORE.load(key), `text of ${key}`);
  const files = await caches.tiles();
  assert.equal(files.length, keys.length, `${files}`); // no temporary file is left
  caches.move(files[0]);
  await TILE_STORE.save(keys[0], "text");
  assert.equal(await TILE_STORE.load(keys[0]), null);
});

Deno.test({
  name: "measureWebGpu() gives plausible rates, and leaks no buffer",
  ignore,
  async fn() {
    using buffers = new BufferSpy();
    const { readBytesPerSec, flopsPerSec } = await measureWebGpu();
    for (const rate of [readBytesPerSec, flopsPerSec]) {
      assert.ok(rate > 1e6 && rate < 1e16, `${rate}`);
    }
    assert.equal(buffers.alive.size, 0);
  },
});

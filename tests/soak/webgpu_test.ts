import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { BufferSpy, Spy } from "../kernels/spy.ts";
import { randomTwinTest } from "../kernels/twins_attention.ts";
import { checkTiles } from "../kernels/twins_tiles.ts";
import { fixture } from "../testing.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";

const ignore = await ignoreWithoutAdapter("soak/webgpu_test.ts");

for (const software of [false, true]) {
  randomTwinTest((name, run) => {
    Deno.test({
      name: `${name}, kernels for ${software ? "a software adapter" : "a GPU"}`,
      ignore,
      async fn() {
        await using backend = await openWebGpuBackend({ software, tune: false });
        await run(backend);
      },
    });
  }, 12);
}

Deno.test({
  name: "matmul() agrees with matmulJs() in every shape when any tile is chosen",
  ignore,
  async fn() {
    await using backend = await openWebGpuBackend();
    await checkTiles(backend, true);
  },
});

const open = () => loadModel(fixture("labcore/learned"), { device: "webgpu" });

/** Ids drawn with a seed; a model with a sliding window never reaches a context limit. */
async function draw(
  model: Awaited<ReturnType<typeof open>>,
  maxNewTokens: number,
  seed: number,
  seen: (count: number) => void = () => {},
): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of model.generate("ROMEO:", { maxNewTokens, seed, temperature: 1 })) {
    if (id !== undefined) seen(ids.push(id));
  }
  return ids;
}

Deno.test({
  name: "a thousand tokens create only command encoders, and no buffer",
  ignore,
  async fn() {
    using buffers = new BufferSpy();
    await using model = await open();
    await draw(model, 200, 1);
    const { bytes } = buffers;
    using spy = new Spy().onCreate();
    await draw(model, 1000, 2, () => {
      assert.equal(buffers.bytes, bytes);
      assert.equal(model.memory.current, bytes);
    });
    assert.deepEqual(Object.keys(spy.calls), ["createCommandEncoder"]);
    assert.ok(spy.calls.createCommandEncoder < 500, "steps share a submit");
    assert.equal(model.memory.peak, buffers.peak);
  },
});

Deno.test({
  name: "50 loads and disposals leave no buffer (webgpu)",
  ignore,
  async fn() {
    using buffers = new BufferSpy();
    for (let i = 0; i < 50; i++) {
      const model = await open();
      await draw(model, 3, i);
      assert.ok(buffers.bytes > 0);
      await model[Symbol.asyncDispose]();
      assert.equal(buffers.alive.size, 0);
      assert.equal(buffers.bytes, 0);
      assert.equal(model.memory.current, 0);
    }
  },
});

Deno.test({
  name: "a device lost during generation rejects with DeviceError, and another model is unaffected",
  ignore,
  async fn() {
    let device: GPUDevice | undefined;
    await using other = await open();
    const expected = await draw(other, 40, 7);
    using _spy = new Spy().on(GPUDevice, "createBuffer", (self) => device = self as GPUDevice);
    await using model = await open();
    await assert.rejects(
      draw(model, 500, 7, (count) => {
        if (count === 20) device?.destroy();
      }),
      (error: Error) => error instanceof DeviceError && /lost/.test(error.message),
    );
    await assert.rejects(draw(model, 1, 7), DeviceError);
    assert.deepEqual(await draw(other, 40, 7), expected);
  },
});

Deno.test({
  name: "two concurrent generations, of one model or of two, draw the same ids as alone",
  ignore,
  async fn() {
    await using one = await open();
    await using two = await open();
    const [a, b] = [await draw(one, 60, 1), await draw(one, 60, 2)];
    assert.notDeepEqual(a, b);
    assert.deepEqual(await Promise.all([draw(one, 60, 1), draw(one, 60, 2)]), [a, b]);
    assert.deepEqual(await Promise.all([draw(one, 60, 1), draw(two, 60, 2)]), [a, b]);
  },
});

Deno.test({
  name: "tokens drawn ahead of a stop, an end or a break change no later generation",
  ignore,
  async fn() {
    const path = fixture("tiny/gpt2");
    await using model = await loadModel(path, { device: "webgpu", contextLength: 60 });
    const prompt = Array.from({ length: 24 }, (_, i) => (i * 5) % 30 + 3);
    const run = async (ids: number[], maxNewTokens: number, cut = Infinity) => {
      const drawn: number[] = [];
      const options = { maxNewTokens, seed: 3, temperature: 1, ignoreEos: true };
      for await (const { id } of model.generate(ids, options)) {
        if (id !== undefined && drawn.push(id) === cut) break;
      }
      return drawn;
    };
    const whole = await run(prompt, 30);
    assert.equal(whole.length, 30);
    for (const cut of [1, 2, 9, 20]) {
      assert.deepEqual(await run(prompt, 30, cut), whole.slice(0, cut));
      // The same prompt may reuse its cache entries; entries of tokens drawn ahead come after them.
      assert.deepEqual(await run(prompt, 30), whole);
    }
    assert.equal((await run(prompt, 100)).length, 60 - 24 + 1, "ends at the context length");
  },
});

import assert from "node:assert/strict";
import { measureWebGpu, openWebGpuBackend, probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { BufferSpy } from "./spy.ts";
import { checkMatmulCase } from "./twins.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";

const ignore = await ignoreWithoutAdapter("tuner_test.ts");

/** A place for the tuner's choices, and how often each thing was done with it. */
function storeOf(text: string | null) {
  const store = {
    text,
    saved: 0,
    load: () => Promise.resolve(store.text),
    save: (text: string) => {
      store.text = text;
      store.saved++;
      return Promise.resolve();
    },
  };
  return store;
}

Deno.test({
  name: "record() measures each shape once, and takes what was kept of this adapter alone",
  ignore,
  async fn() {
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
  name: "measureWebGpu() gives rates that a machine can have, and leaves no buffer",
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

import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { bytesOf } from "../../kernels/tensor.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { testDisposal } from "../kernels/layers.ts";
import { fixture } from "../testing.ts";

const MIB = 2 ** 20;

for (let ticks = 0; ticks < 25; ticks++) testDisposal(ticks);

for (const threads of [1, 2]) {
  Deno.test(`50 backends of 64 MiB on ${threads} threads leave resident memory flat (wasm)`, async () => {
    const resident: number[] = [];
    const row = new Float32Array(4096).fill(1);
    for (let i = 0; i < 50; i++) {
      const backend = await openWasmBackend({ threads });
      await backend.weight([4096, 4096], "F32", (_row, count, into) => {
        for (let at = 0; at < count; at++) into.set(bytesOf(row), at * row.byteLength);
      }, { stored: "NK" });
      await backend[Symbol.asyncDispose]();
      assert.equal(backend.memory.current, 0);
      await new Promise((resolve) => setTimeout(resolve, 0));
      resident.push(Deno.memoryUsage().rss);
    }
    // 50 leaked backends would be 3200 MiB; the GC may be a few backends behind.
    const grown = Math.max(...resident.slice(10)) - Math.min(...resident.slice(0, 10));
    assert.ok(grown < 4 * 64 * MIB, `grew by ${Math.round(grown / MIB)} MiB: ${inMib(resident)}`);
    const last = resident[49] - resident[9];
    assert.ok(last < 2 * 64 * MIB, `ended ${Math.round(last / MIB)} MiB above: ${inMib(resident)}`);
  });
}

Deno.test("10,000 generations leave tracked and resident memory flat (wasm)", async () => {
  await using model = await loadModel(fixture("labcore/rope66"), { device: "wasm", threads: 2 });
  const { current } = model.memory;
  const resident: number[] = [];
  for (let i = 0; i < 10_000; i++) {
    let drawn = 0;
    for await (const _ of model.generate([1, 2, 3], { maxNewTokens: 4, seed: i })) drawn++;
    assert.ok(drawn > 0);
    if (i % 100 === 99) resident.push(Deno.memoryUsage().rss);
  }
  assert.equal(model.memory.current, current);
  const grown = resident.at(-1)! - resident[10];
  assert.ok(grown < 40 * MIB, `grew by ${Math.round(grown / MIB)} MiB: ${inMib(resident)}`);
});

Deno.test("50 loads and disposals leave nothing tracked, and resident memory flat (wasm)", async () => {
  const resident: number[] = [];
  for (let i = 0; i < 50; i++) {
    const model = await loadModel(fixture("labcore/rope66"), { device: "wasm", threads: 2 });
    await Array.fromAsync(model.generate([1, 2, 3], { maxNewTokens: 8, seed: i }));
    await model[Symbol.asyncDispose]();
    assert.equal(model.memory.current, 0);
    resident.push(Deno.memoryUsage().rss);
  }
  const grown = resident[49] - resident[9];
  assert.ok(grown < 60 * MIB, `grew by ${Math.round(grown / MIB)} MiB: ${inMib(resident)}`);
});

function inMib(bytes: readonly number[]): string {
  return bytes.map((b) => Math.round(b / MIB)).join(" ");
}

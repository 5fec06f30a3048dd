import assert from "node:assert/strict";
import { loadModel } from "../../../engine/load.ts";
import { profile } from "../../../engine/measure/profile.ts";
import type { PassReport } from "../../../engine/measure/report.ts";
import { probeWebGpu } from "../../../kernels/mod.ts";
import { assertClose, fixture, greedy, TOLERANCE } from "../../testing.ts";

const CPU = ["js", "wasm"] as const;
const DEVICES = await probeWebGpu() ? [...CPU, "webgpu"] as const : CPU;

const learned = (device: typeof DEVICES[number]) =>
  loadModel(fixture("labcore/learned"), { device });

function assertAddsUp({ kernels, kernels_ms }: PassReport): void {
  const sum = kernels.reduce((ms, kernel) => ms + kernel.ms, 0);
  assertClose([sum], [kernels_ms], TOLERANCE.double);
  const shares = kernels.reduce((all, { share }) => all + share, 0);
  assertClose([shares], [1], TOLERANCE.probability);
}

for (const device of CPU) {
  Deno.test(`profile() times each kind of kernel of both passes on ${device}`, async () => {
    await using model = await learned(device);
    const { limits, decode, prefill } = await profile(model, { length: 5 });
    assert.ok(limits.gb_per_sec > 0 && limits.gflops_per_sec > 0);
    assert.deepEqual([decode.rows, decode.length], [1, 5]);
    assert.deepEqual([prefill.rows, prefill.length], [32, 32]);
    const { nLayer, nEmbd: C, vocabSize: V } = model.config;
    const calls = Object.fromEntries(decode.kernels.map(({ name, calls }) => [name, calls]));
    assert.equal(calls.attention, nLayer);
    assert.equal(calls.norm, 2 * nLayer + 1);
    assert.equal(calls[`matmul ${C}→${V}`], 1);
    assert.equal(calls.sample, 1);
    assert.ok(!prefill.kernels.some(({ name }) => name === "sample"));
    for (const pass of [decode, prefill]) {
      assert.ok(pass.ms > 0);
      assertAddsUp(pass);
    }
  });
}

for (const device of DEVICES) {
  Deno.test(`profile() leaves memory and greedy ids unchanged on ${device}`, async () => {
    await using model = await learned(device);
    const before = await greedy(model, "ROMEO:", 8);
    const bytes = () => model.memory.classes.activations.current;
    const kept = bytes();
    await profile(model, { length: 40 }); // more than the window
    assert.equal(bytes(), kept);
    assert.deepEqual(await greedy(model, "ROMEO:", 8), before);
  });
}

Deno.test("profile() refuses a length of 0 and an aborted signal", async () => {
  await using model = await learned("js");
  await assert.rejects(profile(model, { length: 0 }), /Cannot profile: .*at least 1, got 0/);
  const reason = new Error("enough");
  await assert.rejects(profile(model, { signal: AbortSignal.abort(reason) }), reason);
});

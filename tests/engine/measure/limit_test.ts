import assert from "node:assert/strict";
import { loadModel } from "../../../engine/load.ts";
import { benchmark } from "../../../engine/measure/benchmark.ts";
import { GapLimits, leastMs } from "../../../engine/measure/limit.ts";
import { record } from "../../../kernels/calls.ts";
import { openBackend, openLimitMeter } from "../../../kernels/mod.ts";
import { DeviceError } from "../../../kernels/errors.ts";
import { WEB_HOST } from "../../../kernels/host.ts";
import { assertClose, fixture, TOLERANCE } from "../../testing.ts";

const learned = (threads = 1) => loadModel(fixture("labcore/learned"), { device: "wasm", threads });
const TIMES = {
  decode: { ms: 2, length: 10 },
  prefill: { ms: 3, length: 6 },
  useKvCache: true,
};

for (const name of ["js", "wasm"] as const) {
  Deno.test(`openLimitMeter() measures ${name} again and again`, async () => {
    await using meter = await openLimitMeter({ name, threads: 1 }, 100_000);
    for (let i = 0; i < 2; i++) {
      const { readBytesPerSec, flopsPerSec } = await meter.measure(1);
      assert.ok(readBytesPerSec > 1e7 && flopsPerSec > 1e7);
    }
  });
}

Deno.test("leastMs() is the roofline's time of a pass", async () => {
  await using backend = await openBackend("js");
  const x = backend.tensor([1, 4], "F32", "activations");
  const y = backend.tensor([1, 4], "F32", "activations");
  const weight = await backend.weight([4, 4], "F32", () => {}, { stored: "NK" });
  const calls = record((k) => k.matmul(y, x, weight));
  const step = { rows: 1, position: 0, slot: 0, length: 1 };
  const bytes = 4 * (16 + 4 + 4); // weight, x, y
  const flops = 2 * 16;
  const least = (readBytesPerSec: number, flopsPerSec: number) =>
    leastMs(calls, step, { readBytesPerSec, flopsPerSec });
  assertClose([least(1000, 1e9), least(1e9, 1000)], [bytes, flops], TOLERANCE.kernel);
});

Deno.test("GapLimits reports shares that are inverse to the measured times", async () => {
  await using model = await learned();
  await using limits = await GapLimits.open(model);
  assert.match((await limits.report(TIMES)).reason!, /no gap was measured/);
  await limits.measure();
  const report = await limits.report(TIMES);
  const { decode, prefill } = TIMES;
  const slower = await limits.report({
    decode: { ...decode, ms: 2 * decode.ms },
    prefill: { ...prefill, ms: 2 * prefill.ms },
    useKvCache: true,
  });
  assert.ok(report.read_gb_per_s! > 0 && report.gflops! > 0);
  assertClose(
    [2 * slower.decode_share!, 2 * slower.prefill_share!],
    [report.decode_share!, report.prefill_share!],
    TOLERANCE.kernel,
  );
  const withoutCache = await limits.report({ ...TIMES, useKvCache: false });
  assert.ok(withoutCache.decode_share! > report.decode_share!, "a whole window for each token");
  const short = await limits.report({ ...TIMES, decode: null });
  assert.deepEqual([short.decode_share, short.gaps, short.reason], [null, 1, null]);
  assert.equal(report.spread, null, "of one gap");
  await limits.measure();
  assert.ok((await limits.report(TIMES)).spread! >= 0);
});

Deno.test("GapLimits measures three gaps, and more only if iterations take longer", async () => {
  await using model = await learned();
  await using limits = await GapLimits.open(model);
  for (let i = 0; i < 6; i++) await limits.measure();
  assert.equal((await limits.report(TIMES)).gaps, 3);
});

Deno.test("runs of one backend share a meter until the last one is disposed of", async () => {
  await using model = await learned(2);
  let started = 0;
  const host = { ...WEB_HOST, startWorker: () => (started++, WEB_HOST.startWorker()) };
  const first = await GapLimits.open(model, host);
  {
    await using second = await GapLimits.open(model, host);
    await second.measure();
    assert.equal(second.meter, first.meter);
  }
  await first.measure(); // still open
  await first[Symbol.asyncDispose]();
  await first[Symbol.asyncDispose](); // twice is once
  assert.equal(started, 1);
  await using again = await GapLimits.open(model, host);
  assert.notEqual(again.meter, first.meter);
  assert.equal(started, 2);
});

Deno.test("GapLimits gives the reason where the device does not open twice", async () => {
  await using model = await learned(2);
  const startWorker = () => {
    throw new DeviceError("Cannot start a thread: no more");
  };
  await using limits = await GapLimits.open(model, { ...WEB_HOST, startWorker });
  await limits.measure();
  assert.deepEqual(await limits.report(TIMES), {
    read_gb_per_s: null,
    gflops: null,
    decode_share: null,
    prefill_share: null,
    gaps: 0,
    spread: null,
    reason: "Cannot start a thread: no more",
  });
});

Deno.test("benchmark() measures a gap before each iteration and after the last", async () => {
  await using model = await learned();
  const options = { genTokens: 2, warmupTokens: 0, iters: 2 };
  const { results } = await benchmark(model, options);
  assert.equal(results.limit.gaps, 3);
  const starts = results.per_iter.map(({ started_ms }) => started_ms);
  assert.ok(starts[0] >= results.engine_warmup.ms, "counted from the start of the run");
  assert.ok(starts[1] >= starts[0] + 1000 * results.per_iter[0].seconds);
});

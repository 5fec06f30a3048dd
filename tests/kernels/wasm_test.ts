import assert from "node:assert/strict";
import type { Backend, Recorder } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { put, stepOf, twinTests, upload } from "./twins.ts";

function wasmTest(name: string, run: (backend: Backend) => Promise<void>): void {
  Deno.test(`${name} (wasm)`, async () => {
    const backend = await openWasmBackend();
    await run(backend);
    await backend[Symbol.asyncDispose]();
    assert.equal(backend.memory.current, 0);
    for (const { current } of Object.values(backend.memory.classes)) assert.equal(current, 0);
  });
}

twinTests(wasmTest);

wasmTest("record() names the operation when there is no form for it", async (backend) => {
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
        error instanceof DeviceError && error.message.startsWith(`Cannot record "${op}" on wasm: `),
    );
  }
});

wasmTest(
  "run() replays a plan with what was written since, after memory has grown",
  async (backend) => {
    const C = 66;
    const x = put(backend, randomNumbers(C, 1), [1, C]);
    const y = backend.tensor([1, C], "F32", "activations");
    const weight = put(backend, new Float32Array(C).fill(1), [C]);
    using plan = await backend.record((k) => k.norm(y, x, { kind: "rms", weight, eps: 1e-5 }));
    backend.tensor([1 << 22], "F32", "kvCache"); // 16 MiB more: every view is made anew
    backend.write(x, new Float32Array(C).fill(-5));
    plan.run(stepOf(1));
    const expected = new Float32Array(C).fill(-1);
    assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel);
  },
);

wasmTest("weight() refuses what exceeds the memory before it allocates", async (backend) => {
  const before = backend.memory.current;
  const made = backend.weight([2 ** 20, 2 ** 12], "F32", () => {}, { stored: "NK" });
  await assert.rejects(made, RangeError);
  assert.equal(backend.memory.current, before);
});

import assert from "node:assert/strict";
import type { Backend, Segment, Step } from "../../kernels/backend.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { onlySegment } from "../../kernels/step.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { randomNumbers } from "../testing.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { put, upload } from "./twins.ts";

const SEGMENT: Segment = { rows: 2, position: 3, slot: 0, length: 2 };
const [T, C] = [3, 4];

const BACKENDS: Record<string, { open: () => Promise<Backend>; ignore?: boolean }> = {
  js: { open: () => Promise.resolve(openJsBackend()) },
  wasm: { open: () => openWasmBackend({ threads: 2 }) },
  webgpu: {
    open: () => openWebGpuBackend(),
    ignore: await ignoreWithoutAdapter("step_test.ts"),
  },
};

for (const [name, { open, ignore }] of Object.entries(BACKENDS)) {
  Deno.test({
    name: `Plan.run() takes a lone segment and a step of one alike on ${name}`,
    ignore,
    async fn() {
      await using backend = await open();
      const data = randomNumbers(8 * C, 1);
      const table = await upload(backend, { data, dtype: "F32", shape: [8, C] }, "NK");
      const after = async (step: Step | Segment) => {
        const x = put(backend, new Float32Array(T * C), [T, C]);
        using plan = await backend.record((k) => k.addPosition(x, table));
        plan.run(step);
        return await backend.read(x);
      };
      const expected = new Float32Array(T * C); // the third row is not in use
      expected.set(data.subarray(3 * C, 5 * C));
      assert.deepEqual(await after(SEGMENT), expected);
      assert.deepEqual(await after({ rows: 2, segments: [SEGMENT] }), expected);
    },
  });

  Deno.test({
    name: `Plan.run() refuses a step of two segments and runs nothing on ${name}`,
    ignore,
    async fn() {
      await using backend = await open();
      const data = randomNumbers(8 * C, 1);
      const table = await upload(backend, { data, dtype: "F32", shape: [8, C] }, "NK");
      const x = put(backend, new Float32Array(T * C), [T, C]);
      using plan = await backend.record((k) => k.addPosition(x, table));
      assert.throws(() => plan.run({ rows: 4, segments: [SEGMENT, SEGMENT] }), RangeError);
      assert.deepEqual(await backend.read(x), new Float32Array(T * C));
    },
  });
}

Deno.test("onlySegment() refuses what is not one segment of the one sequence", () => {
  assert.equal(onlySegment(SEGMENT), SEGMENT);
  assert.equal(onlySegment({ rows: 2, segments: [SEGMENT] }), SEGMENT);
  assert.equal(onlySegment({ ...SEGMENT, sequence: 0 }).position, 3);
  const refuses = (step: Step | Segment, message: RegExp) =>
    assert.throws(() => onlySegment(step), { name: "RangeError", message });
  refuses(
    { rows: 4, segments: [SEGMENT, SEGMENT] },
    /one segment of all 4 rows, got 2 rows and 2 rows$/,
  );
  refuses({ rows: 0, segments: [] }, /got none$/);
  refuses({ rows: 3, segments: [SEGMENT] }, /one segment of all 3 rows, got 2 rows$/);
  refuses({ ...SEGMENT, sequence: 1 }, /expected sequence 0, got 1/);
});

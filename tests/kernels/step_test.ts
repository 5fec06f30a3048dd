import assert from "node:assert/strict";
import type { Backend, Segment, Step } from "../../kernels/backend.ts";
import { record, roomOf } from "../../kernels/calls.ts";
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
    name: `Plan.run() refuses rows beyond its tensors and runs nothing on ${name}`,
    ignore,
    async fn() {
      await using backend = await open();
      const data = randomNumbers(8 * C, 1);
      const table = await upload(backend, { data, dtype: "F32", shape: [8, C] }, "NK");
      const x = put(backend, new Float32Array(T * C), [T, C]);
      const behind = put(backend, new Float32Array(T * C), [T, C]);
      using plan = await backend.record((k) => k.addPosition(x, table));
      const refuses = (step: Step | Segment, message: RegExp) =>
        assert.throws(() => plan.run(step), { name: "RangeError", message });
      refuses({ ...SEGMENT, rows: T + 1 }, /at most 3 rows, got 4$/);
      refuses({ rows: 4, segments: [SEGMENT, SEGMENT] }, /one segment/);
      for (const tensor of [x, behind]) {
        assert.deepEqual(await backend.read(tensor), new Float32Array(T * C));
      }
    },
  });
}

Deno.test("onlySegment() refuses a step unless it is one segment of sequence 0", () => {
  const room = { rows: 9, slots: 9 };
  assert.equal(onlySegment(SEGMENT, room), SEGMENT);
  assert.equal(onlySegment({ rows: 2, segments: [SEGMENT] }, room), SEGMENT);
  assert.equal(onlySegment({ ...SEGMENT, sequence: 0 }, room).position, 3);
  const refuses = (step: Step | Segment, message: RegExp) =>
    assert.throws(() => onlySegment(step, room), { name: "RangeError", message });
  refuses(
    { rows: 4, segments: [SEGMENT, SEGMENT] },
    /one segment of all 4 rows, got 2 rows and 2 rows$/,
  );
  refuses({ rows: 0, segments: [] }, /got none$/);
  refuses({ rows: 3, segments: [SEGMENT] }, /one segment of all 3 rows, got 2 rows$/);
  refuses({ ...SEGMENT, sequence: 1 }, /expected sequence 0, got 1/);
});

Deno.test("onlySegment() refuses rows and slots beyond the tensors of a pass", () => {
  const segment = { rows: 3, position: 5, slot: 5, length: 8 };
  assert.equal(onlySegment(segment, { rows: 3, slots: 8 }), segment);
  assert.equal(onlySegment(segment, { rows: Infinity, slots: Infinity }), segment);
  assert.throws(() => onlySegment(segment, { rows: 2, slots: 8 }), /at most 2 rows, got 3$/);
  assert.throws(() => onlySegment(segment, { rows: 3, slots: 7 }), /slots below 7, got 5 to 7$/);
});

Deno.test("roomOf() is the smallest extent that the calls of a pass write", async () => {
  await using backend = openJsBackend();
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const [x, small, qkv, q] = [f32(5, C), f32(4, C), f32(6, 3 * C), f32(6, C)];
  const cache = { k: f32(1, 7, C), v: f32(1, 7, C) };
  const weight = await upload(
    backend,
    { data: randomNumbers(C * C, 1), dtype: "F32", shape: [C, C] },
    "NK",
  );
  const rows = record((k) => k.matmul(f32(5, C), x, weight));
  assert.deepEqual(roomOf(rows), { rows: 5, slots: Infinity });
  const norm = { kind: "rms", weight: f32(C), eps: 1e-5 } as const;
  const pass = record((k) => {
    k.norm(x, x, norm);
    k.norm(small, small, norm);
    k.writeKv(q, cache, qkv);
  });
  assert.deepEqual(roomOf(pass), { rows: 4, slots: 7 });
  assert.deepEqual(roomOf([]), { rows: Infinity, slots: Infinity });
});

import assert from "node:assert/strict";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import { assertClose, readJson, TOLERANCE } from "../../testing.ts";
import { type Matrix, type Numbers, putWeight } from "../goldens.ts";

interface EmbedCase {
  readonly op: "embed";
  readonly name: string;
  readonly scale?: number;
  readonly table: Matrix;
  readonly ids: Numbers;
  readonly expected: Numbers;
}

interface AddPositionCase {
  readonly op: "addPosition";
  readonly name: string;
  readonly position: number;
  readonly table: Matrix;
  readonly x: Numbers;
  readonly expected: Numbers;
}

for (const golden of readJson<(EmbedCase | AddPositionCase)[]>("kernels/embed.json")) {
  Deno.test(`${golden.op}() agrees with torch when the table is ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { expected } = golden;
    const rows = expected.shape[0];
    const table = await putWeight(backend, golden.table);
    const y = backend.tensor(expected.shape, "F32", "activations");
    if (golden.op === "embed") {
      backend.write(y, new Float32Array(expected.data.length).fill(NaN));
      const ids = backend.tensor(golden.ids.shape, "I32", "activations");
      backend.write(ids, Int32Array.from(golden.ids.data));
      using plan = await backend.record((k) => k.embed(y, table, ids, { scale: golden.scale }));
      plan.run({ rows, position: 0, slot: 0, length: rows });
    } else {
      backend.write(y, Float32Array.from(golden.x.data));
      using plan = await backend.record((k) => k.addPosition(y, table));
      plan.run({ rows, position: golden.position, slot: 0, length: rows });
    }
    assertClose(await backend.read(y) as Float32Array, expected.data, TOLERANCE.kernel, "y");
  });
}

Deno.test("embed() gives the stored numbers exactly when there is no scale", async () => {
  await using backend = openJsBackend();
  const data = [0.1, -0.2, 0.3, 1e-40, 3.4e38, -0];
  const table = await putWeight(backend, { shape: [2, 3], data });
  const y = backend.tensor([1, 3], "F32", "activations");
  const ids = backend.tensor([1], "I32", "activations");
  backend.write(ids, new Int32Array([1]));
  using plan = await backend.record((k) => k.embed(y, table, ids));
  plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
  assert.deepEqual(await backend.read(y), Float32Array.from(data.slice(3)));
});

Deno.test("embed() and addPosition() leave the other rows alone when the step is short", async () => {
  await using backend = openJsBackend();
  const table = await putWeight(backend, { shape: [3, 2], data: [1, 2, 3, 4, 5, 6] });
  const y = backend.tensor([3, 2], "F32", "activations");
  backend.write(y, new Float32Array([-1, -2, -3, -4, -5, -6]));
  const ids = backend.tensor([3], "I32", "activations");
  backend.write(ids, new Int32Array([2, 0, 1]));
  using plan = await backend.record((k) => {
    k.embed(y, table, ids);
    k.addPosition(y, table);
  });
  plan.run({ rows: 2, position: 1, slot: 0, length: 2 });
  assert.deepEqual(await backend.read(y), new Float32Array([8, 10, 6, 8, -5, -6]));
});

import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import { ropeTable } from "../../../kernels/ops/rope.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";
import { type Numbers, put } from "../goldens.ts";

interface TableCase {
  readonly op: "table";
  readonly name: string;
  readonly positions: number;
  readonly rotaryDim: number;
  readonly theta: number;
  /** Positions of the rows in `expected`. */
  readonly rows: readonly number[];
  readonly expected: Numbers;
}

interface RotateCase {
  readonly op: "rotate";
  readonly name: string;
  readonly interleaved?: boolean;
  readonly position: number;
  readonly heads: readonly [H: number, G: number, D: number];
  readonly table: Numbers;
  readonly qkv: Numbers;
  readonly q: Numbers;
  readonly k: Numbers;
}

const goldens = readJson<(TableCase | RotateCase)[]>("kernels/rope.json");

for (const golden of goldens.filter((c) => c.op === "table")) {
  Deno.test(`ropeTable() agrees with torch when it rotates ${golden.name}`, () => {
    const { positions, rotaryDim: R, rows, expected } = golden;
    const table = ropeTable(golden);
    assert.equal(table.length, positions * R);
    const chosen = rows.flatMap((p) => [...table.subarray(p * R, (p + 1) * R)]);
    assertClose(chosen, expected.data, TOLERANCE.kernel, "table");
  });
}

for (const golden of goldens.filter((c) => c.op === "rotate")) {
  Deno.test(`writeKv() agrees with transformers when it rotates ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { heads: [H, G, D], position, interleaved } = golden;
    const [T] = golden.qkv.shape;
    const q = backend.tensor([T, H * D], "F32", "activations");
    const cache = {
      k: backend.tensor([G, T, D], "F32", "kvCache"),
      v: backend.tensor([G, T, D], "F32", "kvCache"),
    };
    const qkv = put(backend, golden.qkv);
    const table = put(backend, golden.table);
    using plan = await backend.record((k) => k.writeKv(q, cache, qkv, { table, interleaved }));
    plan.run({ rows: T, position, slot: 0, length: T });
    assertClose(await backend.read(q) as Float32Array, golden.q.data, TOLERANCE.kernel, "q");
    assertClose(await backend.read(cache.k) as Float32Array, golden.k.data, TOLERANCE.kernel, "k");
  });
}

Deno.test("writeKv() keeps q · k when both positions shift by the same amount", async () => {
  const [D, positions] = [10, 64];
  const position = fc.integer({ min: 0, max: positions / 2 - 1 });
  await fc.assert(
    fc.asyncProperty(
      fc.record({ query: position, key: position, by: position, seed: fc.nat() }),
      fc.boolean(),
      async ({ query, key, by, seed }, interleaved) => {
        await using backend = openJsBackend();
        const q = backend.tensor([1, D], "F32", "activations");
        const cache = {
          k: backend.tensor([1, 1, D], "F32", "kvCache"),
          v: backend.tensor([1, 1, D], "F32", "kvCache"),
        };
        const qkv = put(backend, { shape: [1, 3 * D], data: [...randomNumbers(3 * D, seed)] });
        const table = put(backend, {
          shape: [positions, D],
          data: [...ropeTable({ positions, rotaryDim: D, theta: 10000 })],
        });
        using plan = await backend.record((k) => k.writeKv(q, cache, qkv, { table, interleaved }));
        const at = async (position: number, t: Tensor): Promise<Float32Array> => {
          plan.run({ rows: 1, position, slot: 0, length: 1 });
          return await backend.read(t) as Float32Array;
        };
        const here = dot(await at(query, q), await at(key, cache.k));
        const there = dot(await at(query + by, q), await at(key + by, cache.k));
        assertClose([there], [here], TOLERANCE.kernel);
      },
    ),
    { numRuns: 50, seed: 1 },
  );
});

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, v, i) => sum + v * b[i], 0);
}

import assert from "node:assert/strict";
import { SYSTEM_HOST } from "../../engine/host/system.ts";
import type { Backend } from "../../kernels/backend.ts";
import { FORMATS } from "../../kernels/formats/mod.ts";
import type { Rows } from "../../kernels/ops/matmul/mod.ts";
import { matmulJs } from "../../kernels/ops/matmul/mod.ts";
import { threefry } from "../../kernels/ops/sample/mod.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { put, stepOf, upload } from "./twins.ts";
import { randomTwinTest } from "./twins_attention.ts";
import { blockedDtypes, randomBlocks, roundPerBlock } from "./twins_blocks.ts";

/** Options of a backend whose width of vectors V8's flags decide. */
const BY_FLAGS = { host: SYSTEM_HOST.compute };

randomTwinTest((name, run) => {
  Deno.test(`${name} (wasm)`, async () => {
    await using backend = await openWasmBackend(BY_FLAGS);
    await run(backend);
  });
}, 24);

/** The first `rows` rows of x [T, K] times the matrix. */
async function product(
  backend: Backend,
  matrix: Rows,
  x: Float32Array,
  rows: number,
): Promise<Float32Array> {
  const { shape: [N, K] } = matrix;
  const T = x.length / K;
  const weight = await upload(backend, matrix, "NK");
  const y = backend.tensor([T, N], "F32", "activations");
  const xs = put(backend, x, [T, K]);
  using plan = await backend.record((k) => k.matmul(y, xs, weight));
  plan.run(stepOf(rows));
  return await backend.read(y, 0, rows * N) as Float32Array;
}

Deno.test("matmul() with x in 8 bits agrees with its plain form in 40 random shapes (wasm)", async () => {
  await using backend = await openWasmBackend({ ...BY_FLAGS, activations: "int8" });
  await using narrow = await openWasmBackend({ simd: "128", threads: 1, activations: "int8" });
  let draw = 0;
  const below = (n: number) => threefry(11, 0, draw++, 0) % n;
  const dtypes = blockedDtypes("wasm");
  for (let i = 0; i < 40; i++) {
    const dtype = dtypes[i % dtypes.length];
    const [N, T] = [1 + below(90), 2 + below(20)];
    const K = FORMATS[dtype].block * (1 + below(3));
    const rows = 1 + below(T);
    const matrix = { data: randomBlocks(dtype, N * K, i), dtype, shape: [N, K] } as const;
    const x = randomNumbers(T * K, i + 1);
    const found = await product(backend, matrix, x, rows);
    const what = `${dtype} [${N}, ${K}], ${rows} of ${T} rows`;
    assert.deepEqual(await product(narrow, matrix, x, rows), found, what);
    const expected = new Float32Array(rows * N);
    matmulJs(expected, roundPerBlock(x), matrix, {}, rows);
    assertClose(found, expected, TOLERANCE.sum, what);
  }
});

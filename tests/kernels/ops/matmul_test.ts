import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import type { Activation } from "../../../kernels/ops/activation.ts";
import { packWasm, prefetchOf, rowsScratch } from "../../../kernels/ops/matmul/wasm_rows.ts";
import { SOFTWARE_TILES, TILES } from "../../../kernels/ops/matmul/tiles.ts";
import { matmulWgsl } from "../../../kernels/ops/matmul/wgsl.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import { BYTES, type FloatDtype } from "../../../kernels/formats/mod.ts";
import { ModuleBuilder } from "../../../kernels/asm/assembler.ts";
import { openWasmBackend } from "../../../kernels/wasm/backend.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";
import { type Matrix, type Numbers, put, putWeight } from "../goldens.ts";
import { WORKGROUP_LIMIT } from "../twins.ts";

interface MatmulCase {
  readonly name: string;
  readonly activation?: Activation;
  readonly scale?: number;
  readonly softCap?: number;
  readonly residual?: boolean;
  readonly x: Numbers;
  readonly weight: Matrix;
  readonly bias?: Numbers;
  readonly gate?: Numbers;
  /** Initial y, if it is added to. */
  readonly y?: Numbers;
  readonly expected: Numbers;
}

for (const golden of readJson<MatmulCase[]>("kernels/matmul.json")) {
  Deno.test(`matmul() agrees with torch when it has ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { activation, scale, softCap, residual, bias, gate, expected } = golden;
    const x = put(backend, golden.x);
    const y = backend.tensor(expected.shape, "F32", "activations");
    if (golden.y) backend.write(y, Float32Array.from(golden.y.data));
    const weight = await putWeight(backend, golden.weight);
    const options = {
      bias: bias && put(backend, bias),
      gate: gate && put(backend, gate),
      activation,
      scale,
      softCap,
      residual,
    };
    using plan = await backend.record((k) => k.matmul(y, x, weight, options));
    const [rows] = golden.x.shape;
    plan.run({ rows, position: 0, slot: 0, length: rows });
    assertClose(await backend.read(y) as Float32Array, expected.data, TOLERANCE.sum, "y");
  });
}

Deno.test("matmul() gives a row the same numbers when it has more rows", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        T: fc.integer({ min: 1, max: 5 }),
        N: fc.integer({ min: 1, max: 20 }),
        K: fc.integer({ min: 1, max: 40 }),
        seed: fc.nat(),
      }),
      fc.constantFrom<FloatDtype>("F32", "F16", "BF16"),
      async ({ T, N, K, seed }, dtype) => {
        await using backend = openJsBackend();
        const numbers = randomNumbers(T * K, seed);
        const data = dtype === "F32"
          ? [...randomNumbers(N * K, seed + 1)]
          : Array.from(randomNumbers(N * K, seed + 1), (v) => Math.floor((v + 1) * 0x1e00));
        const weight = await putWeight(backend, { shape: [N, K], dtype, data });
        const x = put(backend, { shape: [T, K], data: [...numbers] });
        const y = backend.tensor([T, N], "F32", "activations");
        using whole = await backend.record((k) => k.matmul(y, x, weight));
        whole.run({ rows: T, position: 0, slot: 0, length: T });
        const expected = await backend.read(y) as Float32Array;
        for (let t = 0; t < T; t++) {
          const row = numbers.slice(t * K, (t + 1) * K);
          backend.write(x, row);
          whole.run({ rows: 1, position: t, slot: t, length: t + 1 });
          assertClose(
            await backend.read(y, 0, N) as Float32Array,
            expected.subarray(t * N, (t + 1) * N),
            TOLERANCE.sum,
            `row ${t}`,
          );
        }
      },
    ),
    { numRuns: 50, seed: 1 },
  );
});

Deno.test("matmul() leaves the other rows alone when the step is short", async () => {
  await using backend = openJsBackend();
  const x = put(backend, { shape: [3, 2], data: [1, 2, 3, 4, 5, 6] });
  const y = put(backend, { shape: [3, 1], data: [7, 8, 9] });
  const weight = await putWeight(backend, { shape: [1, 2], data: [10, 1] });
  using plan = await backend.record((k) => k.matmul(y, x, weight));
  plan.run({ rows: 2, position: 0, slot: 0, length: 2 });
  assert.deepEqual(await backend.read(y), new Float32Array([12, 34, 9]));
});

Deno.test("matmul() stays within every device's workgroup memory when any tile is chosen", () => {
  const common = { N: 66, K: 2 ** 20, dtype: "F32", options: {} } as const;
  const norm = { kind: "layer", weight: {}, bias: {}, eps: 1e-5 } as const;
  const one = [...TILES.decode, SOFTWARE_TILES.decode, SOFTWARE_TILES.normed];
  for (const tile of [...one, ...TILES.prefill, SOFTWARE_TILES.prefill]) {
    const { workgroupBytes: bytes } = matmulWgsl({ ...common, tile });
    assert.ok(bytes <= WORKGROUP_LIMIT, JSON.stringify(tile));
    assert.equal(bytes > 0, tile.kind !== "flat");
  }
  for (const tile of one) { // a norm keeps no row, however wide
    const { workgroupBytes: bytes } = matmulWgsl({ ...common, tile, norm });
    assert.ok(bytes <= WORKGROUP_LIMIT / 2, JSON.stringify(tile));
    assert.equal(bytes > 0, tile.kind !== "flat");
  }
});

Deno.test("matmul() gives a row the same bits when it has any number of rows (wasm)", async () => {
  const [T, N, K] = [24, 40, 67];
  await using backend = await openWasmBackend({ threads: 2 });
  const numbers = randomNumbers(T * K, 1);
  const weight = await putWeight(backend, { shape: [N, K], data: [...randomNumbers(N * K, 2)] });
  const product = async (T: number, rows: number) => {
    const x = put(backend, { shape: [T, K], data: [...numbers.subarray(0, T * K)] });
    const y = backend.tensor([T, N], "F32", "activations");
    using plan = await backend.record((k) => k.matmul(y, x, weight, { activation: "gelu" }));
    plan.run({ rows, position: 0, slot: 0, length: rows });
    return await backend.read(y, 0, rows * N) as Float32Array;
  };
  const all = await product(T, T);
  for (let rows = 4; rows < T; rows++) {
    const expected = all.subarray(0, rows * N);
    assert.deepEqual(await product(rows, rows), expected, `all ${rows} rows`);
    assert.deepEqual(await product(T, rows), expected, `${rows} of ${T} rows`);
  }
});

Deno.test("prefetchOf() stays within a panel, and covers nearly all of it when it is GPT-2's", () => {
  for (const T of [4, 5, 7, 16, 30, 64, 100, 128, 1000]) {
    for (let K = 1; K < 3200; K += K % 64 === 0 ? 1 : 63) {
      const { tileBytes, stepBytes } = prefetchOf(new ModuleBuilder(), { T, K, simd: "128" });
      const [tiles, steps] = [2 * Math.ceil(T / 5), Math.floor(K / 4)];
      const end = steps && (tiles - 1) * tileBytes + (steps - 1) * stepBytes + 4;
      const panel = 16 * K * BYTES.F32;
      assert.ok(end <= panel, `${T} ${K}: ${end} of ${panel}`);
      if (K % 768 === 0) assert.ok(end >= 0.98 * panel, `${T} ${K}: ${end}`);
    }
  }
});

Deno.test("packWasm() stays within its scratch when it packs any number of rows", async () => {
  const memory = new WebAssembly.Memory({ initial: 16 });
  const [bytes, from] = [1 << 19, 1 << 19];
  for (const K of [1, 4, 66]) {
    const m = new ModuleBuilder();
    m.export("pack", packWasm(m, K));
    const module = await WebAssembly.compile(m.toBytes());
    const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
    const pack = exports.pack as (to: number, x: number, rows: number) => void;
    const packed = new Float32Array(memory.buffer, 0, bytes / 4);
    const x = new Float32Array(memory.buffer, from, bytes / 4);
    for (let rows = 4; rows <= 130; rows++) {
      packed.fill(0);
      // A row has its own numbers; the row behind the last one belongs to another tensor.
      for (let i = 0; i < rows * K + 4; i++) x[i] = 1 + Math.floor(i / K);
      pack(0, from, rows);
      const length = rowsScratch({ T: rows, K, dtype: "F32", simd: "128" }) / 4;
      assert.ok(packed.subarray(length).every((v) => v === 0), `${rows} rows of ${K}`);
      const counts = new Array<number>(rows + 1).fill(0);
      for (const v of packed) if (v >= 1 && v <= rows) counts[v]++;
      assert.ok(counts.slice(1).every((count) => count >= K), `${rows} rows of ${K}`);
    }
  }
});

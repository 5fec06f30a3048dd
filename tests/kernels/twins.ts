/**
 * Tests of every backend: each operation against its typed-array form, at ragged shapes and with
 * all options. `twins_attention.ts` has those of embeddings and the cache, `twins_sample.ts`
 * those of sampling.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Activation } from "../../kernels/ops/activation.ts";
import type { Backend, Recorder } from "../../kernels/backend.ts";
import { matmulJs, type MatmulOptions, type Rows } from "../../kernels/ops/matmul/mod.ts";
import { normJs, type NormOptions } from "../../kernels/ops/norm.ts";
import {
  isBlocked,
  narrow,
  storedBytes,
  type Weight,
  type WeightDtype,
  wordsOf,
} from "../../kernels/formats/mod.ts";
import {
  bytesOf,
  type Dtype,
  type FillRows,
  type HostArray,
  type StoredOrder,
} from "../../kernels/tensor.ts";
import { randomBlocks } from "./twins_blocks.ts";
import { assertClose, fillFrom, randomNumbers, TOLERANCE } from "../testing.ts";

/** A step of `rows` rows at position 0. */
export const stepOf = (rows: number) => ({ rows, position: 0, slot: 0, length: rows });

/** A tensor with the numbers of `data`. */
export function put(
  backend: Backend,
  data: HostArray,
  shape: readonly number[],
  dtype: Dtype = "F32",
) {
  const t = backend.tensor(shape, dtype, "activations");
  backend.write(t, data);
  return t;
}

/** Records `build` and runs it once, over `rows` rows. */
export async function runOnce(backend: Backend, rows: number, build: (k: Recorder) => void) {
  using plan = await backend.record(build);
  plan.run(stepOf(rows));
}

/** Default limit of workgroup memory in browsers, in bytes. */
export const WORKGROUP_LIMIT = 16384;

interface NormCase extends Pick<NormOptions, "kind" | "offset" | "residual" | "scale"> {
  T: number;
  C: number;
  bias?: boolean;
  inPlace?: boolean;
  rows?: number;
}

export async function checkNormCase(backend: Backend, test: NormCase): Promise<void> {
  const { T, C, bias, inPlace, rows = T, ...options } = test;
  const shape = [T, C];
  const xs = randomNumbers(T * C, 1).map((v) => 3 * v + 0.5);
  const expected = inPlace ? xs.slice() : randomNumbers(T * C, 2);
  const [weights, biases] = [randomNumbers(C, 3), bias ? randomNumbers(C, 4) : undefined];
  const x = put(backend, xs, shape);
  const y = inPlace ? x : put(backend, expected, shape);
  const weight = put(backend, weights, [C]);
  const shift = biases && put(backend, biases, [C]);
  const common = { ...options, eps: 1e-5 };
  await runOnce(
    backend,
    rows,
    (k) => k.norm(y, x, { ...common, weight, bias: shift }),
  );
  normJs(expected, inPlace ? expected : xs, { ...common, weight: weights, bias: biases }, rows);
  assertClose(
    await backend.read(y) as Float32Array,
    expected,
    TOLERANCE.kernel,
    JSON.stringify(test),
  );
}

interface MatmulCase extends Omit<MatmulOptions, "bias" | "gate"> {
  T: number;
  N: number;
  K: number;
  dtype?: WeightDtype;
  stored?: StoredOrder;
  bias?: boolean;
  gate?: boolean;
  rows?: number;
  /** Numbers per row of y, if the product writes some of its columns. */
  width?: number;
}

/** A weight with the numbers of `rows`, given in file order. */
export function upload(
  backend: Backend,
  { data, dtype, shape: [N, K] }: Omit<Rows, "data"> & { readonly data: HostArray | Uint8Array },
  stored: StoredOrder,
): Promise<Weight> {
  if (isBlocked(dtype)) {
    const rowBytes = storedBytes(dtype, K);
    const rows = (row: number, count: number, into: Uint8Array) =>
      into.set(bytesOf(data).subarray(row * rowBytes, (row + count) * rowBytes));
    return backend.weight([N, K], dtype, rows, { stored });
  }
  const from = wordsOf(dtype, bytesOf(data));
  const fill: FillRows = (row, count, into) => {
    const length = stored === "NK" ? K : N;
    const to = wordsOf(dtype, into);
    assert.equal(to.length, count * length);
    for (let i = 0; i < to.length; i++) {
      const [r, c] = [row + Math.floor(i / length), i % length];
      to[i] = stored === "NK" ? from[r * K + c] : from[c * K + r];
    }
  };
  return backend.weight([N, K], dtype, fill, { stored });
}

export async function checkMatmulCase(backend: Backend, test: MatmulCase): Promise<void> {
  const {
    T,
    N,
    K,
    dtype = "F32",
    stored = "NK",
    bias,
    gate,
    rows = T,
    width = test.N,
    ...options
  } = test;
  const xs = randomNumbers(T * K, 1);
  const expected = randomNumbers(T * width, 2);
  const data = isBlocked(dtype)
    ? randomBlocks(dtype, N * K, 3)
    : bytesOf(narrow(randomNumbers(N * K, 3), dtype));
  const matrix: Rows = { data, dtype, shape: [N, K] };
  const biases = bias ? randomNumbers(N, 4) : undefined;
  const gates = gate ? randomNumbers(T * N, 5) : undefined;
  const [x, y] = [put(backend, xs, [T, K]), put(backend, expected, [T, width])];
  const weight = await upload(backend, matrix, stored);
  const bound = {
    ...options,
    bias: biases && put(backend, biases, [N]),
    gate: gates && put(backend, gates, [T, N]),
  };
  await runOnce(backend, rows, (k) => k.matmul(y, x, weight, bound));
  const columns = { width, first: options.column ?? 0 };
  matmulJs(expected, xs, matrix, { ...options, bias: biases, gate: gates }, rows, { columns });
  assertClose(
    await backend.read(y) as Float32Array,
    expected,
    isBlocked(dtype) ? TOLERANCE.blocks : TOLERANCE.sum,
    JSON.stringify(test),
  );
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

/** Options of the functions that register twin tests. */
export interface TwinOptions {
  /**
   * Whether each pair of options is enough, and large shapes are left out whose shaders take 2 s to
   * compile in software, if smaller ones take the same ways through the kernels. Default all.
   */
  readonly small?: boolean;
}

/** Registers the tests; `test` opens a backend for each. */
export function twinTests(
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
  { small = false }: TwinOptions = {},
): void {
  test("norm() agrees with normJs() when rows are ragged", async (backend) => {
    for (const C of [1, 2, 65, 66, 528]) {
      for (const T of [1, 3, 129]) {
        await checkNormCase(backend, { T, C, kind: "layer", bias: true });
        await checkNormCase(backend, { T, C, kind: "rms" });
      }
    }
  });

  test("norm() agrees with normJs() when every option is combined", async (backend) => {
    const cases: NormCase[] = [];
    for (const kind of ["layer", "rms"] as const) {
      for (const bias of [false, true]) {
        for (const residual of [false, true]) {
          for (const inPlace of [false, true]) {
            for (const rest of [{}, { offset: 1, scale: 0.125 }]) {
              cases.push({ T: 3, C: 66, kind, bias, residual, inPlace, ...rest });
            }
          }
        }
      }
    }
    for (const test of cases) await checkNormCase(backend, test);
  });

  test("norm() leaves rows beyond the step unchanged when it has fewer than T", async (backend) => {
    await checkNormCase(backend, { T: 5, C: 66, kind: "rms", rows: 2 });
  });

  test("matmul() agrees with matmulJs() when shapes are ragged", async (backend) => {
    const shapes = [[1, 1], [66, 1], [33, 2], [65, 66], [396, 65], [65, 528]];
    for (const [i, [N, K]] of shapes.entries()) {
      for (const [j, dtype] of DTYPES.entries()) {
        await checkMatmulCase(backend, { T: 1, N, K, dtype });
        if (small && (i + j) % DTYPES.length) continue;
        await checkMatmulCase(backend, { T: 129, N, K, dtype });
        // The order of the file matters to the upload alone.
        await checkMatmulCase(backend, { T: 1, N, K, dtype, stored: "KN" });
      }
      await checkMatmulCase(backend, { T: 3, N, K, dtype: "F32" });
    }
  });

  test("matmul() leaves the other columns unchanged when it writes some", async (backend) => {
    const cases: MatmulCase[] = [
      { T: 1, N: 33, K: 66, width: 40, column: 0 },
      { T: 9, N: 48, K: 66, width: 80, column: 16, bias: true },
      { T: 5, N: 33, K: 66, width: 50, column: 1, residual: true, scale: 2, activation: "silu" },
      { T: 1, N: 64, K: 256, width: 69, column: 5, dtype: "Q6_K", bias: true },
    ];
    for (const test of cases) await checkMatmulCase(backend, test);
  });

  test("matmul() agrees with matmulJs() when its epilogue has every option", async (backend) => {
    const options: Partial<MatmulCase>[] = [
      { bias: true },
      { gate: true },
      { scale: 0.125 },
      { softCap: 3 },
      { residual: true },
      ...(["relu", "gelu", "geluTanh", "silu"] as Activation[]).flatMap((activation) => [
        { activation },
        { activation, bias: true, gate: true, scale: -20, softCap: 30, residual: true },
      ]),
    ];
    for (const option of options) await checkMatmulCase(backend, { T: 1, N: 65, K: 66, ...option });
    const combined = options.filter((option) => Object.keys(option).length > 1);
    for (const option of combined) {
      await checkMatmulCase(backend, { T: 3, N: 65, K: 66, ...option });
    }
  });

  test("matmul() leaves rows beyond the step unchanged when it has fewer than T", async (backend) => {
    await checkMatmulCase(backend, { T: 129, N: 65, K: 66, rows: 6 });
  });

  test(
    "matmul() has activations of float accuracy when inputs are small and large",
    async (backend) => {
      const T = 1025;
      const xs = Float32Array.from({ length: T }, (_, i) => (i - 512) / 32);
      xs[0] = -1000;
      xs[T - 1] = 1000;
      const one: Rows = { data: bytesOf(new Float32Array([1])), dtype: "F32", shape: [1, 1] };
      const x = put(backend, xs, [T, 1]);
      const y = backend.tensor([T, 1], "F32", "activations");
      const weight = await upload(backend, one, "NK");
      for (const activation of ["relu", "gelu", "geluTanh", "silu"] as Activation[]) {
        await runOnce(backend, T, (k) => k.matmul(y, x, weight, { activation }));
        const expected = new Float32Array(T);
        matmulJs(expected, xs, one, { activation }, T);
        assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel, activation);
      }
    },
  );

  test("matmul() keeps subnormal weights when they are F16", async (backend) => {
    const data = bytesOf(new Uint16Array([1, 0x83ff, 512]));
    const matrix: Rows = { data, dtype: "F16", shape: [1, 3] };
    const xs = new Float32Array([2 ** 24, 2 ** 12, 2 ** 15]);
    const expected = new Float32Array(1);
    const [x, y] = [put(backend, xs, [1, 3]), put(backend, expected, [1, 1])];
    const weight = await upload(backend, matrix, "NK");
    await runOnce(backend, 1, (k) => k.matmul(y, x, weight));
    matmulJs(expected, xs, matrix, {}, 1);
    assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.sum);
  });

  test(
    "matmul() lets a NaN through when there is a cap, and keeps it in its row",
    async (backend) => {
      const [T, N, K] = [3, 2, 3];
      const xs = new Float32Array(T * K).fill(1);
      new Uint32Array(xs.buffer)[K] = 0x7fc00000;
      const data = bytesOf(new Float32Array(N * K).fill(1));
      const matrix: Rows = { data, dtype: "F32", shape: [N, K] };
      const x = put(backend, xs, [T, K]);
      const y = backend.tensor([T, N], "F32", "activations");
      const weight = await upload(backend, matrix, "NK");
      await runOnce(backend, T, (k) => k.matmul(y, x, weight, { softCap: 30 }));
      const nan = Array.from(await backend.read(y), Number.isNaN);
      assert.deepEqual(nan, [false, false, true, true, false, false]);
    },
  );

  test("weight() requests rows in order and in chunks when it is large", async (backend) => {
    const [N, K] = [2100, 1030];
    const data = randomNumbers(N * K, 3);
    const xs = randomNumbers(K, 1);
    const expected = new Float32Array(N);
    matmulJs(expected, xs, { data: bytesOf(data), dtype: "F32", shape: [N, K] }, {}, 1);
    const [x, y] = [put(backend, xs, [1, K]), backend.tensor([1, N], "F32", "activations")];
    for (const stored of ["NK", "KN"] as const) {
      let [next, calls] = [0, 0];
      const weight = await backend.weight([N, K], "F32", async (row, count, into) => {
        assert.equal(row, next);
        next += count;
        calls++;
        await Promise.resolve();
        if (stored === "NK") fillFrom(data)(row, count, into);
        else {
          const to = new Float32Array(into.buffer, into.byteOffset, count * N);
          for (let i = 0; i < to.length; i++) to[i] = data[(i % N) * K + row + Math.floor(i / N)];
        }
      }, { stored });
      assert.equal(next, stored === "NK" ? N : K);
      assert.ok(calls > 1 && calls <= 32, `${calls} calls`);
      await runOnce(backend, 1, (k) => k.matmul(y, x, weight));
      assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.sum, stored);
    }
  });

  test("write() refuses an array of another type than the tensor's", (backend) => {
    const t = backend.tensor([4], "F32", "activations");
    assert.throws(() => backend.write(t, new Int32Array(4)), TypeError);
    return Promise.resolve();
  });
}

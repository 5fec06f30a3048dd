/**
 * Tests of every backend, part two: embeddings, cache writes and attention.
 *
 * @module
 */
import {
  attentionJs,
  type AttentionOptions,
  type AttentionShape,
} from "../../kernels/ops/attention/mod.ts";
import type { Backend, Segment } from "../../kernels/backend.ts";
import { addPositionJs, embedJs } from "../../kernels/ops/embed.ts";
import { writeKvJs } from "../../kernels/ops/kv_cache/mod.ts";
import type { Rows } from "../../kernels/ops/matmul/mod.ts";
import type { Norm } from "../../kernels/ops/norm.ts";
import { ropeTable } from "../../kernels/ops/rope.ts";
import { threefry } from "../../kernels/ops/sample/mod.ts";
import { KV_DTYPES, kvFormatFor } from "../../kernels/formats/kv.ts";
import { narrow, type WeightDtype } from "../../kernels/formats/mod.ts";
import { bytesOf, type StoredOrder } from "../../kernels/tensor.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { checkMatmulCase, put, type TwinOptions, upload } from "./twins.ts";
import { assertPacked, putCache, unpacked } from "./kv_caches.ts";

interface EmbedCase {
  T: number;
  V: number;
  C: number;
  dtype?: WeightDtype;
  stored?: StoredOrder;
  scale?: number;
  /** Default random ids, the last of the table among them. */
  ids?: readonly number[];
  rows?: number;
}

/** A table of random numbers; repeating a page saves half a minute at a vocabulary of 50,257. */
function seededTable(N: number, K: number, dtype: WeightDtype): Rows {
  const page = randomNumbers(Math.min(N * K, 65521), 3);
  const values = Float32Array.from({ length: N * K }, (_, i) => page[i % page.length]);
  return { data: bytesOf(narrow(values, dtype)), dtype, shape: [N, K] };
}

export async function checkEmbedCase(backend: Backend, test: EmbedCase): Promise<void> {
  const { T, V, C, dtype = "F32", stored = "NK", scale, rows = T } = test;
  const given = test.ids ?? Array.from({ length: T }, (_, t) => (V - 1 + t * 40503) % V);
  const ids = Int32Array.from(given);
  const matrix = seededTable(V, C, dtype);
  const expected = randomNumbers(T * C, 2);
  const y = put(backend, expected, [T, C]);
  const table = await upload(backend, matrix, stored);
  const from = put(backend, ids, [T], "I32");
  using plan = await backend.record((k) => k.embed(y, table, from, { scale }));
  plan.run({ rows, position: 0, slot: 0, length: rows });
  embedJs(expected, matrix, ids, { scale }, rows);
  const got = await backend.read(y) as Float32Array;
  assertClose(got, expected, TOLERANCE.kernel, JSON.stringify(test));
}

interface PositionCase {
  T: number;
  P: number;
  C: number;
  dtype?: WeightDtype;
  stored?: StoredOrder;
  position?: number;
  rows?: number;
}

export async function checkPositionCase(backend: Backend, test: PositionCase): Promise<void> {
  const { T, P, C, dtype = "F32", stored = "NK", position = 0, rows = T } = test;
  const matrix = seededTable(P, C, dtype);
  const expected = randomNumbers(T * C, 2);
  const x = put(backend, expected, [T, C]);
  const table = await upload(backend, matrix, stored);
  using plan = await backend.record((k) => k.addPosition(x, table));
  plan.run({ rows, position, slot: position, length: position + rows });
  addPositionJs(expected, matrix, position, rows);
  const got = await backend.read(x) as Float32Array;
  assertClose(got, expected, TOLERANCE.kernel, JSON.stringify(test));
}

interface NormOfHeads extends Pick<Norm, "kind" | "offset"> {
  over: "head" | "row";
  bias?: boolean;
}

interface WriteKvCase extends AttentionShape, Partial<Pick<Segment, "rows" | "position" | "slot">> {
  T: number;
  /** R; no table without it. */
  rotaryDim?: number;
  interleaved?: boolean;
  qNorm?: NormOfHeads;
  kNorm?: NormOfHeads;
}

/** A norm with seeded weights, on both sides. */
function normOfHeads(backend: Backend, heads: number, D: number, norm: NormOfHeads | undefined) {
  if (!norm) return {};
  const { over, bias, ...rest } = norm;
  const C = over === "head" ? D : heads * D;
  const weight = randomNumbers(C, 11);
  const shift = bias ? randomNumbers(C, 12) : undefined;
  const common = { ...rest, eps: 1e-5 };
  return {
    host: { ...common, weight, bias: shift },
    device: {
      ...common,
      weight: put(backend, weight, [C]),
      bias: shift && put(backend, shift, [C]),
    },
  };
}

export async function checkWriteKvCase(backend: Backend, test: WriteKvCase): Promise<void> {
  const { T, H, G, D, S, rotaryDim, interleaved, rows = T, position = 0, slot = 0 } = test;
  const width = (H + 2 * G) * D;
  const host = {
    qkv: randomNumbers(T * width, 1),
    q: randomNumbers(T * H * D, 2),
    k: randomNumbers(G * S * D, 3),
    v: randomNumbers(G * S * D, 4),
  };
  const [qkv, q] = [put(backend, host.qkv, [T, width]), put(backend, host.q, [T, H * D])];
  const cache = putCache(backend, host, test);
  const P = position + T + 1;
  const angles = rotaryDim === undefined
    ? undefined
    : ropeTable({ positions: P, rotaryDim, theta: 10000 });
  const [qNorm, kNorm] = [
    normOfHeads(backend, H, D, test.qNorm),
    normOfHeads(backend, G, D, test.kNorm),
  ];
  const table = angles && put(backend, angles, [P, rotaryDim!]);
  const rotation = { rotaryDim, interleaved };
  using plan = await backend.record((k) =>
    k.writeKv(q, cache, qkv, { ...rotation, table, qNorm: qNorm.device, kNorm: kNorm.device })
  );
  plan.run({ rows, position, slot, length: slot + rows });
  writeKvJs(
    host.q,
    host,
    host.qkv,
    { ...rotation, table: angles, qNorm: qNorm.host, kNorm: kNorm.host },
    { H, G, D, S },
    { rows, position, slot },
  );
  assertClose(
    await backend.read(q) as Float32Array,
    host.q,
    TOLERANCE.kernel,
    JSON.stringify(test),
  );
  for (const name of ["k", "v"] as const) {
    const got = unpacked(await backend.read(cache[name]), test);
    const what = `${name} ${JSON.stringify(test)}`;
    assertPacked(got, host[name], test, TOLERANCE.kernel, what);
  }
}

interface AttentionCase extends AttentionShape, AttentionOptions {
  T: number;
  rows?: number;
  /** Default `rows`: the start of a sequence. */
  length?: number;
  /** Factor of the queries, for scores far apart. */
  loud?: number;
}

export async function checkAttentionCase(backend: Backend, test: AttentionCase): Promise<void> {
  const { T, H, G, D, S, rows = T, length = rows, loud = 1, kv: _, ...options } = test;
  const qs = randomNumbers(T * H * D, 1).map((v) => loud * v);
  const host = { k: randomNumbers(G * S * D, 2), v: randomNumbers(G * S * D, 3) };
  // Keys from `length` on must not be read, whatever their values.
  for (let g = 0; g < G; g++) {
    for (const numbers of Object.values(host)) {
      numbers.fill(NaN, (g * S + length) * D, (g + 1) * S * D);
    }
  }
  const expected = randomNumbers(T * H * D, 4);
  const [q, y] = [put(backend, qs, [T, H * D]), put(backend, expected, [T, H * D])];
  const cache = putCache(backend, host, test);
  for (const name of ["k", "v"] as const) {
    host[name] = unpacked(await backend.read(cache[name]), test);
  }
  using plan = await backend.record((k) => k.attention(y, q, cache, options));
  plan.run({ rows, position: length - rows, slot: length - rows, length });
  attentionJs(expected, qs, host, options, { H, G, D, S }, { rows, length });
  const got = await backend.read(y) as Float32Array;
  assertClose(got, expected, TOLERANCE.sum, JSON.stringify(test));
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];
const STORED: readonly StoredOrder[] = ["NK", "KN"];

/** Registers the tests; `test` opens a backend for each. */
export function attentionTwinTests(
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
  { small = false }: TwinOptions = {},
): void {
  test("embed() agrees with embedJs() when shapes are ragged", async (backend) => {
    for (const [V, C] of [[1, 1], [17, 66], [65, 65], [33, 528]]) {
      for (const T of [1, 2, 7, 129]) {
        for (const dtype of DTYPES) {
          for (const stored of STORED) {
            await checkEmbedCase(backend, { T, V, C, dtype, stored });
          }
        }
      }
    }
  });

  test("embed() agrees with embedJs() when the vocabulary is GPT-2's", async (backend) => {
    await checkEmbedCase(backend, { T: 7, V: 50257, C: 66, dtype: "BF16" });
  });

  test("embed() scales, and gives zeros when an id is outside the table", async (backend) => {
    const ids = [-1, 3, 65, 0, 64, -2147483648, 2147483647];
    for (const dtype of DTYPES) {
      await checkEmbedCase(backend, { T: 7, V: 65, C: 66, dtype, scale: 22.5, ids });
      await checkEmbedCase(backend, { T: 7, V: 65, C: 66, dtype, ids, rows: 3 });
    }
  });

  test("addPosition() agrees with addPositionJs() when positions vary", async (backend) => {
    for (const C of [1, 65, 66, 528]) {
      for (const T of [1, 2, 7, 129]) {
        for (const dtype of DTYPES) {
          await checkPositionCase(backend, { T, P: 300, C, dtype, position: 300 - T });
        }
      }
    }
    await checkPositionCase(backend, { T: 7, P: 20, C: 66, stored: "KN", position: 5, rows: 3 });
  });

  test("writeKv() agrees with writeKvJs() when shapes are ragged", async (backend) => {
    for (const [H, G, D] of [[1, 1, 1], [3, 3, 66], [4, 2, 66], [6, 1, 32], [8, 8, 66]]) {
      for (const T of [1, 2, 7, 129]) {
        await checkWriteKvCase(backend, { T, H, G, D, S: 160, slot: 160 - T });
      }
    }
  });

  test("writeKv() agrees with writeKvJs() when heads are rotated", async (backend) => {
    for (const [D, rotaryDim] of [[66, 66], [66, 64], [66, 2], [66, 22], [32, 32], [64, 16]]) {
      for (const interleaved of [false, true]) {
        for (const T of [1, 7]) {
          const shape = { T, H: 4, G: 2, D, S: 20, rotaryDim, interleaved };
          await checkWriteKvCase(backend, { ...shape, position: 5, slot: 5 });
        }
      }
    }
  });

  test("writeKv() agrees with writeKvJs() when positions are past the cache", async (backend) => {
    const shape = { H: 4, G: 2, D: 66, S: 16, rotaryDim: 66 };
    await checkWriteKvCase(backend, { ...shape, T: 7, rows: 3, position: 1000, slot: 13 });
    await checkWriteKvCase(backend, { ...shape, T: 1, position: 1025, slot: 0, interleaved: true });
  });

  test("writeKv() agrees with writeKvJs() when queries and keys are normed", async (backend) => {
    const shape = { T: 3, H: 4, G: 2, S: 20, position: 9, slot: 2 };
    const every = [{}, { offset: 1 }, { bias: true, offset: 1 }];
    for (const [D, options] of [[66, every], [32, every.slice(2)]] as const) {
      for (const [i, over] of (["head", "row"] as const).entries()) {
        for (const [j, kind] of (["rms", "layer"] as const).entries()) {
          for (const [k, rest] of options.entries()) {
            const norm = { over, kind, ...rest };
            const both = { ...shape, D, rotaryDim: D, qNorm: norm, kNorm: norm };
            const cases = [
              both,
              { ...both, rotaryDim: undefined, kNorm: undefined },
              { ...both, interleaved: true, qNorm: undefined },
            ];
            const chosen = small ? [cases[(i + j + k) % cases.length]] : cases;
            for (const test of chosen) await checkWriteKvCase(backend, test);
          }
        }
      }
    }
  });

  test("attention() agrees with attentionJs() when shapes are ragged", async (backend) => {
    for (
      const [H, G, D] of [[1, 1, 1], [3, 3, 66], [4, 2, 66], [6, 1, 32], [2, 2, 64], [1, 1, 130]]
    ) {
      for (const T of [1, 2, 7, 129]) {
        // The size of the cache is a constant of the shaders: small, there is one.
        await checkAttentionCase(backend, { T, H, G, D, S: small ? 140 : 130 });
        await checkAttentionCase(backend, { T, H, G, D, S: 140, length: T + 5 });
      }
    }
  });

  test("attention() agrees with attentionJs() when one row has a long cache", async (backend) => {
    for (const [H, G, D] of [[3, 3, 66], [4, 2, 32], ...small ? [] : [[12, 1, 64]]]) {
      for (const length of [1, 2, 3, 31, 64, 65, 255, 256, 257, 511, 512, 513, 1024, 1025]) {
        await checkAttentionCase(backend, { T: 1, H, G, D, S: 1030, length });
      }
    }
  });

  test("attention() agrees with attentionJs() when heads are as wide as models have", async (backend) => {
    const heads = small
      ? [[2, 2, 128], [2, 1, 96], [1, 1, 264]]
      : [[8, 2, 128], [4, 1, 256], [2, 2, 96], [1, 1, 600]];
    for (const [H, G, D] of heads) {
      for (const [T, length] of [[1, 70], [1, 200], [5, 70]]) {
        await checkAttentionCase(backend, { T, H, G, D, S: 210, length, window: 150 });
      }
    }
  });

  test("attention() agrees with attentionJs() when very many heads share keys", async (backend) => {
    for (const [H, G, D] of small ? [[17, 1, 30]] : [[40, 1, 256], [17, 1, 66], [50, 2, 30]]) {
      for (const length of [5, 300]) {
        await checkAttentionCase(backend, { T: 1, H, G, D, S: 300, length });
      }
    }
    await checkAttentionCase(backend, { T: 3, H: 50, G: 2, D: 30, S: 40, length: 40 });
  });

  test("attention() agrees with attentionJs() when many rows have a long cache", async (backend) => {
    for (const [H, G, D] of [[2, 1, 66], [2, 2, 32]]) {
      for (const [T, rows] of [[2, 2], [7, 7], [33, 20], [129, 129]]) {
        for (const length of [256, 300, 1025]) {
          await checkAttentionCase(backend, { T, rows, H, G, D, S: 1100, length });
        }
      }
    }
  });

  test("attention() agrees with attentionJs() when every pair of options is combined", async (backend) => {
    const shapes = [[1, 1], [1, 60], [1, 300], [3, 300], [7, 7], [7, 300], [129, 129], [129, 300]];
    const windows = [undefined, 1, 64, 65, ...small ? [] : [5, 1000]];
    for (const [i, [T, length]] of shapes.entries()) {
      for (const [j, window] of windows.entries()) {
        // Every pair of options, and every option of every shape; a soak test draws the rest.
        const softCap = (i + j) % 2 ? 5 : undefined;
        const scale = (i + (j >> 1)) % 2 ? 0.5 : undefined;
        const heads = small ? { H: 2, G: 2, D: 18 } : { H: 4, G: 2, D: 34 };
        const shape = { T, length, ...heads, S: 300 };
        await checkAttentionCase(backend, { ...shape, window, softCap, scale });
      }
    }
  });

  test("attention() agrees with attentionJs() when scores are far apart", async (backend) => {
    for (const T of [1, 7]) {
      const shape = { T, H: 2, G: 2, D: 66, S: 600, length: 600 };
      await checkAttentionCase(backend, { ...shape, loud: 300 });
      await checkAttentionCase(backend, { ...shape, loud: 300, softCap: 50 });
    }
  });

  test("attention() leaves rows beyond the step unchanged when it has fewer than T", async (backend) => {
    for (const rows of [1, 2, 5]) {
      await checkAttentionCase(backend, { T: 129, rows, H: 2, G: 1, D: 66, S: 300, length: 290 });
    }
  });
}

/** Registers a test of so many rounds; on a GPU each compiles its own shaders. */
export function randomTwinTest(
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
  rounds: number,
): void {
  test(`every operation agrees with its plain form in ${rounds} rounds of random shapes`, async (backend) => {
    let draw = 0;
    const below = (n: number) => threefry(7, 0, draw++, 0) % n;
    const oneOf = <E>(list: readonly E[]) => list[below(list.length)];
    for (let i = 0; i < rounds; i++) {
      const [G, D, T] = [1 + below(4), 2 * (1 + below(70)), 1 + below(40)];
      const [H, S] = [G * (1 + below(5)), T + below(700)];
      const rows = 1 + below(T);
      const length = rows + below(S - rows + 1);
      const kv = kvFormatFor(oneOf(KV_DTYPES), D).dtype;
      const shape = { T, rows, H, G, D, S, kv };
      const window = oneOf([undefined, 1 + below(length)]);
      const softCap = oneOf([undefined, 2 + below(50)]);
      await checkAttentionCase(backend, { ...shape, length, window, softCap });
      const norm = oneOf([undefined, { over: "head", kind: "rms" }, {
        over: "row",
        kind: "layer",
      }]);
      await checkWriteKvCase(backend, {
        ...shape,
        position: below(900),
        slot: below(S - rows + 1),
        rotaryDim: oneOf([undefined, D, 2 * (1 + below(D / 2))]),
        interleaved: oneOf([false, true]),
        qNorm: norm as NormOfHeads | undefined,
        kNorm: norm as NormOfHeads | undefined,
      });
      const [dtype, stored] = [oneOf(DTYPES), oneOf(STORED)];
      const C = 1 + below(200);
      await checkEmbedCase(backend, { T, rows, V: 1 + below(100), C, dtype, stored });
      await checkPositionCase(backend, { T, rows, P: T + 9, C, dtype, stored, position: below(9) });
      const [N, K] = [1 + below(150), 1 + below(300)];
      const epilogue = { bias: oneOf([false, true]), residual: oneOf([false, true]) };
      await checkMatmulCase(backend, { T, rows, N, K, dtype, stored, ...epilogue });
    }
  });
}

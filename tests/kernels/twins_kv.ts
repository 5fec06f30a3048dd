/**
 * Tests of every backend, part four: caches in F16 and Q8_0.
 *
 * @module
 */
import { strict as assert } from "node:assert";
import type { Backend } from "../../kernels/backend.ts";
import { KV_DTYPES, type KvDtype, kvFormatFor } from "../../kernels/formats/kv.ts";
import { randomNumbers } from "../testing.ts";
import { packed, putCache, unpacked } from "./kv_caches.ts";
import { put, type TwinOptions } from "./twins.ts";
import { checkAttentionCase, checkWriteKvCase } from "./twins_attention.ts";

/** Formats of which rows are not their numbers. */
const PACKED: readonly KvDtype[] = KV_DTYPES.slice(1);

/** Registers the tests; `test` opens a backend for each. */
export function kvTwinTests(
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
  { small = false }: TwinOptions = {},
): void {
  for (const kv of PACKED) {
    test(`writeKv() rounds rotated and normed rows to ${kv}, and leaves other slots`, async (backend) => {
      const norm = { over: "head", kind: "rms" } as const;
      for (const D of [32, 66, 96, ...small ? [] : [128]]) {
        if (kvFormatFor(kv, D).dtype !== kv) continue;
        const shape = { H: 4, G: 2, D, S: 40, kv, rotaryDim: 2 * Math.floor(D / 4) };
        await checkWriteKvCase(backend, { ...shape, T: 7, rows: 3, position: 100, slot: 13 });
        await checkWriteKvCase(backend, {
          ...shape,
          T: 1,
          slot: 39,
          interleaved: true,
          kNorm: norm,
        });
      }
    });

    test(`writeKv() stores the same numbers in ${kv} as typed arrays do, whatever the numbers`, async (backend) => {
      const [T, G, S, D] = [3, 2, 5, 64];
      const qkv = randomNumbers(T * 3 * G * D, 5);
      // Ties, subnormal and huge numbers, signs of zero; a block of zeros; a NaN.
      const odd = [0, -0, 1 + 2 ** -11, 1 + 3 * 2 ** -11, -(2 ** -24), 2 ** -25, 3 * 2 ** -25];
      qkv.set([...odd, 6e-5, 65519, 65520, -1e30, Infinity, -Infinity], 2 * D);
      qkv.fill(0, 3 * D, 3 * D + 32);
      qkv[5 * D + 40] = NaN;
      const zeros = new Float32Array(G * S * D);
      const cache = putCache(backend, { k: zeros, v: zeros }, { G, S, D, kv });
      const q = put(backend, new Float32Array(T * G * D), [T, G * D]);
      const from = put(backend, qkv, [T, 3 * G * D]);
      using plan = await backend.record((k) => k.writeKv(q, cache, from));
      plan.run({ rows: T, position: 0, slot: 1, length: 1 + T });
      for (const [i, name] of (["k", "v"] as const).entries()) {
        const expected = new Float32Array(G * S * D);
        for (let t = 0; t < T; t++) {
          for (let g = 0; g < G; g++) {
            const at = ((3 * t + 1 + i) * G + g) * D;
            expected.set(qkv.subarray(at, at + D), (g * S + 1 + t) * D);
          }
        }
        const shape = { G, S, D, kv };
        // As lists: typed arrays would compare the bits of NaN.
        const got = [...unpacked(await backend.read(cache[name]), shape)];
        assert.deepEqual(got, [...unpacked(packed(expected, shape), shape)], name);
      }
    });

    test(`attention() reads a cache of ${kv}`, async (backend) => {
      for (const D of kvFormatFor(kv, 66).dtype === kv ? [64, 66] : [64, 96]) {
        for (const [T, length] of [[1, 300], [37, 150]]) {
          await checkAttentionCase(backend, { T, H: small ? 4 : 6, G: 2, D, S: 310, kv, length });
        }
      }
      const windowed = { H: 2, G: 2, D: 32, S: 150, kv, length: 100, window: 40 };
      for (const T of [1, 12]) await checkAttentionCase(backend, { ...windowed, T });
    });
  }
}

import fc from "../../fast_check.ts";
import assert from "node:assert/strict";
import type { AttentionOptions } from "../../../kernels/ops/attention/mod.ts";
import {
  attentionDecodeWgsl,
  attentionPrefillWgsl,
  attentionReduceWgsl,
  keysAtOnce,
} from "../../../kernels/ops/attention/wgsl.ts";
import type { Backend } from "../../../kernels/backend.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";
import { type Numbers, put } from "../goldens.ts";
import { WORKGROUP_LIMIT } from "../twins.ts";

interface AttentionCase extends AttentionOptions {
  readonly name: string;
  readonly rows: number;
  readonly length: number;
  readonly q: Numbers;
  /** Slots from `length` on must not be read. */
  readonly k: Numbers;
  readonly v: Numbers;
  readonly expected: Numbers;
}

for (const golden of readJson<AttentionCase[]>("kernels/attention.json")) {
  Deno.test(`attention() agrees with torch when ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { scale, softCap, window, rows, length, expected } = golden;
    const q = put(backend, golden.q);
    const cache = { k: put(backend, golden.k), v: put(backend, golden.v) };
    const y = backend.tensor(expected.shape, "F32", "activations");
    using plan = await backend.record((k) => k.attention(y, q, cache, { scale, softCap, window }));
    plan.run({ rows, position: length - rows, slot: length - rows, length });
    assertClose(await backend.read(y) as Float32Array, expected.data, TOLERANCE.sum, "y");
  });
}

/** Sizes of an attention, and the start and end of a chunk. */
const attentions = fc.record({
  G: fc.integer({ min: 1, max: 3 }),
  queriesPerKey: fc.integer({ min: 1, max: 3 }),
  D: fc.integer({ min: 1, max: 9 }),
  S: fc.integer({ min: 1, max: 12 }),
  window: fc.option(fc.integer({ min: 1, max: 14 }), { nil: undefined }),
  softCap: fc.option(fc.constant(2), { nil: undefined }),
  seed: fc.nat(),
});

Deno.test("attention() gives the same rows when a chunk reads the same keys as the whole", async () => {
  await fc.assert(
    fc.asyncProperty(
      attentions,
      fc.nat(),
      fc.nat(),
      async ({ G, queriesPerKey, D, S, window, softCap, seed }, i, j) => {
        await using backend = openJsBackend();
        const width = G * queriesPerKey * D;
        const queries = randomNumbers(S * width, seed);
        const q = put(backend, { shape: [S, width], data: [...queries] });
        const cache = randomCache(backend, [G, S, D], seed);
        const y = backend.tensor([S, width], "F32", "activations");
        using plan = await backend.record((k) => k.attention(y, q, cache, { window, softCap }));
        plan.run({ rows: S, position: 0, slot: 0, length: S });
        const whole = await backend.read(y) as Float32Array;

        const length = 1 + i % S;
        const rows = 1 + j % length;
        const first = length - rows;
        backend.write(q, queries.slice(first * width, length * width));
        plan.run({ rows, position: first, slot: first, length });
        assertClose(
          await backend.read(y, 0, rows * width) as Float32Array,
          whole.subarray(first * width, length * width),
          TOLERANCE.sum,
        );
      },
    ),
    { numRuns: 100, seed: 1 },
  );
});

Deno.test("attention() stays between the least and the largest value that a row sees", async () => {
  await fc.assert(
    fc.asyncProperty(attentions, async ({ G, queriesPerKey, D, S, window = S, softCap, seed }) => {
      await using backend = openJsBackend();
      const H = G * queriesPerKey;
      const numbers = randomNumbers(S * H * D, seed);
      const q = put(backend, { shape: [S, H * D], data: [...numbers] });
      const cache = randomCache(backend, [G, S, D], seed);
      const v = await backend.read(cache.v) as Float32Array;
      const y = backend.tensor([S, H * D], "F32", "activations");
      using plan = await backend.record((k) => k.attention(y, q, cache, { window, softCap }));
      plan.run({ rows: S, position: 0, slot: 0, length: S });
      const out = await backend.read(y) as Float32Array;
      const { atol } = TOLERANCE.sum;
      for (let t = 0; t < S; t++) {
        for (let h = 0; h < H; h++) {
          const g = Math.floor(h / queriesPerKey);
          for (let d = 0; d < D; d++) {
            const seen: number[] = [];
            for (let s = Math.max(0, t + 1 - window); s <= t; s++) {
              seen.push(v[(g * S + s) * D + d]);
            }
            const mean = out[(t * H + h) * D + d];
            assert.ok(mean >= Math.min(...seen) - atol && mean <= Math.max(...seen) + atol);
          }
        }
      }
    }),
    { numRuns: 50, seed: 1 },
  );
});

Deno.test("attention() stays within every device's workgroup memory when many heads share keys", () => {
  for (const queriesPerKey of [1, 4, 8, 16, 17, 25, 40, 71, 128]) {
    for (const lanes of [8, 32, 128]) {
      for (const D of [1, 66, 256]) {
        const G = 2;
        const constants = { H: G * queriesPerKey, G, D, S: 8192, lanes, queries: 1, options: {} };
        const what = JSON.stringify(constants);
        for (
          const { workgroupBytes } of [
            attentionDecodeWgsl(constants, false),
            attentionDecodeWgsl(constants, true),
            attentionReduceWgsl(constants),
            attentionPrefillWgsl(constants),
          ]
        ) assert.ok(workgroupBytes <= WORKGROUP_LIMIT, what);
        const { workgroupBytes } = attentionDecodeWgsl(constants, true);
        assert.ok(workgroupBytes > WORKGROUP_LIMIT / 64, what);
        assert.ok(keysAtOnce(constants) >= 32, what);
      }
    }
  }
});

function randomCache(
  backend: Backend,
  shape: readonly [G: number, S: number, D: number],
  seed: number,
): { k: Tensor; v: Tensor } {
  const [G, S, D] = shape;
  const numbers = randomNumbers(2 * G * S * D, seed + 1);
  return {
    k: put(backend, { shape, data: [...numbers.subarray(0, G * S * D)] }),
    v: put(backend, { shape, data: [...numbers.subarray(G * S * D)] }),
  };
}

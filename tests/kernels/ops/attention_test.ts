import fc from "../../fast_check.ts";
import assert from "node:assert/strict";
import type { AttentionOptions } from "../../../kernels/ops/attention/mod.ts";
import {
  decodeConstants,
  decodeGroups,
  splitsOf,
  tableBytes,
} from "../../../kernels/ops/attention/wgsl_decode.ts";
import { prefillConstants } from "../../../kernels/ops/attention/wgsl_prefill.ts";
import { vectorsOf, vectorsOfLane } from "../../../kernels/ops/attention/wgsl_state.ts";
import type { Backend } from "../../../kernels/backend.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";
import { attentionShaders, DEVICES, ROWS } from "../attention_shaders.ts";
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

/** Head sizes of models, and ragged ones. */
const HEAD_SIZES = [1, 32, 64, 66, 80, 96, 128, 130, 256, 384, 600];

Deno.test("attention() stays within every device's workgroup memory when many heads share keys", () => {
  let most = 0;
  for (const queriesPerKey of [1, 4, 17, 71]) {
    for (const device of DEVICES) {
      for (const D of HEAD_SIZES) {
        const shape = { H: 2 * queriesPerKey, G: 2, D, S: 8192 };
        for (const [name, { workgroupBytes }] of attentionShaders(shape, device)) {
          const what = `${name} ${JSON.stringify({ ...shape, ...device })}`;
          assert.ok(workgroupBytes <= WORKGROUP_LIMIT, what);
          most = Math.max(most, workgroupBytes);
        }
      }
    }
  }
  assert.ok(most > WORKGROUP_LIMIT / 2);
});

Deno.test("attention() keeps at most 64 numbers of state in a lane on a GPU", () => {
  for (const device of DEVICES.filter(({ software }) => !software)) {
    for (const D of HEAD_SIZES) {
      for (const [H, G] of [[1, 1], [32, 8], [71, 1]]) {
        const shape = { H, G, D, S: 8192 };
        const decode = decodeConstants(shape, {}, device);
        const prefill = ROWS.map((T) => prefillConstants(shape, {}, T, device));
        for (const { rows } of [decode, ...prefill]) {
          const numbers = rows.rows * 2 * 4 * vectorsOfLane(D, rows);
          assert.ok(numbers <= 64, `${D} ${JSON.stringify(rows)}: ${numbers}`);
        }
        for (const { rows, tile } of prefill) {
          const { wide } = rows;
          assert.ok(D > 256 || wide === 4 || wide === 8, `${wide} lanes share a query`);
          assert.ok(D > 128 || tile >= 12, `${tile} keys of a tile`);
        }
      }
    }
  }
});

Deno.test("attention() splits keys only when they are many, and into parts that the table holds", () => {
  for (const [G, window] of [[1, undefined], [8, undefined], [32, 1000]] as const) {
    for (const device of DEVICES) {
      const shape = { H: 32, G, D: 64, S: 32768 };
      const constants = decodeConstants(shape, { window }, device);
      assert.equal(splitsOf(constants, 1), 1);
      assert.equal(splitsOf(constants, device.software ? 256 : 128), 1);
      const row = 16 * shape.H * (vectorsOf(shape.D) + 1);
      for (let length = 1; length <= shape.S; length += 61) {
        const splits = splitsOf(constants, length);
        assert.ok(splits * row <= tableBytes(constants), `${length} keys: ${splits} splits`);
        const [whole, split] = (["whole", "split"] as const).map((form) =>
          decodeGroups(constants, form, length)
        );
        assert.equal(splits > 1 ? whole : split, 0);
        assert.ok(whole + split > 0);
        assert.equal((whole + split) % (splits * G), 0);
      }
    }
  }
  // A tile of a GPU: one block of every group of lanes.
  const { rows, splits } = decodeConstants({ H: 32, G: 8, D: 64, S: 4096 }, {}, DEVICES[0]);
  assert.equal(4 * rows.lanes / rows.wide, splits.unit);
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

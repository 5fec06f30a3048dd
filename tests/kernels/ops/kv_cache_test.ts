import assert from "node:assert/strict";
import type { Backend } from "../../../kernels/backend.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import type { Norm } from "../../../kernels/ops/norm.ts";
import { assertClose, readJson, TOLERANCE } from "../../testing.ts";
import { type Numbers, put } from "../goldens.ts";

interface WriteKvCase {
  readonly name: string;
  readonly heads: readonly [H: number, G: number, D: number];
  readonly position: number;
  readonly slot: number;
  readonly interleaved?: boolean;
  readonly table?: Numbers;
  readonly qNorm?: Norm<Numbers>;
  readonly kNorm?: Norm<Numbers>;
  readonly qkv: Numbers;
  /** The cache before … */
  readonly cacheK: Numbers;
  readonly cacheV: Numbers;
  readonly q: Numbers;
  /** … and after. */
  readonly k: Numbers;
  readonly v: Numbers;
}

for (const golden of readJson<WriteKvCase[]>("kernels/kv_cache.json")) {
  Deno.test(`writeKv() agrees with torch when ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { heads: [H, G, D], position, slot, interleaved, qNorm, kNorm } = golden;
    const [T] = golden.qkv.shape;
    const [, S] = golden.cacheK.shape;
    const q = backend.tensor([T, H * D], "F32", "activations");
    const cache = { k: put(backend, golden.cacheK), v: put(backend, golden.cacheV) };
    const qkv = put(backend, golden.qkv);
    const options = {
      interleaved,
      table: golden.table && put(backend, golden.table),
      qNorm: qNorm && putNorm(backend, qNorm),
      kNorm: kNorm && putNorm(backend, kNorm),
    };
    using plan = await backend.record((k) => k.writeKv(q, cache, qkv, options));
    plan.run({ rows: T, position, slot, length: slot + T });

    assertClose(await backend.read(q) as Float32Array, golden.q.data, TOLERANCE.kernel, "q");
    const k = await backend.read(cache.k) as Float32Array;
    assertClose(k, golden.k.data, TOLERANCE.kernel, "k");
    // Values are only copied, and slots that no row writes keep their contents.
    assert.deepEqual(await backend.read(cache.v), Float32Array.from(golden.v.data));
    for (let g = 0; g < G; g++) {
      for (let s = 0; s < S; s++) {
        if (s >= slot && s < slot + T) continue;
        const [start, end] = [(g * S + s) * D, (g * S + s + 1) * D];
        assert.deepEqual(
          k.slice(start, end),
          Float32Array.from(golden.cacheK.data.slice(start, end)),
        );
      }
    }
    assert.deepEqual(await backend.read(qkv), Float32Array.from(golden.qkv.data));
  });
}

Deno.test("writeKv() leaves the other rows alone when the step is short", async () => {
  await using backend = openJsBackend();
  const q = put(backend, { shape: [2, 1], data: [-1, -2] });
  const cache = {
    k: put(backend, { shape: [1, 3, 1], data: [-3, -4, -5] }),
    v: put(backend, { shape: [1, 3, 1], data: [-6, -7, -8] }),
  };
  const qkv = put(backend, { shape: [2, 3], data: [1, 2, 3, 4, 5, 6] });
  using plan = await backend.record((k) => k.writeKv(q, cache, qkv));
  plan.run({ rows: 1, position: 0, slot: 1, length: 2 });
  assert.deepEqual(await backend.read(q), new Float32Array([1, -2]));
  assert.deepEqual(await backend.read(cache.k), new Float32Array([-3, 2, -5]));
  assert.deepEqual(await backend.read(cache.v), new Float32Array([-6, 3, -8]));
});

function putNorm(backend: Backend, norm: Norm<Numbers>): Norm {
  const { weight, bias } = norm;
  return { ...norm, weight: put(backend, weight), bias: bias && put(backend, bias) };
}

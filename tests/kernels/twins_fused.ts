/**
 * Tests of calls that the WebGPU backend fuses, against the typed arrays, which fuse none.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Backend } from "../../kernels/backend.ts";
import type { WeightDtype } from "../../kernels/formats/mod.ts";
import { narrow } from "../../kernels/formats/mod.ts";
import { openBackend } from "../../kernels/mod.ts";
import { SOFTWARE_TILES, type Tile, TILES } from "../../kernels/ops/matmul/tiles.ts";
import { bytesOf } from "../../kernels/tensor.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { Tiles } from "../../kernels/webgpu/tuner.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { shareDevices } from "./shared_gpu.ts";
import { Spy } from "./spy.ts";
import { put, upload } from "./twins.ts";

/** Which half of the products of tiles and subgroups a case takes, or all. */
interface Turn {
  readonly half: boolean;
  readonly turn: number;
}

/** Tiles of one row: all candidates for a GPU, and those for a software adapter. */
const ONE_ROW: readonly Tile[] = [...TILES.decode, SOFTWARE_TILES.decode, SOFTWARE_TILES.normed];

/**
 * Compares two backends on each tile, with subgroups and without; under `half`, with one of both:
 * another one in the next case (`turn`).
 */
async function onEachTile(
  { half, turn }: Turn,
  run: (backend: Backend, tile: Tile | undefined) => Promise<Float32Array[]>,
  what: string,
): Promise<void> {
  await using js = await openBackend("js");
  const expected = await run(js, undefined);
  const original = Tiles.prototype.of;
  try {
    for (const subgroups of [true, false]) {
      await using gpu = await openWebGpuBackend({ software: false, tune: false, subgroups });
      for (const [i, tile] of ONE_ROW.entries()) {
        if (tile.kind === "flat" ? !subgroups : half && (i + turn) % 2 === Number(subgroups)) {
          continue;
        }
        Tiles.prototype.of = () => tile;
        for (const [i, got] of (await run(gpu, tile)).entries()) {
          assertClose(got, expected[i], TOLERANCE.sum, `${what}, ${JSON.stringify(tile)}, ${i}`);
        }
      }
    }
  } finally {
    Tiles.prototype.of = original;
  }
}

/** A norm of x [1, K], if there is one. */
function normOf(backend: Backend, K: number, kind: "layer" | "rms") {
  const bias = kind === "layer" ? put(backend, randomNumbers(K, 3), [K]) : undefined;
  return { kind, weight: put(backend, randomNumbers(K, 2), [K]), bias, eps: 1e-5 };
}

function matrix(backend: Backend, N: number, K: number, dtype: WeightDtype, seed: number) {
  const data = bytesOf(narrow(randomNumbers(N * K, seed), dtype));
  return upload(backend, { data, dtype, shape: [N, K] }, "NK");
}

interface HeadsCase {
  readonly H: number;
  readonly G: number;
  readonly D: number;
  /** R; without it, nothing is rotated. */
  readonly rotaryDim?: number;
  readonly interleaved?: boolean;
  readonly bias?: boolean;
  readonly norm?: "layer" | "rms";
  readonly K?: number;
  readonly dtype?: WeightDtype;
}

/** Queries, keys and values of one row, from a product and `writeKv`. */
async function headsOf(
  backend: Backend,
  { H, G, D, rotaryDim, interleaved, bias, norm, K = 66, dtype = "F32" }: HeadsCase,
): Promise<{ results: Float32Array[]; dispatches: number }> {
  const [S, N, P] = [9, (H + 2 * G) * D, 20];
  const x = put(backend, randomNumbers(K, 1), [1, K]);
  const n = norm ? backend.tensor([1, K], "F32", "activations") : x;
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const [qkv, q] = [f32(1, N), f32(1, H * D)];
  const cache = { k: f32(G, S, D), v: f32(G, S, D) };
  const weight = await matrix(backend, N, K, dtype, 5);
  const options = { bias: bias ? put(backend, randomNumbers(N, 6), [N]) : undefined };
  const table = rotaryDim && put(backend, randomNumbers(P * rotaryDim, 7), [P, rotaryDim]);
  const rotation = table ? { table, rotaryDim, interleaved } : {};
  const before = norm && normOf(backend, K, norm);
  using plan = await backend.record((k) => {
    if (before) k.norm(n, x, before);
    k.matmul(qkv, n, weight, options);
    k.writeKv(q, cache, qkv, rotation);
    k.discard(qkv, ...norm ? [n] : []);
  });
  using spy = new Spy().on(GPUComputePassEncoder, "dispatchWorkgroups");
  plan.run({ rows: 1, position: 13, slot: 4, length: 5 });
  const results = [q, cache.k, cache.v].map((t) => backend.read(t) as Promise<Float32Array>);
  return {
    results: await Promise.all(results),
    dispatches: spy.calls.dispatchWorkgroups ?? 0,
  };
}

const HEADS: Readonly<Record<string, HeadsCase>> = {
  "nothing rotated": { H: 3, G: 3, D: 66, bias: true, norm: "layer" },
  "halves rotated": { H: 4, G: 2, D: 64, rotaryDim: 64, norm: "rms", dtype: "BF16" },
  "a bias and a norm": { H: 2, G: 1, D: 128, rotaryDim: 128, norm: "rms", bias: true },
  "a part of each head rotated": { H: 2, G: 2, D: 64, rotaryDim: 32, K: 64 },
  "pairs rotated": { H: 2, G: 2, D: 32, rotaryDim: 32, interleaved: true, bias: true },
  "pairs of a part rotated": { H: 2, G: 2, D: 64, rotaryDim: 32, interleaved: true },
};

/** Declares the tests, of all products of tiles and subgroups or of half of them. */
export function fusedTests(half: boolean, ignore: boolean): void {
  if (!ignore) shareDevices();
  for (const [turn, [what, heads]] of Object.entries(HEADS).entries()) {
    Deno.test({
      name: `matmul() writes heads as writeKvJs() does, in one dispatch, with ${what}`,
      ignore,
      fn: async () => {
        let whole = 0;
        await onEachTile({ half, turn }, async (backend, tile) => {
          const { results, dispatches } = await headsOf(backend, heads);
          if (tile && dispatches === 1) whole++;
          return results;
        }, what);
        // With split-K and halves wider than a head, a second dispatch is needed.
        assert.ok(whole >= (half ? 1 : 2) * (TILES.decode.length - 3), `${whole} in one dispatch`);
      },
    });
  }

  Deno.test({
    name: "matmul() leaves heads to writeKv() when a tile does not own their partners",
    ignore,
    fn: async () => {
      const cases = [{ H: 3, G: 1, D: 6, rotaryDim: 6 }, { H: 2, G: 1, D: 20, rotaryDim: 8 }];
      for (const [turn, heads] of cases.entries()) {
        await onEachTile(
          { half, turn },
          async (backend) => (await headsOf(backend, heads)).results,
          "small heads",
        );
      }
    },
  });

  Deno.test({
    name: "matmul() multiplies by a fused second product as by a gate, whatever its epilogue",
    ignore,
    fn: async () => {
      const cases = [
        { N: 66, K: 66, norm: "rms" as const, activation: "silu" as const },
        { N: 96, K: 64, dtype: "F16" as const, activation: "gelu" as const, bias: true },
        { N: 33, K: 130, norm: "layer" as const, activation: "geluTanh" as const, bias: true },
        { N: 5, K: 3, residual: true, scale: 0.5, softCap: 4 },
      ];
      for (const [turn, one] of cases.entries()) {
        const { N, K, norm, dtype = "F32" as const, bias, ...options } = one;
        await onEachTile({ half, turn }, async (backend, tile) => {
          const x = put(backend, randomNumbers(K, 1), [1, K]);
          const n = norm ? backend.tensor([1, K], "F32", "activations") : x;
          const up = backend.tensor([1, N], "F32", "activations");
          const y = put(backend, randomNumbers(N, 9), [1, N]);
          const weights = [
            await matrix(backend, N, K, dtype, 5),
            await matrix(backend, N, K, dtype, 6),
          ];
          const biases = [7, 8].map((seed) =>
            bias ? put(backend, randomNumbers(N, seed), [N]) : undefined
          );
          const before = norm && normOf(backend, K, norm);
          using plan = await backend.record((k) => {
            if (before) k.norm(n, x, before);
            k.matmul(up, n, weights[0], { bias: biases[0] });
            k.matmul(y, n, weights[1], { ...options, bias: biases[1], gate: up });
            k.discard(up, ...norm ? [n] : []);
          });
          using spy = new Spy().on(GPUComputePassEncoder, "dispatchWorkgroups");
          plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
          const parts = tile?.kind === "split" ? tile.parts ?? 1 : 1;
          if (tile) assert.equal(spy.calls.dispatchWorkgroups, parts === 1 ? 1 : 2);
          return [await backend.read(y) as Float32Array];
        }, JSON.stringify({ N, K }));
      }
    },
  });
}

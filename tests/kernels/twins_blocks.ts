/**
 * Twin tests of blocked weights: matmul and embed of a backend against their typed-array forms.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import {
  FORMATS,
  narrow,
  storedBytes,
  wasmOf,
  type WeightDtype,
} from "../../kernels/formats/mod.ts";
import { embedJs } from "../../kernels/ops/embed.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { checkMatmulCase, put, runOnce, upload } from "./twins.ts";

const { fround } = Math;

/** Blocked formats with a form on a backend. */
export function blockedDtypes(form: "wasm" | "wgsl"): WeightDtype[] {
  return (Object.keys(FORMATS) as WeightDtype[]).filter((dtype) =>
    FORMATS[dtype].block > 1 && FORMATS[dtype][form]
  );
}

/**
 * Blocks of numbers around 1. Formats that are only read get random bits, with scales of 2⁻¹¹ to
 * 2⁻¹⁰.
 */
export function randomBlocks(dtype: WeightDtype, count: number, seed: number): Uint8Array {
  const { encode, bytes } = FORMATS[dtype];
  if (encode) return narrow(randomNumbers(count, seed), dtype) as Uint8Array;
  const blocks = new Uint8Array(storedBytes(dtype, count));
  const noise = randomNumbers(blocks.length, seed);
  for (let i = 0; i < blocks.length; i++) blocks[i] = 128 * noise[i];
  const { half, pair, lower = 0, first } = wasmOf(dtype).blocks!;
  const one = half ?? first + 4 * lower;
  const scales = pair === null ? [one] : [first + 4 * pair, first + 4 * pair + 2];
  for (let at = 0; at < blocks.length; at += bytes) {
    for (const scale of scales) blocks[at + scale + 1] = 0x10 | blocks[at + scale + 1] & 3;
  }
  return blocks;
}

/**
 * Numbers rounded to multiples of the largest magnitude of 32, divided by 127. In F32, as kernels
 * do: half a step is rounded up in one precision and down in another.
 */
export function roundPerBlock(numbers: Float32Array): Float32Array {
  return numbers.map((x, i) => {
    const block = numbers.subarray(i - i % 32, i - i % 32 + 32);
    const scale = fround(block.reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127);
    const steps = fround(x * fround(1 / scale));
    const floor = Math.floor(steps);
    const isUp = steps - floor > 0.5 || steps - floor === 0.5 && floor % 2 !== 0;
    return (isUp ? floor + 1 : floor) * scale;
  });
}

/** Registers the tests of one format; `test` opens a backend for each. */
export function blockTwinTests(
  dtype: WeightDtype,
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
): void {
  const { block } = FORMATS[dtype];
  const widths = block === 32 ? [32, 96] : [block];

  test(`matmul() agrees with matmulJs() when blocks are ${dtype}`, async (backend) => {
    for (const K of widths) {
      for (const [N, T] of [[1, 1], [37, 1], [16, 3], [37, 9]]) {
        await checkMatmulCase(backend, { T, N, K, dtype });
      }
    }
    // A short step of a pass for many rows.
    await checkMatmulCase(backend, { T: 9, N: 37, K: block, dtype, rows: 2 });
  });

  test(`matmul() has every epilogue when blocks are ${dtype}`, async (backend) => {
    const options = { activation: "silu", scale: 0.5, softCap: 3, residual: true } as const;
    for (const T of [1, 5]) {
      await checkMatmulCase(backend, {
        T,
        N: 37,
        K: block,
        dtype,
        ...options,
        bias: true,
        gate: true,
      });
    }
  });

  test(`embed() agrees with embedJs() when blocks are ${dtype}`, async (backend) => {
    const [V, C] = [37, 2 * block];
    const data = randomBlocks(dtype, V * C, 1);
    const matrix = { data, dtype, shape: [V, C] } as const;
    const table = await upload(backend, matrix, "NK");
    const ids = Int32Array.from({ length: V }, (_, i) => (i * 7) % V);
    const idsOnDevice = put(backend, ids, [V], "I32");
    const y = backend.tensor([V, C], "F32", "activations");
    await runOnce(backend, V, (k) => k.embed(y, table, idsOnDevice, { scale: 2 }));
    const expected = new Float32Array(V * C);
    embedJs(expected, matrix, ids, { scale: 2 }, V);
    assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel, dtype);
  });
}

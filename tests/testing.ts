/**
 * What the tests share: the one table of tolerances, comparison, seeded numbers, fixtures.
 *
 * @module
 */
import { AssertionError } from "node:assert";
import type { GenerateOptions } from "../engine/generate.ts";
import type { Model } from "../engine/model.ts";
import { threefry } from "../kernels/ops/sample/mod.ts";
import { bytesOf, type FillRows, type HostArray } from "../kernels/tensor.ts";

/**
 * |a − b| ≤ atol + rtol · |b|, b the oracle's. A test names a row here and
 * carries no number of its own.
 */
export const TOLERANCE = {
  /** One operation against its typed-array form or PyTorch's. */
  kernel: { atol: 1e-5, rtol: 1e-5 },
  /** A function of vectors in F32 against JavaScript's doubles. */
  vectorMath: { atol: 4e-7, rtol: 0 },
  /** Long sums: matmul and attention. */
  sum: { atol: 1e-4, rtol: 1e-4 },
  /**
   * Products of 96 or fewer numbers in −1 … 1 with blocked weights, x in 16 bits: the error of x is
   * at most 2⁻¹⁶ of the largest in a block.
   */
  blocks: { atol: 5e-4, rtol: 1e-4 },
  /**
   * Logits of a whole model of float weights, whatever their dtype: the goldens are computed from
   * the stored values. A tanh in place of GELU's error function moves logits by 7.5e-4.
   */
  logits: { atol: 1e-4, rtol: 0 },
  /** Logits of a model of blocks: products with activations of 14 to 16 bits. */
  quantisedLogits: { atol: 2e-3, rtol: 0 },
  /** Logits against llama.cpp, whose GELU is a table in F16. */
  llamaCppGelu: { atol: 4e-3, rtol: 0 },
  /** Logits against llama.cpp, which rounds activations to the 16 bits of the weights. */
  llamaCpp16: { atol: 1e-1, rtol: 0 },
  /** Probabilities that sampling draws from. */
  probability: { atol: 1e-6, rtol: 1e-6 },
  /** One function of one number, in JavaScript's own doubles, against PyTorch's F64. */
  double: { atol: 4e-15, rtol: 1e-15 },
  /**
   * χ² of thousands of draws over its degrees of freedom, of which there are
   * 3 or more; 1 is expected.
   */
  chiSquare: { atol: 2, rtol: 0 },
} as const;

/** A row of the table. */
export type Tolerance = { readonly atol: number; readonly rtol: number };

/** Compares elementwise; the message tells the worst element. NaN is never close. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { atol, rtol }: Tolerance,
  what = "result",
): void {
  if (actual.length !== expected.length) {
    throw new AssertionError({
      message: `${what}: expected ${expected.length} numbers, got ${actual.length}`,
    });
  }
  let worst = -1;
  let excess = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    const over = difference - (atol + rtol * Math.abs(expected[i]));
    if (!(over <= excess)) { // also true of NaN
      worst = i;
      excess = over;
      if (Number.isNaN(over)) break;
    }
  }
  if (worst >= 0) {
    throw new AssertionError({
      message: `${what}: expected ${expected[worst]} at ${worst}, got ${
        actual[worst]
      } (atol ${atol}, rtol ${rtol})`,
    });
  }
}

/** Numbers drawn from each seed so far. Drawing them anew took a quarter of the kernels' tests. */
const drawn = new Map<number, Float32Array>();

/** Seeded numbers in [−1, 1), the same on every machine. */
export function randomNumbers(count: number, seed: number): Float32Array {
  const known = drawn.get(seed) ?? new Float32Array(0);
  if (count <= known.length) return known.slice(0, count);
  const numbers = new Float32Array(count);
  numbers.set(known);
  for (let i = known.length; i < count; i++) {
    numbers[i] = threefry(seed, 0, i, 0) / 2 ** 31 - 1;
  }
  drawn.set(seed, numbers);
  return numbers.slice();
}

/** A weight's rows out of an array that holds all of them, as they are stored. */
export function fillFrom(data: HostArray | Uint8Array): FillRows {
  return (row, count, into) => {
    const rowBytes = into.length / count;
    into.set(bytesOf(data).subarray(row * rowBytes, (row + count) * rowBytes));
  };
}

/** Path of a file below tests/fixtures. */
export function fixture(path: string): string {
  return new URL(`./fixtures/${path}`, import.meta.url).pathname;
}

/** A JSON file below tests/fixtures. */
export function readJson<T>(path: string): T {
  return JSON.parse(Deno.readTextFileSync(fixture(path))) as T;
}

/** Greedy ids after a prompt. */
export async function greedy(
  model: Model,
  prompt: string | number[],
  maxNewTokens: number,
  options: GenerateOptions = {},
): Promise<number[]> {
  const ids: number[] = [];
  const settings = { temperature: 0, maxNewTokens, ignoreEos: true, ...options };
  for await (const { id } of model.generate(prompt, settings)) if (id !== undefined) ids.push(id);
  return ids;
}

/**
 * Caches of every format in tests: packed on the host, read back, compared.
 *
 * @module
 */
import { strict as assert } from "node:assert";
import type { Backend } from "../../kernels/backend.ts";
import { KV_FORMATS } from "../../kernels/formats/kv.ts";
import { hostArray } from "../../kernels/formats/mod.ts";
import type { AttentionShape } from "../../kernels/ops/attention/mod.ts";
import type { HostArray } from "../../kernels/tensor.ts";
import type { Tolerance } from "../testing.ts";
import { put } from "./twins.ts";

type CacheShape = Pick<AttentionShape, "G" | "S" | "D" | "kv">;

const formatOf = ({ kv = "F32" }: CacheShape) => KV_FORMATS[kv];

/** Rows of D numbers in the cache's format. */
export function packed(numbers: Float32Array, shape: CacheShape): HostArray {
  const { rows, width, tensor } = formatOf(shape);
  const { D } = shape;
  if (!rows) return numbers;
  const into = hostArray(tensor, numbers.length / D * width(D));
  for (let i = 0; i < numbers.length / D; i++) {
    const row = into.subarray(i * width(D), (i + 1) * width(D));
    rows.pack(row, numbers.subarray(i * D, (i + 1) * D));
  }
  return into;
}

/** The numbers of rows in the cache's format. */
export function unpacked(stored: HostArray, shape: CacheShape): Float32Array<ArrayBuffer> {
  const { rows, width } = formatOf(shape);
  const { D } = shape;
  if (!rows) return stored as Float32Array<ArrayBuffer>;
  const numbers = new Float32Array(stored.length / width(D) * D);
  for (let i = 0; i < numbers.length / D; i++) {
    const row = stored.subarray(i * width(D), (i + 1) * width(D));
    rows.unpack(numbers.subarray(i * D, (i + 1) * D), row);
  }
  return numbers;
}

/** Tensors of a cache [G, S, D] in its format. */
export function putCache(
  backend: Backend,
  { k, v }: { readonly k: Float32Array; readonly v: Float32Array },
  shape: CacheShape,
) {
  const { tensor, width } = formatOf(shape);
  const extents = [shape.G, shape.S, width(shape.D)];
  return {
    k: put(backend, packed(k, shape), extents, tensor),
    v: put(backend, packed(v, shape), extents, tensor),
  };
}

/**
 * Compares numbers that went through the cache's format with those that went in, within half a step
 * of the format and `tolerance`.
 */
export function assertPacked(
  got: Float32Array,
  numbers: Float32Array,
  { kv = "F32" }: CacheShape,
  { atol, rtol }: Tolerance,
  what: string,
): void {
  assert.equal(got.length, numbers.length, what);
  for (let i = 0; i < got.length; i++) {
    const block = numbers.subarray(i - i % 32, i - i % 32 + 32);
    // Q8_0: half a step, and as much again as a scale in F16 moves the largest number.
    const step = {
      F32: () => 0,
      F16: () => Math.abs(numbers[i]) * 2 ** -11 + 2 ** -25,
      Q8_0: () => Math.max(...block.map(Math.abs)) * (0.5 / 127 + 2 ** -11),
    }[kv]();
    const error = Math.abs(got[i] - numbers[i]);
    const limit = step + atol + rtol * Math.abs(numbers[i]);
    assert.ok(error <= limit, `${what}: ${numbers[i]} became ${got[i]} at ${i}`);
  }
}

/**
 * Format of the kernels' golden files.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { type FloatDtype, hostArray, type Weight } from "../../kernels/formats/mod.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { fillFrom } from "../testing.ts";

/** A tensor of F32 numbers. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

/** Copies it to a backend. */
export function put(backend: Backend, { shape, data }: Numbers): Tensor {
  const t = backend.tensor(shape, "F32", "activations");
  backend.write(t, Float32Array.from(data));
  return t;
}

/** A weight, stored NK. */
export interface Matrix {
  readonly shape: readonly [N: number, K: number];
  /** Default F32; 16-bit weights are bits. */
  readonly dtype?: FloatDtype;
  readonly data: readonly number[];
}

/** Copies it to a backend. */
export function putWeight(
  backend: Backend,
  { shape, dtype = "F32", data }: Matrix,
): Promise<Weight> {
  const stored = hostArray(dtype, data.length);
  stored.set(data);
  return backend.weight(shape, dtype, fillFrom(stored), { stored: "NK" });
}

/**
 * How the goldens of kernels stand in their files.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import type { Tensor } from "../../kernels/tensor.ts";

/** A tensor of F32 numbers. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

/** The same on a backend. */
export function put(backend: Backend, { shape, data }: Numbers): Tensor {
  const t = backend.tensor(shape, "F32", "activations");
  backend.write(t, Float32Array.from(data));
  return t;
}

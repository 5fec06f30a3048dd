/**
 * Allocation of several tensors that the same calls read or write.
 *
 * @module
 */
import type { Backend, TensorSpec } from "../kernels/backend.ts";
import type { MemoryClass, Tensor } from "../kernels/tensor.ts";

/** Allocates tensors in one buffer, on backends that gain by it. */
export function tensorsTogether(
  backend: Backend,
  specs: readonly TensorSpec[],
  kind: MemoryClass,
): Tensor[] {
  return backend.tensorsTogether?.(specs, kind) ??
    specs.map(({ shape, dtype }) => backend.tensor(shape, dtype, kind));
}

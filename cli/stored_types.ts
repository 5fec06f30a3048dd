/**
 * Types of a checkpoint's tensors: counts, bytes, bits per number, and the backends that compute
 * with them as they are stored.
 *
 * @module
 */
import { bytesOfNumbers, formatOf } from "../engine/checkpoint/dtypes.ts";
import type { BackendFit, MissingBackend } from "../engine/fit.ts";
import { sizeOf } from "../kernels/tensor.ts";
import type { TensorInfo } from "../mod.ts";
import { bytes, plural, table } from "./format.ts";

/** The tensors of one type. */
export interface StoredType {
  readonly dtype: string;
  /** Number of tensors. */
  readonly tensors: number;
  /** Numbers in all of them. */
  readonly numbers: number;
  readonly bytes: number;
  /** Names of the backends here that hold matrices of the type as they are stored. */
  readonly heldBy: readonly string[];
}

/** The types of some tensors, the one with most bytes first. */
export function storedTypes(
  tensors: readonly TensorInfo[],
  backends: readonly (BackendFit | MissingBackend)[],
): StoredType[] {
  const types = Object.entries(Object.groupBy(tensors, ({ dtype }) => dtype));
  return types.map(([dtype, of = []]) => {
    const numbers = of.reduce((n, { shape }) => n + sizeOf(shape), 0);
    const heldBy = backends.flatMap((backend) =>
      "holds" in backend && backend.holds.includes(dtype) ? backend.name : []
    );
    return {
      dtype,
      tensors: of.length,
      numbers,
      bytes: bytesOfNumbers(dtype, numbers),
      heldBy,
    };
  }).sort((a, b) => b.bytes - a.bytes);
}

/** Bits per number of all tensors. */
export function bitsPerNumber(types: readonly Pick<StoredType, "numbers" | "bytes">[]): number {
  const sum = (of: (type: Pick<StoredType, "numbers" | "bytes">) => number) =>
    types.reduce((n, type) => n + of(type), 0);
  return 8 * sum((type) => type.bytes) / Math.max(1, sum((type) => type.numbers));
}

/** The types as a table. */
export function typesTable(types: readonly StoredType[]): string {
  return table(
    types.map((type) => [
      type.dtype,
      plural(type.tensors, "tensor"),
      bytes(type.bytes),
      `${Number(bitsPerNumber([type]).toFixed(3))} bits`,
      type.heldBy.length
        ? `as stored on ${type.heldBy.join(", ")}`
        : formatOf(type.dtype).block > 1
        ? "widened to F16"
        : "read as F32",
    ]),
    [1, 2, 3],
  );
}

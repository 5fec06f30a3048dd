import type { Dtype, Tensor } from "./tensor.ts";

/**
 * A device is missing, lost or out of memory, or cannot run what was asked; the
 * message says what to do next.
 */
export class DeviceError extends Error {
  /** Tells it from other errors across copies of the package. */
  override readonly name = "DeviceError";
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Checks an operand while a plan is recorded, so that nothing has to be checked while tokens flow.
 * @throws {RangeError} naming the operation, the operand and both shapes.
 */
export function expectTensor(
  op: string,
  operand: string,
  tensor: Tensor,
  shape: readonly number[],
  dtype: Dtype = "F32",
): void {
  const same = tensor.dtype === dtype && tensor.shape.length === shape.length &&
    shape.every((extent, i) => extent === tensor.shape[i]);
  if (!same) {
    throw new RangeError(
      `Cannot record "${op}": expected ${operand} ${dtype} [${shape}], ` +
        `got ${tensor.dtype} [${tensor.shape}]`,
    );
  }
}

/** @throws {RangeError} when a fact about the operands of `op` does not hold. */
export function expectThat(op: string, holds: boolean, fact: string): void {
  if (!holds) throw new RangeError(`Cannot record "${op}": expected ${fact}`);
}

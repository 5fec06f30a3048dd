/**
 * Error of a device, and checks of operands while a plan is recorded.
 *
 * @module
 */
import type { Dtype, Tensor } from "./tensor.ts";

/**
 * A device is missing, lost or out of memory, or cannot run the request. The message names the next
 * step.
 *
 * @example
 * ```ts
 * import { DeviceError, openBackend } from "@wgslm/wgslm/kernels";
 *
 * try {
 *   await using backend = await openBackend("webgpu");
 *   console.log(backend.description);
 * } catch (error) {
 *   if (!(error instanceof DeviceError)) throw error;
 *   console.log(error.message); // Cannot open "webgpu": expected …, got …; …
 * }
 * ```
 */
export class DeviceError extends Error {
  /** Identifies the error across copies of the package, where `instanceof` fails. */
  override readonly name = "DeviceError";
}

/** Whether a device ran out of memory while it ran queued work. */
export function isOutOfMemory(error: unknown): boolean {
  if (!(error instanceof DeviceError) || !(error.cause instanceof Object)) return false;
  return error.cause.constructor.name === "GPUOutOfMemoryError"; // a global only where WebGPU is
}

/** Message of a thrown value, which need not be an Error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Checks an operand once, while a plan is recorded, so that no step has to.
 * @throws {RangeError} If shape or dtype differ, naming the operation, the operand and both shapes.
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

/** @throws {RangeError} If `holds` is false: the operands of `op` break the rule `fact`. */
export function expectThat(op: string, holds: boolean, fact: string): void {
  if (!holds) throw new RangeError(`Cannot record "${op}": expected ${fact}`);
}

/**
 * A model's file, configuration or download is missing, damaged or not supported. The message names
 * the file, and the tensor and byte if they are known.
 *
 * @example
 * ```ts
 * import { CheckpointError, openCheckpoint } from "@wgslm/wgslm";
 *
 * try {
 *   using checkpoint = await openCheckpoint("missing.safetensors");
 *   console.log(checkpoint.tensors().length);
 * } catch (error) {
 *   if (!(error instanceof CheckpointError)) throw error;
 *   console.error(error.message); // Cannot open "missing.safetensors": there is no such file …
 * }
 * ```
 */
export class CheckpointError extends Error {
  /** Identifies the error even if it comes from another copy of the package. */
  override readonly name = "CheckpointError";

  /**
   * Replaces control characters by spaces: names from files must not break the line or control the
   * terminal.
   * @param message one sentence.
   */
  constructor(message: string) {
    // deno-lint-ignore no-control-regex -- control characters are removed
    super(message.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " "));
  }
}

export { messageOf } from "../kernels/errors.ts";

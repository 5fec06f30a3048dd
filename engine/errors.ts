/**
 * A file, or what a hub sent for it, is bad; the message names the file, the tensor and the
 * byte where they are known.
 */
export class CheckpointError extends Error {
  /** Tells it from other errors across copies of the package. */
  override readonly name = "CheckpointError";

  /** Names come from files: what could break the line, or steer a terminal, is shown as a space. */
  constructor(message: string) {
    // deno-lint-ignore no-control-regex -- control characters are what is taken out
    super(message.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " "));
  }
}

export { messageOf } from "../kernels/errors.ts";

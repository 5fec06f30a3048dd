/** A file, or what a hub sent for it, is bad; the message names the file, the tensor and the byte where they are known. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

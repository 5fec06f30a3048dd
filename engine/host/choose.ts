/**
 * Choice of the host by the runtime's globals.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { isPage } from "./builtin.ts";
import type { Host } from "./mod.ts";

let found: Promise<Host | null> | undefined;

/** The host of this runtime, imported by the first call; null in a page, which has no host yet. */
export function findHost(): Promise<Host | null> {
  return found ??= isPage()
    ? Promise.resolve(null)
    : import("./system.ts").then(({ SYSTEM_HOST }) => SYSTEM_HOST);
}

/**
 * The host of this runtime, for a task that needs one.
 * @param task verb and object for the error message: `open "model.pt"`.
 * @throws {CheckpointError} If there is no host.
 */
export async function hostFor(task: string): Promise<Host> {
  const host = await findHost();
  if (host) return host;
  throw new CheckpointError(
    `Cannot ${task}: expected a runtime with files, got one without; run it on Deno`,
  );
}

/**
 * Choice of the host by the runtime's globals.
 *
 * @module
 */
import { isPage } from "./builtin.ts";
import type { Host } from "./mod.ts";

let found: Promise<Host> | undefined;

/** The host of this runtime, imported by the first call. */
export function findHost(): Promise<Host> {
  return found ??= isPage()
    ? import("./page.ts").then(({ PAGE_HOST }) => PAGE_HOST)
    : import("./system.ts").then(({ SYSTEM_HOST }) => SYSTEM_HOST);
}

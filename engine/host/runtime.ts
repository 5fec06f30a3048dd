/**
 * The runtime that this process runs in: Deno's API, or the same functions on Node and Bun.
 *
 * @module
 */
import { nodeRuntime } from "./node.ts";
import type { Runtime } from "./runtime_api.ts";

export type { FileFacts, OpenFile } from "./runtime_api.ts";

/** This runtime's. */
export const runtime: Runtime = "Deno" in globalThis ? Deno : nodeRuntime();

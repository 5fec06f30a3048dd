/**
 * Exits with 0 if this process, with V8's flags as given, has kernels of 256 bits.
 *
 * @module
 */
import { SYSTEM_HOST } from "../engine/host/system.ts";
import { openBackend } from "../kernels/mod.ts";

try {
  await using backend = await openBackend("wasm", { threads: 1, host: SYSTEM_HOST.compute });
  console.log([backend.description, backend.note].filter((text) => text).join("; "));
  Deno.exitCode = backend.simd === "128" ? 1 : 0;
} catch (error) {
  console.log(error instanceof Error ? error.message : error);
  Deno.exitCode = 1;
}

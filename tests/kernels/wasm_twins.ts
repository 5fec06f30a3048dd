/**
 * Tests of the WASM backend against the typed arrays, on a number of threads.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Backend } from "../../kernels/backend.ts";
import { openWasmBackend, type WasmOptions } from "../../kernels/wasm/backend.ts";
import { twinTests } from "./twins.ts";
import { attentionTwinTests } from "./twins_attention.ts";
import { kvTwinTests } from "./twins_kv.ts";
import { sampleTwinTests } from "./twins_sample.ts";

/** Registers a test of one backend, which must free all of its memory. */
export function wasmTest(
  name: string,
  run: (backend: Backend) => Promise<void>,
  { threads = 1, address }: Pick<WasmOptions, "threads" | "address"> = {},
): void {
  const form = [threads > 1 && `${threads} threads`, address && `${address} addresses`];
  Deno.test(`${name} (${["wasm", ...form].filter((part) => part).join(", ")})`, async () => {
    const backend = await openWasmBackend({ threads, address });
    await run(backend);
    await backend[Symbol.asyncDispose]();
    assert.equal(backend.memory.current, 0);
    for (const { current } of Object.values(backend.memory.classes)) assert.equal(current, 0);
  });
}

/** Declares the tests of every operation. */
export function wasmTwinTests(form: Pick<WasmOptions, "threads" | "address">): void {
  const test = (name: string, run: (backend: Backend) => Promise<void>) =>
    wasmTest(name, run, form);
  twinTests(test);
  sampleTwinTests(test);
  attentionTwinTests(test);
  kvTwinTests(test);
}

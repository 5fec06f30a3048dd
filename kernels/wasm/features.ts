/**
 * Features of the engine that kernels depend on, found by validating an operation.
 *
 * @module
 */
import { f32x4, type Local, ModuleBuilder, type Value, vectors } from "../asm/assembler.ts";
import { DeviceError } from "../errors.ts";

/** What this engine lacks to run kernels, all of which need 128-bit SIMD; undefined if nothing. */
export function lackForWasm(): string | undefined {
  if (typeof WebAssembly !== "object") return "WebAssembly"; // as in Safari's lockdown mode
  const bytes = moduleOf((v) => v.plus(v));
  if (!WebAssembly.validate(bytes)) return "WebAssembly with 128-bit SIMD";
  try {
    new WebAssembly.Module(bytes);
    return undefined;
  } catch { // a valid module is refused by a policy only
    return "permission to compile WebAssembly (Content-Security-Policy: wasm-unsafe-eval)";
  }
}

/** Whether this engine supports relaxed SIMD's multiply-add. */
export function wasmFuses(): boolean {
  return knows((v) => f32x4.relaxedMadd(v, v, v));
}

type Operation = (v: Local<"v128">) => Value<"v128">;

/** Whether this engine validates an operation. */
function knows(operation: Operation): boolean {
  return WebAssembly.validate(moduleOf(operation));
}

function moduleOf(operation: Operation): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder();
  m.define(vectors("v"), "v128", (_, { v }) => operation(v));
  return m.toBytes();
}

/** The error of an engine that lacks a feature. */
export function missing(what: string): DeviceError {
  return new DeviceError(`Cannot open "wasm": expected ${what}; use --device js`);
}

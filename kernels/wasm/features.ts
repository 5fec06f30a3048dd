/**
 * Features of the engine that kernels depend on, found by validating an operation.
 *
 * @module
 */
import { f32x4, type Local, ModuleBuilder, type Value, vectors } from "../asm/assembler.ts";
import { DeviceError } from "../errors.ts";

/** Whether this engine supports 128-bit SIMD, which every kernel needs. */
export function wasmRunsHere(): boolean {
  return typeof WebAssembly === "object" && knows((v) => v.plus(v));
}

/** Whether this engine supports relaxed SIMD's multiply-add. */
export function wasmFuses(): boolean {
  return knows((v) => f32x4.relaxedMadd(v, v, v));
}

/** Whether this engine validates an operation. */
function knows(operation: (v: Local<"v128">) => Value<"v128">): boolean {
  const m = new ModuleBuilder();
  m.define(vectors("v"), "v128", (_, { v }) => operation(v));
  return WebAssembly.validate(m.toBytes());
}

/** The error of an engine that lacks a feature. */
export function missing(what: string): DeviceError {
  return new DeviceError(
    `Cannot open "wasm": expected a WebAssembly engine with ${what}; use --device js`,
  );
}

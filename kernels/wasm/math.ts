/**
 * Functions of one number that the kernels call from the host, in F64 as JavaScript has them.
 *
 * @module
 */
import { ACTIVATIONS } from "../activation.ts";
import type { Func, ModuleBuilder } from "./assembler.ts";

/** What a module imports, under these names. */
export const HOST_MATH = {
  exp: Math.exp,
  log: Math.log,
  tanh: Math.tanh,
  gelu: ACTIVATIONS.gelu,
  geluTanh: ACTIVATIONS.geluTanh,
  silu: ACTIVATIONS.silu,
} as const;

/** The same functions, as a kernel calls them. */
export type MathFuncs = Readonly<Record<keyof typeof HOST_MATH, Func<readonly ["f64"], "f64">>>;

/** Declares all of them, which must be done before the first kernel is defined. */
export function importMath(m: ModuleBuilder): MathFuncs {
  const entries = Object.keys(HOST_MATH).map((name) => [name, m.import(name, ["f64"], "f64")]);
  return Object.fromEntries(entries) as MathFuncs;
}

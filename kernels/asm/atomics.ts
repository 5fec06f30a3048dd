/**
 * Atomic operations of the WebAssembly threads proposal: I32 in shared memory, sequentially
 * consistent. Written like `instructions.ts`.
 *
 * @module
 */
import { codeOf, type Effect, memoryArgument, signedLeb, Value } from "./instructions.ts";
import type { Int, Operand } from "./instructions.ts";

const atomic = (op: number, address: Value<Int>, ...operands: Operand<Int>[]) => [
  ...address.code,
  ...operands.flatMap((operand) => codeOf("i32", operand)),
  0xfe,
  op,
  ...memoryArgument(0),
];

const value = (code: number[]) => new Value("i32", code);
const effect = (code: readonly number[]): Effect => ({ type: "void", code });

export const atomics = {
  load: (address: Value<Int>) => value(atomic(0x10, address)),
  store: (address: Value<Int>, to: Operand<Int>) => effect(atomic(0x17, address, to)),
  /** Adds to the word; returns its previous value. */
  add: (address: Value<Int>, by: Operand<Int>) => value(atomic(0x1e, address, by)),
  /** Compare-and-exchange: stores `to` if the word is `from`; returns its previous value. */
  exchangeIf: (address: Value<Int>, from: Operand<Int>, to: Operand<Int>) =>
    value(atomic(0x48, address, from, to)),
  /** Wakes all threads that sleep at an address. */
  wakeAll: (address: Value<Int>) => drop(value(atomic(0x00, address, -1))),
  /**
   * Sleeps while the word is `expected`: until woken, or for `ns` nanoseconds. The memory must be
   * shared.
   */
  sleep: (address: Value<Int>, expected: Operand<Int>, ns: number) =>
    drop(value([
      ...address.code,
      ...codeOf("i32", expected),
      0x42, // i64.const
      ...signedLeb(ns),
      0xfe,
      0x01,
      ...memoryArgument(0),
    ])),
} as const;

/** Discards the value and keeps the effect. */
export function drop({ code }: Value<"i32">): Effect {
  return effect([...code, 0x1a]);
}

/** Returns a result from the function. */
export function leave({ code }: Value<"i32">): Effect {
  return effect([...code, 0x0f]);
}

/**
 * Synthetic kernels of known work, to measure the barrier between threads.
 *
 * @module
 */
import { i32, ints, type ModuleBuilder } from "../kernels/asm/assembler.ts";
import { defineKernel, type Kernel } from "../kernels/asm/kernel.ts";
import type { Limits } from "../kernels/wasm/limits.ts";

/** A program of `entries` entries, each of `items` items that take `rounds` iterations. */
export async function planEntries(
  limits: Limits,
  count: number,
  items: number,
  rounds: number,
): Promise<() => void> {
  const words = limits.linear.allocate(64 * items, "staging");
  const all = Array.from({ length: count }, () => ({ count: items, perRow: false }));
  return await limits.plan(all, [words.address], (m) => defineWaiting(m, rounds));
}

/** Counts, so that an item takes time. */
function defineWaiting(m: ModuleBuilder, rounds: number): Kernel {
  return defineKernel(m, ["words"], (f, { words, begin, end }) => {
    const { round, at } = f.locals(ints("round", "at"));
    f.for(begin, begin, end, 1, () => {
      at.set(words.plus(begin.shl(6)));
      f.for(round, 0, rounds, 1, () => f.store(at, i32.load(at).plus(1)));
    });
  });
}

/**
 * What threads take to meet: entries whose work is known, for the barrier between them.
 *
 * @module
 */
import { i32, type ModuleBuilder } from "../kernels/asm/assembler.ts";
import { defineKernel, type Kernel } from "../kernels/asm/kernel.ts";
import type { Limits } from "../kernels/wasm/limits.ts";

/** So many entries of some items that take `rounds` rounds each. */
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

/** Counts, so that an item takes a while. */
function defineWaiting(m: ModuleBuilder, rounds: number): Kernel {
  return defineKernel(m, 1, (f, [words], { begin, end }) => {
    const [round, at] = [f.local("i32"), f.local("i32")];
    f.for(begin, begin, end, 1, () => {
      f.set(at, i32.add(words, i32.shl(begin, 6)));
      f.for(round, 0, rounds, 1, () => f.store(at, i32.add(i32.load(at), 1)));
    });
  });
}

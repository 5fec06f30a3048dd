/**
 * A plan as one program that every thread walks: entry after entry, each a kernel and the work items that it is made of.
 *
 * Threads take items from a common counter, at first many at a time and at last single ones, so that they end together also where
 * one is held up. Nobody is waited for but who has taken items: a thread that comes late, or not at all, costs nothing but its
 * help. An entry ends when its items are done; who finds that opens the next. All counters count on from run to run, so that
 * nothing has to be set back, and a thread that slept through a run finds its own entries over.
 *
 * An item's arithmetic does not depend on who does it, so that any number of threads gives equal bits.
 *
 * @module
 */
import { atomics, drop, leave } from "../asm/atomics.ts";
import { call, type FunctionBuilder, i32, type ModuleBuilder } from "../asm/assembler.ts";
import type { Func, Local, Value } from "../asm/assembler.ts";
import { CONTROL } from "./control.ts";
import type { KernelCall } from "../asm/kernel.ts";

/** One call of a plan: a kernel, the addresses of its operands, and its work items. */
export type Entry = KernelCall<number>;

/** Looks at the counter before a thread that waits for others goes to sleep: about 0.2 ms, longer than most items take. */
const SPINS = 1 << 17;

/** Nanoseconds of such a sleep, which the end of the entry cuts short. */
const NAP_NS = 1_000_000;

/** What a program is made for. */
export interface Threading {
  /** The most threads that walk it; for one alone there is nothing to share. */
  readonly threads: number;
  /** Whether the calling thread may sleep: a browser's main thread must not. */
  readonly callerSleeps: boolean;
  /** What the calling thread calls after each entry, when it is done: a profile looks at the clock. */
  readonly mark?: Func<readonly [], "void">;
}

/** Defines and exports `run`, of type `Run`. */
export function defineRun(
  m: ModuleBuilder,
  entries: readonly Entry[],
  { threads, callerSleeps, mark }: Threading,
): void {
  // Half of what is left, shared out evenly.
  const shift = Math.ceil(Math.log2(2 * threads));
  const helpers = threads > 1
    ? { take: defineTake(m, shift), finish: defineFinish(m, callerSleeps) }
    : null;
  const run = m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "i32",
    (f, worker, base, rows, position, slot, length) => {
      const [items, first, end, mine] = [0, 1, 2, 3].map(() => f.local("i32"));
      const step = [rows, position, slot, length];
      f.do(m.thread.set(worker));
      const markEnd = () => mark && f.if(i32.eqz(worker), () => f.do(call(mark)));
      for (const { kernel, operands, items: { count, perRow, perKeys } } of entries) {
        const spans = perKeys && i32.divU(i32.add(length, perKeys - 1), perKeys);
        const times = spans || perRow && rows;
        f.set(items, times ? i32.mul(times, count) : count);
        f.do(m.unprepared.set(1));
        if (!helpers) {
          f.do(call(kernel, ...operands, ...step, i32.const(0), items));
          markEnd();
          continue;
        }
        const { take, finish } = helpers;
        const next = () => {
          f.set(first, call(take, base, items));
          f.set(end, i32.add(first, share(i32.sub(items, first), shift)));
        };
        f.if(isOpen(base, items), () => {
          f.set(mine, 0);
          next();
          f.while(i32.ltU(first, items), () => {
            f.do(call(kernel, ...operands, ...step, first, end));
            f.set(mine, i32.add(mine, i32.sub(end, first)));
            next();
          });
          f.if(call(finish, worker, base, items, mine), () => f.do(leave(i32.const(1))));
        });
        f.set(base, i32.add(base, items));
        markEnd();
      }
      return i32.const(0);
    },
  );
  m.export("run", run);
}

/** Whether the entry from `base` on is the one that all are at; one without items never is. */
function isOpen(base: Local<"i32">, items: Local<"i32">): Value<"i32"> {
  return i32.ltU(i32.sub(atomics.load(CONTROL.open), base), items);
}

/** Items that are taken at once when `left` of them are. */
function share(left: Value<"i32">, shift: number): Value<"i32"> {
  return i32.shrU(i32.add(left, 2 ** shift - 1), shift);
}

/** Takes items of the entry from `base` on; gives the first, or `items` when none are left. */
function defineTake(m: ModuleBuilder, shift: number) {
  return m.define(["i32", "i32"], "i32", (f, base, items) => {
    const [seen, found, first] = [0, 1, 2].map(() => f.local("i32"));
    f.set(seen, atomics.load(CONTROL.taken));
    f.while(i32.ltU(i32.sub(seen, base), items), () => {
      f.set(first, i32.sub(seen, base));
      const after = i32.add(seen, share(i32.sub(items, first), shift));
      f.set(found, atomics.exchangeIf(CONTROL.taken, seen, after));
      f.if(i32.eq(found, seen), () => f.do(leave(first)));
      f.set(seen, found);
    });
    return items;
  });
}

/** Reports `mine` items as done, and opens the next entry or waits until another does; 1 when a thread failed. */
function defineFinish(m: ModuleBuilder, callerSleeps: boolean) {
  return m.define(["i32", "i32", "i32", "i32"], "i32", (f, worker, base, items, mine) => {
    const [end, spins] = [0, 1].map(() => f.local("i32"));
    f.set(end, i32.add(base, items));
    // Whoever did nothing must not look whether it was the last: others may be far ahead.
    f.if(mine, () => {
      const done = i32.add(atomics.add(CONTROL.done, mine), mine);
      f.if(i32.eq(done, end), () => {
        f.do(atomics.store(CONTROL.open, end));
        f.if(atomics.load(CONTROL.sleepers), () => f.do(atomics.wakeAll(CONTROL.open)));
        f.do(leave(i32.const(0)));
      });
    });
    f.while(isOpen(base, items), () => {
      f.set(spins, i32.add(spins, 1));
      f.if(i32.eqz(i32.and(spins, SPINS - 1)), () => {
        f.if(atomics.load(CONTROL.failed), () => f.do(leave(i32.const(1))));
        const nap = () => sleepWhileOpen(f, base);
        if (callerSleeps) nap();
        else f.if(worker, nap);
        f.set(spins, SPINS - 64); // a short look, and again
      });
    });
    return i32.const(0);
  });
}

function sleepWhileOpen(f: FunctionBuilder, base: Local<"i32">): void {
  f.do(drop(atomics.add(CONTROL.sleepers, 1)));
  f.do(atomics.sleep(CONTROL.open, base, NAP_NS));
  f.do(drop(atomics.add(CONTROL.sleepers, -1)));
}

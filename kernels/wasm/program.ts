/**
 * A plan as one program that every thread walks: entry after entry, each a kernel and its work
 * items.
 *
 * Threads take items from a common counter, many at a time at first and single ones at last, so
 * that they finish together even if one is held up. The barrier waits only for threads that took
 * items: a thread that comes late, or not at all, costs nothing but its help. An entry ends when
 * its items are done; the thread that does the last one opens the next. Counters run on from run to
 * run, so that none is reset, and a thread that slept through a run finds its own entries over.
 *
 * An item's arithmetic does not depend on the thread, so that any number of threads gives equal
 * bits.
 *
 * @module
 */
import { atomics, drop, leave } from "../asm/atomics.ts";
import { call, i32, ints } from "../asm/assembler.ts";
import type { Func, FunctionBuilder, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { CONTROL } from "./control.ts";
import { callKernel, type Items, type KernelCall } from "../asm/kernel.ts";

/** One call of a plan: a kernel, the addresses of its operands, and its work items. */
export type Entry = KernelCall<number>;

/** Spins of a waiting thread before it sleeps: about 0.2 ms, longer than most items take. */
const SPINS = 1 << 17;

/** Nanoseconds of that sleep, which the end of the entry cuts short. */
const NAP_NS = 1_000_000;

/** How many threads a program is for, and how they wait. */
export interface Threading {
  /** The most threads that walk it; a program for one shares nothing. */
  readonly threads: number;
  /** Whether the calling thread may sleep: a browser's main thread must not. */
  readonly callerSleeps: boolean;
  /** Called by the calling thread at the end of each entry: a profile reads the clock. */
  readonly mark?: Func<Record<never, never>>;
}

/** Defines and exports `run`, of type `Run`: all entries in order, on one thread or shared out. */
export function defineRun(m: ModuleBuilder, entries: readonly Entry[], threading: Threading): void {
  const runEntry = threading.threads > 1 ? sharedEntry(m, threading) : wholeEntry;
  const { mark } = threading;
  const run = m.define(
    ints("worker", "base", "rows", "position", "slot", "length"),
    "i32",
    (f, { worker, base, ...step }) => {
      const counters = f.locals(ints("items", "first", "end", "mine"));
      const { items } = counters;
      f.do(m.thread.set(worker));
      for (const entry of entries) {
        items.set(itemsOf(entry.items, step));
        f.do(m.unprepared.set(1));
        runEntry(f, entry, { worker, base, step, ...counters });
        if (mark) f.if(worker.eqz(), () => f.do(call(mark, {})));
      }
      return i32.const(0);
    },
  );
  m.export("run", run);
}

/** The step's numbers. */
type StepLocals = Readonly<Record<"rows" | "position" | "slot" | "length", Local<"i32">>>;

/** Variables of `run` that an entry's code uses. */
interface RunLocals {
  readonly worker: Local<"i32">;
  /** Items of all entries so far. */
  readonly base: Local<"i32">;
  readonly step: StepLocals;
  /** Work items of the entry. */
  readonly items: Local<"i32">;
  /** The items first … end − 1 that this thread has taken. */
  readonly first: Local<"i32">;
  readonly end: Local<"i32">;
  /** Items of the entry that this thread has done. */
  readonly mine: Local<"i32">;
}

/** Work items of an entry under a step. */
function itemsOf({ count, perRow, perKeys }: Items, { rows, length }: StepLocals) {
  if (perKeys) return length.plus(perKeys - 1).div(perKeys).times(count);
  return perRow ? rows.times(count) : count;
}

/** An entry on one thread. */
function wholeEntry(f: FunctionBuilder, entry: Entry, { step, items }: RunLocals): void {
  f.do(callKernel(entry, { ...step, begin: 0, end: items }));
}

/** The emitter of an entry that threads share: take items, run them, until none are left. */
function sharedEntry(m: ModuleBuilder, { threads, callerSleeps }: Threading) {
  // Half of the items that are left, shared out evenly.
  const shift = Math.ceil(Math.log2(2 * threads));
  const take = defineTake(m, shift);
  const finish = defineFinish(m, callerSleeps);
  return (f: FunctionBuilder, entry: Entry, locals: RunLocals): void => {
    const { worker, base, step, items, first, end, mine } = locals;
    const takeNext = () => {
      first.set(call(take, { base, items }));
      end.set(first.plus(share(items.minus(first), shift)));
    };
    f.if(isOpen(base, items), () => {
      mine.set(0);
      takeNext();
      f.while(first.lt(items), () => {
        f.do(callKernel(entry, { ...step, begin: first, end }));
        mine.advance(end.minus(first));
        takeNext();
      });
      f.if(call(finish, { worker, base, items, mine }), () => f.do(leave(i32.const(1))));
    });
    base.advance(items);
  };
}

/** Whether the entry that begins at `base` is open; one without items never is. */
function isOpen(base: Local<"i32">, items: Local<"i32">): Value<"i32"> {
  return atomics.load(CONTROL.open).minus(base).lt(items);
}

/** Items to take at once when `left` are left. */
function share(left: Value<"i32">, shift: number): Value<"i32"> {
  return left.plus(2 ** shift - 1).shr(shift);
}

/**
 * Takes items of the entry that begins at `base`; the result is the first, or `items` when none are
 * left.
 */
function defineTake(m: ModuleBuilder, shift: number) {
  return m.define(ints("base", "items"), "i32", (f, { base, items }) => {
    const { seen, found, first } = f.locals(ints("seen", "found", "first"));
    seen.set(atomics.load(CONTROL.taken));
    f.while(seen.minus(base).lt(items), () => {
      first.set(seen.minus(base));
      const after = seen.plus(share(items.minus(first), shift));
      found.set(atomics.exchangeIf(CONTROL.taken, seen, after));
      f.if(found.eq(seen), () => f.do(leave(first)));
      seen.set(found);
    });
    return items;
  });
}

/**
 * Reports `mine` items as done, and opens the next entry or waits until another thread does; 1 when
 * a thread failed.
 */
function defineFinish(m: ModuleBuilder, callerSleeps: boolean) {
  const params = ints("worker", "base", "items", "mine");
  return m.define(params, "i32", (f, { worker, base, items, mine }) => {
    const { end, spins } = f.locals(ints("end", "spins"));
    end.set(base.plus(items));
    // A thread that did nothing must not test whether it was the last: others may be far ahead.
    f.if(mine, () => openNextIfLast(f, mine, end));
    f.while(isOpen(base, items), () => {
      spins.advance(1);
      f.if(spins.and(SPINS - 1).eqz(), () => {
        f.if(atomics.load(CONTROL.failed), () => f.do(leave(i32.const(1))));
        const nap = () => sleepWhileOpen(f, base);
        if (callerSleeps) nap();
        else f.if(worker, nap);
        spins.set(SPINS - 64); // 64 more looks before the next sleep
      });
    });
    return i32.const(0);
  });
}

/**
 * Adds to the items that are done; the thread that does the last one opens the next entry and
 * returns.
 */
function openNextIfLast(f: FunctionBuilder, mine: Local<"i32">, end: Local<"i32">): void {
  const done = atomics.add(CONTROL.done, mine).plus(mine);
  f.if(done.eq(end), () => {
    f.do(atomics.store(CONTROL.open, end));
    f.if(atomics.load(CONTROL.sleepers), () => f.do(atomics.wakeAll(CONTROL.open)));
    f.do(leave(i32.const(0)));
  });
}

function sleepWhileOpen(f: FunctionBuilder, base: Local<"i32">): void {
  f.do(drop(atomics.add(CONTROL.sleepers, 1)));
  f.do(atomics.sleep(CONTROL.open, base, NAP_NS));
  f.do(drop(atomics.add(CONTROL.sleepers, -1)));
}

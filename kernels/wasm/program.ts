/**
 * Work-sharing program of a plan: every thread walks the same entries, each a kernel and its work
 * items, with a barrier after each entry.
 *
 * Threads take items from a shared counter (guided self-scheduling): large chunks first, single
 * items last, so that they finish together even if one is suspended. The barrier waits only for
 * threads that took items: a late or absent thread costs only its help. An entry ends when its
 * items are done; the thread that finishes the last item opens the next entry. Counters are never
 * reset: they continue from run to run, so that a thread that slept through a run finds its entries
 * over.
 *
 * An item's arithmetic does not depend on the thread, so results are bit-identical for any number
 * of threads.
 *
 * @module
 */
import { atomics, drop, leave } from "../asm/atomics.ts";
import { call, i32, words } from "../asm/assembler.ts";
import type { Func, FunctionBuilder, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { CONTROL } from "./control.ts";
import { callKernel, type Items, type KernelCall } from "../asm/kernel.ts";

/** One call of a plan: a kernel, the addresses of its operands, and its work items. */
export type Entry = KernelCall<number>;

/** Spins of a waiting thread before it sleeps: about 0.2 ms, longer than most items take. */
const SPINS = 1 << 17;

/** Maximum sleep in nanoseconds; the end of the entry wakes the thread earlier. */
const NAP_NS = 1_000_000;

/** Threads of a program, and how they wait. */
export interface Threading {
  /** Maximum number of threads; with 1, the program uses no atomics. */
  readonly threads: number;
  /** Whether the calling thread may sleep: a browser's main thread must not. */
  readonly callerSleeps: boolean;
  /** Called on the calling thread at the end of each entry; the profiler reads the clock. */
  readonly mark?: Func<Record<never, never>>;
}

/** Defines and exports `run`, of type `Run`: all entries in order, on one thread or several. */
export function defineRun(m: ModuleBuilder, entries: readonly Entry[], threading: Threading): void {
  const runEntry = threading.threads > 1 ? sharedEntry(m, threading) : wholeEntry;
  const { mark } = threading;
  const run = m.define(
    words("worker", "base", "rows", "position", "slot", "length"),
    "i32",
    (f, { worker, base, ...step }) => {
      const counters = f.locals(words("items", "first", "end", "mine"));
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

/** The step's fields as variables. */
type StepLocals = Readonly<Record<"rows" | "position" | "slot" | "length", Local<"i32">>>;

/** Variables of `run` that an entry's code uses. */
interface RunLocals {
  readonly worker: Local<"i32">;
  /** Items of all runs and entries before this entry. */
  readonly base: Local<"i32">;
  readonly step: StepLocals;
  /** Work items of the entry. */
  readonly items: Local<"i32">;
  /** This thread has taken the items first … end − 1. */
  readonly first: Local<"i32">;
  readonly end: Local<"i32">;
  /** Items of the entry that this thread has done. */
  readonly mine: Local<"i32">;
}

/** Number of work items of an entry in a step. */
function itemsOf({ count, perRow, perKeys }: Items, { rows, length }: StepLocals) {
  if (perKeys) return length.plus(perKeys - 1).div(perKeys).times(count);
  return perRow ? rows.times(count) : count;
}

/** An entry on one thread. */
function wholeEntry(f: FunctionBuilder, entry: Entry, { step, items }: RunLocals): void {
  f.do(callKernel(entry, { ...step, begin: 0, end: items }));
}

/** Emitter of a shared entry: take items, run them, repeat until none are left. */
function sharedEntry(m: ModuleBuilder, { threads, callerSleeps }: Threading) {
  // A thread takes 1/2^shift of the items left: at most half of its even share.
  const shift = Math.ceil(Math.log2(2 * threads));
  const take = defineTake(m, shift);
  const finish = defineFinish(m, callerSleeps);
  return (f: FunctionBuilder, entry: Entry, locals: RunLocals): void => {
    const { worker, base, step, items, first, end, mine } = locals;
    const takeNext = () => {
      first.set(call(take, { base, items }));
      end.set(first.plus(share(items.minus(first), shift)));
    };
    f.if(isOpen(f, base, items), () => {
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

/** Whether the entry that begins at `base` is open. An entry without items never is. */
function isOpen(f: FunctionBuilder, base: Local<"i32">, items: Local<"i32">): Value<"i32"> {
  return atomics.load(f.int(CONTROL.open)).minus(base).lt(items);
}

/** Number of items to take when `left` are left, rounded up. */
function share(left: Value<"i32">, shift: number): Value<"i32"> {
  return left.plus(2 ** shift - 1).shr(shift);
}

/**
 * Takes items of the entry that begins at `base`; returns the first one, or `items` if none are
 * left.
 */
function defineTake(m: ModuleBuilder, shift: number) {
  return m.define(words("base", "items"), "i32", (f, { base, items }) => {
    const { seen, found, first } = f.locals(words("seen", "found", "first"));
    seen.set(atomics.load(f.int(CONTROL.taken)));
    f.while(seen.minus(base).lt(items), () => {
      first.set(seen.minus(base));
      const after = seen.plus(share(items.minus(first), shift));
      found.set(atomics.exchangeIf(f.int(CONTROL.taken), seen, after));
      f.if(found.eq(seen), () => f.do(leave(first)));
      seen.set(found);
    });
    return items;
  });
}

/**
 * Barrier: reports `mine` items as done, then opens the next entry or waits until another thread
 * does. Returns 1 if a thread failed.
 */
function defineFinish(m: ModuleBuilder, callerSleeps: boolean) {
  const params = words("worker", "base", "items", "mine");
  return m.define(params, "i32", (f, { worker, base, items, mine }) => {
    const { end, spins } = f.locals(words("end", "spins"));
    end.set(base.plus(items));
    // A thread that took no items must not add to `done`: the others may be entries ahead.
    f.if(mine, () => openNextIfLast(f, mine, end));
    f.while(isOpen(f, base, items), () => {
      spins.advance(1);
      f.if(spins.and(SPINS - 1).eqz(), () => {
        f.if(atomics.load(f.int(CONTROL.failed)), () => f.do(leave(i32.const(1))));
        const nap = () => sleepWhileOpen(f, base);
        if (callerSleeps) nap();
        else f.if(worker, nap);
        spins.set(SPINS - 64); // 64 more spins before the next sleep
      });
    });
    return i32.const(0);
  });
}

/**
 * Adds to the finished items; the thread that finishes the last one opens the next entry and
 * returns.
 */
function openNextIfLast(f: FunctionBuilder, mine: Local<"i32">, end: Local<"i32">): void {
  const done = atomics.add(f.int(CONTROL.done), mine).plus(mine);
  f.if(done.eq(end), () => {
    f.do(atomics.store(f.int(CONTROL.open), end));
    f.if(atomics.load(f.int(CONTROL.sleepers)), () => f.do(atomics.wakeAll(f.int(CONTROL.open))));
    f.do(leave(i32.const(0)));
  });
}

function sleepWhileOpen(f: FunctionBuilder, base: Local<"i32">): void {
  f.do(drop(atomics.add(f.int(CONTROL.sleepers), 1)));
  f.do(atomics.sleep(f.int(CONTROL.open), base, NAP_NS));
  f.do(drop(atomics.add(f.int(CONTROL.sleepers), -1)));
}

/**
 * Watchdog for synchronous work: ends a regular expression or a script that runs too long.
 *
 * @module
 */
import { builtin } from "./builtin.ts";

/** Milliseconds from the limit to the watchdog: work that is slightly late can still return. */
const GRACE_MS = 500;

/** Milliseconds from the limit after which the watchdog has surely acted. */
const LATEST_MS = 4 * GRACE_MS;

/** A watchdog in another thread, which ends this one: a page's engine has one. */
export interface Guard {
  /** Work begins that must end within so many ms. */
  begin(limitMs: number): void;
  end(): void;
}

let guard: Guard | undefined;

/** Sets the watchdog of this thread. */
export function guardBy(other: Guard): void {
  guard = other;
}

/** The running work, as a global of the watched script `work()`. */
const shared: { work?: () => unknown } = {};

/** Calls `shared.work()` and ends it after a timeout; null in a page, which has no watchdog. */
let callWatched: ((timeoutMs: number) => unknown) | null | undefined;

function startWatchdog(): typeof callWatched {
  const vm = builtin("node:vm");
  if (!vm) return null;
  const context = vm.createContext(shared);
  const script = new vm.Script("work()");
  return (timeout) => script.runInContext(context, { timeout });
}

/**
 * Runs work with a time limit. Nested work shares the limit of the outer work.
 *
 * In a page a guard in another thread ends this thread. Without any watchdog the work runs to its
 * end; then it is refused if it was too late.
 * @returns the result of the work. Its errors are thrown unchanged.
 * @throws {Error} If it takes longer than `limitMs`, even if the process was suspended meanwhile.
 */
export function runWithin<T>(limitMs: number, work: () => T): T {
  if (shared.work) return work();
  if (callWatched === undefined) callWatched = startWatchdog();
  const end = performance.now() + limitMs;
  const timed = shared.work = () => {
    try {
      return work();
    } finally {
      refuseIfLate(end, limitMs);
    }
  };
  guard?.begin(limitMs + GRACE_MS);
  try {
    return (callWatched ? callWatched(limitMs + GRACE_MS) : timed()) as T;
  } catch (error) {
    const { code } = (error ?? {}) as { code?: unknown };
    throw code === "ERR_SCRIPT_EXECUTION_TIMEOUT" ? tooLong(limitMs) : error;
  } finally {
    shared.work = undefined;
    guard?.end();
  }
}

/**
 * Refuses work that ended too late.
 *
 * Trick: spins until the watchdog ends it. The watchdog is late if a step cannot be interrupted,
 * such as a join. Without the spin the script may return first; then Deno 2.9 terminates the code
 * that runs next, and the process with it ("execution terminated", which cannot be caught). The
 * spin can go when Deno cancels the termination of a script that has returned, as Node does.
 * @throws {Error} If `end` has passed.
 */
function refuseIfLate(end: number, limitMs: number): void {
  if (performance.now() < end) return;
  while (callWatched && performance.now() < end + LATEST_MS);
  throw tooLong(limitMs);
}

function tooLong(limitMs: number): Error {
  return new Error(`it does not come to an end within ${Math.round(limitMs / 1000)} seconds`);
}

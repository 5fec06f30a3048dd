/**
 * A watchdog for synchronous work: ends a regular expression or a script that runs too long.
 *
 * @module
 */
import { builtin } from "./builtin.ts";

/**
 * Milliseconds between the limit and the watchdog, in which work that is a little late ends by
 * itself.
 */
const GRACE_MS = 500;

/** Milliseconds after the limit by which the watchdog has come. */
const LATEST_MS = 4 * GRACE_MS;

/** The work under way, under the name by which a watched script calls it. */
const shared: { work?: () => unknown } = {};

/**
 * Calls `shared.work()`, and ends it after so many milliseconds; null in a page, which has no
 * watchdog.
 */
let callWatched: ((timeoutMs: number) => unknown) | null | undefined;

function startWatchdog(): typeof callWatched {
  const vm = builtin("node:vm");
  if (!vm) return null;
  const context = vm.createContext(shared);
  const script = new vm.Script("work()");
  return (timeout) => script.runInContext(context, { timeout });
}

/**
 * Does work that ends in time. Within other work, the limit of that holds.
 *
 * Without a watchdog the work runs to its end, and is refused if that was too late.
 * @returns what the work returns; what it throws is thrown.
 * @throws {Error} If it takes longer than `limitMs`; time in which the process is stopped counts.
 */
export function runWithin<T>(limitMs: number, work: () => T): T {
  if (shared.work) return work();
  if (callWatched === undefined) callWatched = startWatchdog();
  const end = performance.now() + limitMs;
  const timed = shared.work = () => {
    try {
      return work();
    } finally {
      expectInTime(end, limitMs);
    }
  };
  try {
    return (callWatched ? callWatched(limitMs + GRACE_MS) : timed()) as T;
  } catch (error) {
    const { code } = (error ?? {}) as { code?: unknown };
    throw code === "ERR_SCRIPT_EXECUTION_TIMEOUT" ? tooLong(limitMs) : error;
  } finally {
    shared.work = undefined;
  }
}

/**
 * Refuses work that has ended too late.
 *
 * Trick: spins until the watchdog ends it. The watchdog comes late if a step could not be
 * interrupted, such as a join; if the script has returned by then, Deno 2.9 ends whatever runs next
 * instead, and the process with it ("execution terminated", which cannot be caught). The spin may
 * go when Deno cancels the termination of a script that has returned, as Node does.
 * @throws {Error} If `end` has passed.
 */
function expectInTime(end: number, limitMs: number): void {
  if (performance.now() < end) return;
  while (callWatched && performance.now() < end + LATEST_MS);
  throw tooLong(limitMs);
}

function tooLong(limitMs: number): Error {
  return new Error(`it does not come to an end within ${Math.round(limitMs / 1000)} seconds`);
}

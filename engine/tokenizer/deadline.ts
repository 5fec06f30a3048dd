/**
 * An end for the work that a stranger's file asks for. A regular expression may take time that doubles with every character, and no
 * code of ours runs between its steps; `node:vm` has a watchdog that ends whatever runs, such an expression and the functions that a
 * script called as well.
 *
 * @module
 */
import { createContext, Script } from "node:vm";

/** Milliseconds that any work has: a thousand times what a short text takes. */
const PATIENCE_MS = 3_000;

/** Milliseconds that each unit of its input adds: three times what one takes on a slow machine. */
const PER_UNIT_MS = 0.03;

/** Milliseconds between our own deadline and the watchdog's. */
const GRACE_MS = 500;

const shared: { work?: () => unknown } = {};
const context = createContext(shared);
const script = new Script("work()");

/**
 * Does work that ends in time, however it was written; time that the process is held up counts.
 * @param size of what it is done to, in UTF-16 units or ids.
 * @returns what the work gives; what it throws is thrown. Within other work, the deadline of that stands.
 * @throws {Error} when it takes longer.
 */
export function withinDeadline<T>(size: number, work: () => T): T {
  if (shared.work) return work();
  const allowedMs = Math.ceil(PATIENCE_MS + size * PER_UNIT_MS);
  const end = performance.now() + allowedMs;
  const late = () =>
    new Error(`it does not come to an end within ${Math.round(allowedMs / 1000)} seconds`);
  // The watchdog comes late to a step that cannot be interrupted, such as a join: it has to find us here, and not what follows.
  const awaitWatchdog = () => {
    if (performance.now() < end) return;
    while (performance.now() < end + 4 * GRACE_MS);
    throw late(); // a host that has none
  };
  shared.work = () => {
    try {
      return work();
    } finally {
      awaitWatchdog();
    }
  };
  try {
    return script.runInContext(context, { timeout: allowedMs + GRACE_MS }) as T;
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw late();
  } finally {
    shared.work = undefined;
  }
}

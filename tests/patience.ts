/**
 * Waits with an end, for tests: what never happens fails with a sentence, and no test hangs.
 *
 * @module
 */
import { AssertionError } from "node:assert";

/**
 * Milliseconds after which a wait fails. Not a measurement: what is awaited takes 10 s at most on
 * two quiet cores, and what is refused would take hours.
 */
export const PATIENCE_MS = 180_000;

/** The error of a wait that is over. */
export function overdue(what: string, ms = PATIENCE_MS): AssertionError {
  return new AssertionError({ message: `expected ${what} within ${ms / 1000} s` });
}

/**
 * The result of work. Asynchronous work is no longer awaited once the time is over; synchronous
 * work is refused at its end.
 *
 * @throws {AssertionError} If it takes longer than `ms`.
 */
export async function within<T>(
  what: string,
  work: () => T | Promise<T>,
  ms = PATIENCE_MS,
): Promise<T> {
  const end = performance.now() + ms;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(overdue(what, ms)), ms);
  });
  try {
    const result = await Promise.race([work(), late]);
    if (performance.now() > end) throw overdue(what, ms);
    return result;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits until a condition holds, by asking again and again.
 *
 * @throws {AssertionError} If it does not hold after `PATIENCE_MS`.
 */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!await holds()) {
    if (performance.now() > end) throw overdue(what);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Time limit for untrusted work from a file: regular expressions of a tokenizer, chat templates.
 *
 * A regular expression can take exponential time, 2ⁿ in the length n of the text, and yields to no
 * other code until it ends. Only a watchdog can interrupt it.
 *
 * @module
 */
import { runWithin } from "../host/watchdog.ts";

/** Time limit of empty input, in ms: 1000 times the time of a short text. */
const BASE_MS = 3_000;

/** Additional time per unit of input, in ms: three times what a unit takes on a slow machine. */
const PER_UNIT_MS = 0.03;

/**
 * Runs synchronous work under a time limit of 3 s + 0.03 ms · size. Nested in other limited work,
 * only the outer limit applies.
 * @param size length of the input, in UTF-16 units or ids.
 * @param work the work.
 * @returns the result of the work.
 * @throws {Error} If the work exceeds the limit; its own errors pass through.
 */
export function withinDeadline<T>(size: number, work: () => T): T {
  return runWithin(Math.ceil(BASE_MS + size * PER_UNIT_MS), work);
}

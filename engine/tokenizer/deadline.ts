/**
 * A time limit for work that a file asks for: a regular expression of a tokenizer, a chat template.
 *
 * An expression may take time that doubles with every character, and none of our code runs between
 * its steps, so that a watchdog has to end it.
 *
 * @module
 */
import { runWithin } from "../host/watchdog.ts";

/** Milliseconds that any work has: a thousand times what a short text takes. */
const BASE_MS = 3_000;

/** Milliseconds that each unit of its input adds: three times what one takes on a slow machine. */
const PER_UNIT_MS = 0.03;

/**
 * Does work that ends in time, however it was written. Within other work,
 * the deadline of that holds.
 * @param size of the input, in UTF-16 units or ids.
 * @returns what the work returns; what it throws is thrown.
 * @throws {Error} If it takes longer.
 */
export function withinDeadline<T>(size: number, work: () => T): T {
  return runWithin(Math.ceil(BASE_MS + size * PER_UNIT_MS), work);
}

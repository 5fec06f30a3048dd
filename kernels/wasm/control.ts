/**
 * Control words of the threads, at the beginning of their shared memory: progress of the program,
 * the current run, who sleeps. `program.ts` reads and writes the first half in WebAssembly,
 * `pool.ts` and `worker.ts` the second.
 *
 *     byte 128 │ open                         written by the thread that ends an entry
 *          256 │ taken                        by every thread, when it takes items
 *          384 │ done                         by every thread, when its items are done
 *          512 │ sleepers, failed             by threads that wait; by one that traps
 *          640 │ generation, plan … threads   by the calling thread, for each run
 *          768 │ mail, idle                   by the calling thread; by workers between runs
 *
 *     items of all runs:  entries that are over │ the open entry        │ entries to come
 *                                             open    ≤ done ≤ taken ≤  open + its items
 *
 * @module
 */

/** Bytes of the words below. */
export const CONTROL_BYTES = 1024;

/**
 * Byte addresses. Words of different writers are 128 bytes apart: processors fetch lines of 64
 * bytes in pairs.
 */
export const CONTROL = {
  /**
   * Items of all runs before the open entry, which it identifies. Threads wait here for the end of
   * the entry.
   */
  open: 128,
  /** Items of all runs that a thread has taken. */
  taken: 256,
  /** Items of all runs that are done. */
  done: 384,
  /** Threads that sleep until the entry ends. */
  sleepers: 512,
  /** The thread whose program failed, plus one. */
  failed: 516,
  /**
   * Even: the run below is valid; odd: it is being written. Changes with every run and with every
   * call to read messages.
   */
  generation: 640,
  /** The plan that runs, or −1 for none. */
  plan: 644,
  rows: 648,
  position: 652,
  slot: 656,
  length: 660,
  /** `open` at the beginning of the run. */
  base: 664,
  /** Threads that may take part. */
  threads: 668,
  /** Messages posted to each worker. */
  mail: 768,
  /** Workers that sleep until the next run. */
  idle: 772,
} as const;

/** Names of the control words. */
export type ControlWord = keyof typeof CONTROL;

/** The words of `memory`, by index; they stay where they are when it grows. */
export function controlWords(memory: WebAssembly.Memory): Int32Array {
  return new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4);
}

/** Index of a control word. */
export function at(word: ControlWord): number {
  return CONTROL[word] >> 2;
}

/**
 * A plan's program, as each thread runs it: 0 when it went through, 1 when a thread failed
 * meanwhile.
 */
export type Run = (
  worker: number,
  base: number,
  rows: number,
  position: number,
  slot: number,
  length: number,
) => number;

/** What a worker is told. */
export type ToWorker =
  | { readonly memory: WebAssembly.Memory; readonly worker: number }
  | { readonly plan: number; readonly module: WebAssembly.Module }
  | { readonly drop: number }
  | { readonly quit: true };

/** What a worker tells: how many messages it has dealt with, or what went wrong. */
export type FromWorker = { readonly handled: number } | { readonly failed: string };

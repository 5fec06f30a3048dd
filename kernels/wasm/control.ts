/**
 * Control words of the threads, at the start of the shared memory: progress of the program, the
 * current run, sleeping threads. `program.ts` accesses the words up to `failed` in WebAssembly,
 * `pool.ts` and `worker.ts` the rest.
 *
 *     byte 128 │ open                         written by the thread that ends an entry
 *          256 │ taken                        by every thread, when it takes items
 *          384 │ done                         by every thread, when its items are done
 *          512 │ sleepers, failed             by threads that wait; by one that traps
 *          640 │ generation, plan … threads   by the calling thread, for each run
 *          768 │ mail, idle, ahead, aheadEnd  by the calling thread; by workers between runs
 *
 *     items of all runs:  finished entries      │ the open entry        │ later entries
 *                                             open    ≤ done ≤ taken ≤  open + its items
 *
 * @module
 */

/** Bytes of the words below. */
export const CONTROL_BYTES = 1024;

/** Bytes of a page, the unit in which a memory grows. */
export const PAGE_BYTES = 65536;

/**
 * Byte addresses. Words of different writers are 128 bytes apart: processors fetch lines of 64
 * bytes in pairs.
 */
export const CONTROL = {
  /**
   * Items of all runs before the open entry; identifies that entry. Threads wait on this word for
   * the end of the entry.
   */
  open: 128,
  /** Items of all runs taken by some thread. */
  taken: 256,
  /** Items of all runs finished. */
  done: 384,
  /** Number of threads that sleep until the entry ends. */
  sleepers: 512,
  /** Index of the failed thread, plus one; 0 if none failed. */
  failed: 516,
  /**
   * Seqlock of the words below: even, they are valid; odd, they are being written. Incremented by
   * every run and by every request to read messages.
   */
  generation: 640,
  /** Number of the running plan; −1 for none. */
  plan: 644,
  rows: 648,
  position: 652,
  slot: 656,
  length: 660,
  /** Value of `open` at the start of the run. */
  base: 664,
  /** Number of threads that may take part. */
  threads: 668,
  /** Number of messages posted to each worker. */
  mail: 768,
  /** Number of workers that sleep until the next run. */
  idle: 772,
  /** Next page of the memory that a worker maps while it waits, and the end of these pages. */
  ahead: 776,
  aheadEnd: 780,
} as const;

/** Names of the control words. */
export type ControlWord = keyof typeof CONTROL;

/** View of the control words. Shared memory, so growing does not detach it. */
export function controlWords(memory: WebAssembly.Memory): Int32Array {
  return new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4);
}

/** Index of a control word. */
export function at(word: ControlWord): number {
  return CONTROL[word] >> 2;
}

/**
 * A plan's program, as each thread runs it. Returns 0, or 1 if another thread failed in the
 * meantime.
 */
export type Run = (
  worker: number,
  base: number,
  rows: number,
  position: number,
  slot: number,
  length: number,
) => number;

/** Message to a worker: start, load a plan, drop a plan, or quit. */
export type ToWorker =
  | { readonly memory: WebAssembly.Memory; readonly worker: number }
  | { readonly plan: number; readonly module: WebAssembly.Module }
  | { readonly drop: number }
  | { readonly quit: true };

/** Message from a worker: the number of messages it has handled, or the error that ended it. */
export type FromWorker = { readonly handled: number } | { readonly failed: string };

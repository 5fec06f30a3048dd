/**
 * What the threads of a backend tell each other, at the beginning of the memory that they share: where the program stands, which
 * run is on, and who sleeps. `program.ts` has the half that is walked in WebAssembly, `pool.ts` and `worker.ts` the other.
 *
 * @module
 */

/** Bytes of the words below. */
export const CONTROL_BYTES = 1024;

/** Byte addresses. What different threads write lies 128 bytes apart: processors fetch lines of 64 bytes by twos. */
export const CONTROL = {
  /** Items of all runs before the entry that is open now; the entry's number, so to speak. Whoever waits for its end waits here. */
  open: 128,
  /** Items that somebody has taken. */
  taken: 256,
  /** Items that are done. */
  done: 384,
  /** Threads that sleep until the entry ends. */
  sleepers: 512,
  /** The thread whose program failed, plus one. */
  failed: 516,
  /** Even: the run below stands; odd: it is being written. It changes with every run and every call for a worker's attention. */
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

/** A plan's program, as each thread runs it: 0 when it went through, 1 when a thread failed meanwhile. */
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

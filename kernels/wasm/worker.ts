/**
 * Worker thread of the WebAssembly backend: waits for runs and executes their programs. `pool.ts`
 * starts it and sends it plans.
 *
 * @module
 */
import { messageOf } from "../errors.ts";
import {
  at,
  controlWords,
  type FromWorker,
  PAGE_BYTES,
  type Run,
  type ToWorker,
} from "./control.ts";

/**
 * Milliseconds that a worker spins before it sleeps: longer than the gap between two tokens, so
 * that the next token finds it awake.
 */
const SPIN_MS = 1.5;

/** Loads of the control word between two reads of the clock. */
const SPINS_PER_CLOCK = 256;

/** Bytes of a page of the system, at the least. */
const SYSTEM_PAGE_BYTES = 4096;

const [GENERATION, MAIL, IDLE, AHEAD, AHEAD_END, FAILED, OPEN] = [
  at("generation"),
  at("mail"),
  at("idle"),
  at("ahead"),
  at("aheadEnd"),
  at("failed"),
  at("open"),
];

const scope = globalThis as unknown as {
  postMessage(message: FromWorker): void;
  close(): void;
};

const plans = new Map<number, Run>();
let memory: WebAssembly.Memory;
let words: Int32Array;
let worker = 0;
/** Number of messages that this worker has handled. */
let handled = 0;
/** The last generation that this worker has seen. */
let seen = 0;

globalThis.addEventListener("message", (event) => {
  const quit = handle((event as MessageEvent<ToWorker>).data);
  handled++;
  scope.postMessage({ handled });
  if (quit) scope.close();
  else serve();
});

/** Handles a message; returns true if it is the last one. */
function handle(message: ToWorker): boolean {
  if ("memory" in message) {
    ({ memory, worker } = message);
    words = controlWords(memory);
  } else if ("module" in message) {
    const env = { memory, mark() {} }; // only the calling thread reads the clock
    const { exports } = new WebAssembly.Instance(message.module, { env });
    plans.set(message.plan, exports.run as Run);
  } else if ("drop" in message) {
    plans.delete(message.drop);
  } else {
    return true;
  }
  return false;
}

/** Takes part in runs until a message arrives. */
function serve(): void {
  try {
    while (Atomics.load(words, MAIL) === handled) {
      awaitChange();
      takePart();
    }
  } catch (error) {
    // First the flag, which ends the other threads' waits; then the reason, which is read after.
    Atomics.compareExchange(words, FAILED, 0, worker + 1);
    Atomics.notify(words, OPEN);
    scope.postMessage({ failed: messageOf(error) });
  }
}

/** Waits for a generation that this worker has not seen: maps pages, spins, then sleeps. */
function awaitChange(): void {
  while (Atomics.load(words, GENERATION) === seen && mapNext());
  for (const end = performance.now() + SPIN_MS; performance.now() < end;) {
    if (spin()) return;
  }
  Atomics.add(words, IDLE, 1);
  Atomics.wait(words, GENERATION, seen);
  Atomics.add(words, IDLE, -1);
}

/** Spins; true as soon as there is a generation that this worker has not seen. */
function spin(): boolean {
  for (let i = 0; i < SPINS_PER_CLOCK; i++) {
    const generation = Atomics.load(words, GENERATION);
    if (generation !== seen && !(generation & 1)) return true;
  }
  return false;
}

/**
 * Maps the next page of those that `Pool.mapAhead` names; false if none is left. The pages may be
 * in use already, and keep their bytes.
 *
 * Trick: `compareExchange`, since its first access is a store. V8 starts other operations with a
 * load, which maps the page of zeros; replacing that page interrupts all other threads, and takes
 * six times as long.
 */
function mapNext(): boolean {
  const end = Atomics.load(words, AHEAD_END);
  if (Atomics.load(words, AHEAD) >= end) return false;
  const page = Atomics.add(words, AHEAD, 1);
  if (page >= end) return false; // another worker took the last one
  const numbers = new Int32Array(memory.buffer, page * PAGE_BYTES, PAGE_BYTES / 4);
  for (let i = 0; i < numbers.length; i += SYSTEM_PAGE_BYTES / 4) {
    Atomics.compareExchange(numbers, i, 0, 0);
  }
  return true;
}

/** Runs the current program, if this worker has the plan and is among the run's threads. */
function takePart(): void {
  const generation = Atomics.load(words, GENERATION);
  if (generation & 1) return;
  const plan = Atomics.load(words, at("plan"));
  const base = Atomics.load(words, at("base"));
  const rows = Atomics.load(words, at("rows"));
  const position = Atomics.load(words, at("position"));
  const slot = Atomics.load(words, at("slot"));
  const length = Atomics.load(words, at("length"));
  const wanted = worker < Atomics.load(words, at("threads"));
  // The words changed while they were read: `serve` retries.
  if (Atomics.load(words, GENERATION) !== generation) return;
  seen = generation;
  if (wanted) plans.get(plan)?.(worker, base, rows, position, slot, length);
}

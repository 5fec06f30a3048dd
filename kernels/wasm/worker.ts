/**
 * A thread of the WebAssembly backend: waits for runs and walks their program. `pool.ts` starts
 * it and tells it of plans.
 *
 * @module
 */
import { messageOf } from "../errors.ts";
import { at, controlWords, type FromWorker, type Run, type ToWorker } from "./control.ts";

/**
 * Milliseconds that a worker looks for the next run before it sleeps: a token follows the last one
 * sooner, and finds it awake.
 */
const WATCH_MS = 1.5;

/** Looks at the control words between two looks at the clock. */
const LOOKS = 256;

const [GENERATION, MAIL, IDLE, FAILED, OPEN] = [
  at("generation"),
  at("mail"),
  at("idle"),
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
/** Messages that this worker has dealt with. */
let handled = 0;
/** The generation that it has seen last. */
let seen = 0;

globalThis.addEventListener("message", (event) => {
  const quit = handle((event as MessageEvent<ToWorker>).data);
  handled++;
  scope.postMessage({ handled });
  if (quit) scope.close();
  else serve();
});

/** Does what a message says; true when it is the last. */
function handle(message: ToWorker): boolean {
  if ("memory" in message) {
    ({ memory, worker } = message);
    words = controlWords(memory);
  } else if ("module" in message) {
    const env = { memory, mark() {} }; // the calling thread alone looks at the clock
    const { exports } = new WebAssembly.Instance(message.module, { env });
    plans.set(message.plan, exports.run as Run);
  } else if ("drop" in message) {
    plans.delete(message.drop);
  } else {
    return true;
  }
  return false;
}

/** Takes part in runs until there is a message. */
function serve(): void {
  try {
    while (Atomics.load(words, MAIL) === handled) {
      awaitChange();
      takePart();
    }
  } catch (error) {
    // First the flag that ends the others' waiting, then the reason, which
    // is read when they return.
    Atomics.compareExchange(words, FAILED, 0, worker + 1);
    Atomics.notify(words, OPEN);
    scope.postMessage({ failed: messageOf(error) });
  }
}

/** Waits until a run stands that this worker has not seen: awake at first, then asleep. */
function awaitChange(): void {
  const end = performance.now() + WATCH_MS;
  while (performance.now() < end) {
    for (let i = 0; i < LOOKS; i++) {
      const generation = Atomics.load(words, GENERATION);
      if (generation !== seen && !(generation & 1)) return;
    }
  }
  Atomics.add(words, IDLE, 1);
  Atomics.wait(words, GENERATION, seen);
  Atomics.add(words, IDLE, -1);
}

/** Walks the program of the run that stands, if this worker knows it and is wanted. */
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
  // the next run was being written: once more
  if (Atomics.load(words, GENERATION) !== generation) return;
  seen = generation;
  if (wanted) plans.get(plan)?.(worker, base, rows, position, slot, length);
}

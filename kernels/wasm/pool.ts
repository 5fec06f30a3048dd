/**
 * Thread pool of the WebAssembly backend: the calling thread and its workers run the same plans
 * over shared memory.
 *
 * A run starts by writing control words in shared memory, without a message: workers spin for a
 * while after each run, then sleep. Only rare events (a new plan, shutdown) are messages. To read
 * one, a worker returns to its event loop; it misses the runs during that time.
 *
 * @module
 */
import type { Segment } from "../step.ts";
import { DeviceError } from "../errors.ts";
import type { ComputeHost } from "../host.ts";
import { at, controlWords, type FromWorker, type Run, type ToWorker } from "./control.ts";

const [GENERATION, PLAN, ROWS, POSITION, SLOT, LENGTH, BASE, THREADS] = [
  at("generation"),
  at("plan"),
  at("rows"),
  at("position"),
  at("slot"),
  at("length"),
  at("base"),
  at("threads"),
];
const [OPEN, FAILED, MAIL, IDLE] = [at("open"), at("failed"), at("mail"), at("idle")];
const [AHEAD, AHEAD_END] = [at("ahead"), at("aheadEnd")];

/**
 * Whether threads can share memory here: a page must be cross-origin isolated, by its headers.
 */
export function canShareMemory(): boolean {
  return typeof SharedArrayBuffer === "function" &&
    (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
}

/** Why a page has one thread. */
const UNSHARED = "memory is shared only in a page that is cross-origin isolated; send it with " +
  "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp";

/**
 * The reason why threads cannot be started; undefined if they can, or one thread was asked for.
 * @param shared whether memory is to be shared; undefined for what the platform allows.
 */
export function whyOneThread(host: ComputeHost, shared?: boolean): string | undefined {
  if (shared ?? canShareMemory()) return host.threadsDenied?.();
  return shared === undefined ? UNSHARED : undefined;
}

/** Whether this thread may sleep: a browser's main thread must not. */
export function canSleep(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1); // not equal: returns at once
    return true;
  } catch {
    return false;
  }
}

/** Workers over one shared memory. */
export class Pool {
  readonly #words: Int32Array;
  readonly #workers: PoolWorker[];
  #plans = 0;
  /** This thread's instance of the program that the workers have started; null if none runs. */
  #announced: Run | null = null;
  /** Tail of the queue of broadcasts: each waits for all answers before the next one is posted. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(words: Int32Array, workers: PoolWorker[]) {
    this.#words = words;
    this.#workers = workers;
  }

  /**
   * Starts `threads` − 1 workers.
   * @throws {DeviceError} If a worker does not start.
   */
  static async start(
    memory: WebAssembly.Memory,
    threads: number,
    host: ComputeHost,
  ): Promise<Pool> {
    const workers = Array.from({ length: threads - 1 }, (_, i) => new PoolWorker(host, i + 1));
    const pool = new Pool(controlWords(memory), workers);
    pool.#words[THREADS] = threads;
    try {
      await pool.#post((worker) => ({ memory, worker }));
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** Number of computing threads, including the calling one. */
  get threads(): number {
    return this.#workers.length + 1;
  }

  /** Limits the threads that take part in later runs. */
  limit(threads: number): void {
    this.#words[THREADS] = threads;
  }

  /** Terminates workers until `threads` threads are left. */
  async dismiss(threads: number): Promise<void> {
    this.limit(threads);
    await this.#enqueue(async () => {
      // Leaving workers are removed before the next broadcast, which would wait for them forever.
      const leaving = this.#workers.splice(threads - 1);
      // A failed worker cannot answer; it is terminated all the same.
      await this.#broadcast((worker) => worker < threads ? { drop: -1 } : { quit: true }, leaving)
        .catch(() => {});
      for (const worker of leaving) worker.end();
    });
  }

  /** Loads a plan on every worker; returns its number. */
  async load(module: WebAssembly.Module): Promise<number> {
    const plan = this.#plans++;
    await this.#post(() => ({ plan, module }));
    return plan;
  }

  /** Loads a plan on every worker, without waiting: a worker without it misses its runs. */
  offer(module: WebAssembly.Module): number {
    const plan = this.#plans++;
    void this.#post(() => ({ plan, module })).catch(() => {}); // the next run reports the failure
    return plan;
  }

  /** Drops a plan on every worker, without waiting for them. */
  drop(plan: number): void {
    void this.#post(() => ({ drop: plan })).catch(() => {}); // the next run reports the failure
  }

  /**
   * Runs a plan on all threads; `program` is this thread's instance of it. After a failure the pool
   * runs nothing.
   */
  run(plan: number, program: Run, { rows, position, slot, length }: Segment): void {
    this.#announce(plan, program, rows, position, slot, length);
    this.settle();
  }

  /**
   * Starts the workers on a program that reads no step; `items` takes the place of the step's rows.
   * `settle` computes the remaining items.
   */
  share(plan: number, program: Run, items: number): void {
    this.#announce(plan, program, items, 0, 0, 0);
  }

  /** Runs such a program on this thread only; the workers are not woken. */
  shareAlone(program: Run, items: number): void {
    this.settle();
    const words = this.#words;
    if (!words[FAILED]) program(0, words[OPEN], items, 0, 0, 0);
  }

  #announce(
    plan: number,
    program: Run,
    rows: number,
    position: number,
    slot: number,
    length: number,
  ): void {
    this.settle(); // the words of the previous run are overwritten below
    const words = this.#words;
    if (words[FAILED]) return;
    const generation = words[GENERATION];
    Atomics.store(words, GENERATION, generation + 1); // odd: readers retry
    // Atomic stores: plain ones may be reordered with the stores to `generation`.
    Atomics.store(words, PLAN, plan);
    Atomics.store(words, ROWS, rows);
    Atomics.store(words, POSITION, position);
    Atomics.store(words, SLOT, slot);
    Atomics.store(words, LENGTH, length);
    Atomics.store(words, BASE, Atomics.load(words, OPEN));
    Atomics.store(words, GENERATION, generation + 2);
    if (Atomics.load(words, IDLE)) Atomics.notify(words, GENERATION);
    this.#announced = program;
  }

  /**
   * Lets the workers map pages `first` … `end` − 1 of the memory whenever they wait for a run.
   *
   * Trick: most of the time of packing goes into page faults. Threads that wait anyway take them
   * while this one parses headers and assembles code.
   */
  mapAhead(first: number, end: number): void {
    const words = this.#words;
    Atomics.store(words, AHEAD_END, 0);
    Atomics.store(words, AHEAD, first);
    Atomics.store(words, AHEAD_END, end);
    this.#interrupt(0);
  }

  /** Takes part in the started run until it is done. */
  settle(): void {
    const program = this.#announced;
    if (!program) return;
    this.#announced = null;
    const words = this.#words;
    try {
      program(0, words[BASE], words[ROWS], words[POSITION], words[SLOT], words[LENGTH]);
    } catch (error) {
      Atomics.store(words, FAILED, 1);
      throw error;
    }
  }

  /** Whether a thread has failed; then nothing runs. */
  get failed(): boolean {
    return Atomics.load(this.#words, FAILED) !== 0;
  }

  /** The error of the failed worker. */
  failure(): Promise<DeviceError> {
    const worker = this.#workers[Atomics.load(this.#words, FAILED) - 2];
    return worker?.failure() ??
      Promise.resolve(new DeviceError('Cannot go on with "wasm": one of its threads has failed'));
  }

  /** Terminates all workers, and waits for them. */
  async close(): Promise<void> {
    await this.dismiss(1);
  }

  /** Queues a broadcast. */
  #post(message: (worker: number) => ToWorker): Promise<void> {
    return this.#enqueue(() => this.#broadcast(message));
  }

  /** Posts a message to each worker, makes it read the message, and waits for all answers. */
  async #broadcast(
    message: (worker: number) => ToWorker,
    leaving: readonly PoolWorker[] = [],
  ): Promise<void> {
    const all = [...this.#workers, ...leaving];
    const answers = all.map((worker) => worker.ask(message(worker.number)));
    this.#interrupt();
    const failed = (await Promise.allSettled(answers)).find((r) => r.status === "rejected");
    if (failed) throw failed.reason;
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Ends the workers' wait; with mail, they return to their event loops and read messages. */
  #interrupt(mail = 1): void {
    this.settle(); // the words of the previous run are overwritten below
    const words = this.#words;
    const generation = words[GENERATION];
    Atomics.store(words, GENERATION, generation + 1);
    Atomics.store(words, PLAN, -1);
    Atomics.add(words, MAIL, mail);
    Atomics.store(words, GENERATION, generation + 2);
    Atomics.notify(words, GENERATION);
  }
}

/** The calling thread's handle of one worker. */
class PoolWorker {
  readonly #worker: Worker;
  readonly #failed = Promise.withResolvers<DeviceError>();
  #answers: { resolve: () => void; reject: (error: DeviceError) => void }[] = [];
  #dead = false;

  constructor(readonly host: ComputeHost, readonly number: number) {
    this.#worker = host.startWorker();
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
      if ("failed" in data) this.#fail(data.failed);
      else this.#answers.shift()?.resolve();
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault(); // reported by the next use of the backend
      this.#dead = true;
      this.#fail(event.message);
    });
    this.#keepAlive(false);
  }

  /** Posts a message and waits until the worker has handled it. */
  async ask(message: ToWorker): Promise<void> {
    if (this.#dead) throw await this.failure();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#answers.push({ resolve, reject });
    this.#keepAlive(true);
    try {
      this.#worker.postMessage(message);
      await promise;
    } finally {
      this.#keepAlive(false);
    }
  }

  /** The worker's error. Call only after it failed; its message may not have arrived yet. */
  async failure(): Promise<DeviceError> {
    this.#keepAlive(true);
    const error = await this.#failed.promise;
    this.#keepAlive(false);
    return error;
  }

  end(): void {
    this.#worker.terminate();
  }

  /** Only a worker that owes an answer keeps the process alive. */
  #keepAlive(alive: boolean): void {
    this.host.keepAlive(this.#worker, alive);
  }

  #fail(message: string): void {
    const error = new DeviceError(
      `Cannot go on with "wasm": thread ${this.number} failed (${message}); ` +
        "open the backend again, with one thread if it recurs",
    );
    this.#failed.resolve(error);
    for (const { reject } of this.#answers.splice(0)) reject(error);
  }
}

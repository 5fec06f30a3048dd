/**
 * Thread pool of a backend: the calling thread and its workers run the same plans over shared
 * memory.
 *
 * A run is announced in shared memory, without a message: workers poll for a while after each run,
 * and then sleep. Only rare events (a new plan, the end) are messages. A worker returns to its
 * event loop to read one, and takes no part in the runs of that time.
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

/**
 * Whether threads can share memory here: a page needs headers that make it cross-origin isolated.
 */
export function canShareMemory(): boolean {
  return typeof SharedArrayBuffer === "function" && typeof Worker === "function" &&
    (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
}

/** Whether this thread may sleep: the main one of a browser must not. */
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
  /** The program that workers have begun with. */
  #announced: Run | null = null;
  /** Messages are posted to all workers and their answers awaited, one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(words: Int32Array, workers: PoolWorker[]) {
    this.#words = words;
    this.#workers = workers;
  }

  /**
   * Starts `threads` − 1 workers.
   * @throws {DeviceError} when one does not start.
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

  /** Threads that compute, the calling one among them. */
  get threads(): number {
    return this.#workers.length + 1;
  }

  /** Lets fewer threads take part from now on. */
  limit(threads: number): void {
    this.#words[THREADS] = threads;
  }

  /** Ends all but `threads` threads. */
  async dismiss(threads: number): Promise<void> {
    this.limit(threads);
    await this.#inTurn(async () => {
      // Whoever goes is off the list before the next turn, which would wait for an answer for ever.
      const going = this.#workers.splice(threads - 1);
      // One that has failed cannot answer; it is ended all the same.
      await this.#tell((worker) => worker < threads ? { drop: -1 } : { quit: true }, going)
        .catch(() => {});
      for (const worker of going) worker.end();
    });
  }

  /** Gives a plan to every worker; the result names it. */
  async load(module: WebAssembly.Module): Promise<number> {
    const plan = this.#plans++;
    await this.#post(() => ({ plan, module }));
    return plan;
  }

  /** Lets the workers forget a plan, when they next look. */
  drop(plan: number): void {
    void this.#post(() => ({ drop: plan })).catch(() => {}); // whoever failed has told it, or will
  }

  /**
   * Runs a plan on all threads; `program` is this thread's instance of it. A failure ends the pool
   * for good.
   */
  run(plan: number, program: Run, { rows, position, slot, length }: Segment): void {
    this.#announce(plan, program, rows, position, slot, length);
    this.settle();
  }

  /**
   * Starts the workers on a program that reads no step; its one number, `items`, takes the place of
   * a step's rows. `settle` does what they leave.
   */
  share(plan: number, program: Run, items: number): void {
    this.#announce(plan, program, items, 0, 0, 0);
  }

  /** Runs such a program on this thread alone; the workers are not woken. */
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
    this.settle(); // its words are written anew
    const words = this.#words;
    if (words[FAILED]) return;
    const generation = words[GENERATION];
    Atomics.store(words, GENERATION, generation + 1); // whoever reads now reads again
    // Atomically, each of them: plain stores may pass the two that stand around them.
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

  /** Takes part in what was announced until it is done. */
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

  /** Whether a thread has failed, after which nothing runs any more. */
  get failed(): boolean {
    return Atomics.load(this.#words, FAILED) !== 0;
  }

  /** What the worker failed of that has failed. */
  failure(): Promise<DeviceError> {
    const worker = this.#workers[Atomics.load(this.#words, FAILED) - 2];
    return worker?.failure() ??
      Promise.resolve(new DeviceError('Cannot go on with "wasm": one of its threads has failed'));
  }

  /** Ends the workers, and waits until they have. */
  async close(): Promise<void> {
    await this.dismiss(1);
  }

  /** Posts a message to each worker, calls them to it, and waits until all have dealt with it. */
  #post(message: (worker: number) => ToWorker): Promise<void> {
    return this.#inTurn(() => this.#tell(message));
  }

  async #tell(
    message: (worker: number) => ToWorker,
    going: readonly PoolWorker[] = [],
  ): Promise<void> {
    const all = [...this.#workers, ...going];
    const answers = all.map((worker) => worker.ask(message(worker.number)));
    this.#call();
    const failed = (await Promise.allSettled(answers)).find((r) => r.status === "rejected");
    if (failed) throw failed.reason;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  /** Makes the workers look at their messages. */
  #call(): void {
    this.settle(); // its words are written anew
    const words = this.#words;
    const generation = words[GENERATION];
    Atomics.store(words, GENERATION, generation + 1);
    Atomics.store(words, PLAN, -1);
    Atomics.add(words, MAIL, 1);
    Atomics.store(words, GENERATION, generation + 2);
    Atomics.notify(words, GENERATION);
  }
}

/** One worker, as this thread sees it. */
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
      event.preventDefault(); // it is told where the backend is used
      this.#dead = true;
      this.#fail(event.message);
    });
    this.#keepAlive(false);
  }

  /** Posts a message and waits until the worker has dealt with it. */
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

  /** What the worker failed of; it has failed, but its message may be on its way. */
  async failure(): Promise<DeviceError> {
    this.#keepAlive(true);
    const error = await this.#failed.promise;
    this.#keepAlive(false);
    return error;
  }

  end(): void {
    this.#worker.terminate();
  }

  /** Only a worker that has to answer a message keeps the process alive. */
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

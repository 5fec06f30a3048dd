/**
 * A page's end of the messages to the worker of its model.
 *
 * @module
 */
import { DeviceError } from "../../kernels/errors.ts";
import { CheckpointError } from "../errors.ts";
import {
  type CallName,
  type FromWorker,
  type MemoryState,
  type OpenedModel,
  packOptions,
  type ToWorker,
  unpackError,
} from "./messages.ts";

/** Milliseconds between two looks at the clock of watched work. */
const TICK_MS = 250;

/** A call without an answer yet. */
interface Pending {
  readonly options: object;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Called when the worker reports a change. */
export interface LinkEvents {
  onMemory(memory: MemoryState): void;
  onReopened(model: OpenedModel): void;
}

/** Calls to one worker. */
export class EngineLink {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #count = 0;
  #watch: ReturnType<typeof setInterval> | undefined;
  /** Why no call is answered any more. */
  #ended: Error | undefined;
  events: LinkEvents | undefined;

  /** @param id the model, for messages. */
  constructor(readonly id: string) {
    // Bundlers find a worker's file by exactly this expression.
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", (event: MessageEvent<FromWorker>) => {
      this.#take(event.data);
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault(); // reported by the calls
      const why = event.message ?? "its script cannot be loaded from the page's origin";
      this.end(new DeviceError(`Cannot run "${id}": its worker failed (${why}); load it again`));
    });
  }

  /**
   * Calls the worker. `options` may have callbacks and a signal.
   * @throws the signal's reason, if it is aborted; the worker's error.
   */
  async call<T>(call: CallName, args: readonly unknown[], options: Options = {}): Promise<T> {
    options.signal?.throwIfAborted();
    const { id, result } = this.post(call, args, options);
    using _following = this.follow(id, options.signal);
    try {
      return await result as T;
    } catch (error) {
      options.signal?.throwIfAborted();
      throw error;
    }
  }

  /** Posts a call and returns its number. */
  post(
    call: CallName,
    args: readonly unknown[],
    options: Options = {},
  ): { readonly id: number; readonly result: Promise<unknown> } {
    if (this.#ended) throw this.#ended;
    const id = this.#count++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { options, resolve, reject });
    try {
      this.#send({ id, call, args, options: packOptions(options) });
    } catch (error) { // a value that cannot be sent
      this.#pending.delete(id);
      throw error;
    }
    return { id, result: promise };
  }

  /** Sends the abort of a signal until it is disposed of. */
  follow(id: number, signal?: AbortSignal): Disposable {
    const abort = () => this.#send({ id, abort: true });
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    return { [Symbol.dispose]: () => signal?.removeEventListener("abort", abort) };
  }

  /** Ends the worker; calls under way and later ones throw the error. */
  end(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    clearInterval(this.#watch);
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #take(message: FromWorker): void {
    if ("watch" in message) return this.#watchFor(message.watch);
    if ("reopened" in message) return this.events?.onReopened(message.reopened);
    const pending = this.#pending.get(message.id);
    if ("event" in message) {
      const callback = (pending?.options as Record<string, unknown> | undefined)?.[message.event];
      if (typeof callback === "function") callback(...message.args);
      return;
    }
    if (message.memory) this.events?.onMemory(message.memory);
    this.#pending.delete(message.id);
    if ("error" in message) pending?.reject(unpackError(message.error));
    else pending?.resolve(message.result);
  }

  /**
   * Ends the worker when synchronous work in it takes too long: it reads no message meanwhile.
   *
   * Trick: counts ticks, not time. A tab that was suspended, or a computer that slept, would
   * otherwise end work that had no time to run.
   */
  #watchFor(limitMs: number | null): void {
    clearInterval(this.#watch);
    if (limitMs === null) return;
    let left = Math.ceil(limitMs / TICK_MS);
    this.#watch = setInterval(() => {
      if (--left > 0) return;
      const seconds = Math.round(limitMs / 1000);
      this.end(
        new CheckpointError(
          `Cannot use "${this.id}": a rule of its tokenizer or its chat template does not come ` +
            `to an end within ${seconds} seconds; load it again`,
        ),
      );
    }, TICK_MS);
  }
}

/** Options of a call: callbacks, a signal, plain values. */
export interface Options {
  readonly signal?: AbortSignal;
}

/**
 * The loaded model of the page, and the one task that may use it at a time.
 *
 * @module
 */
import type { Model } from "../mod.ts";

type Listener = (session: Session) => void;

/** State that all parts of the page see. */
export class Session {
  readonly #listeners: Listener[] = [];
  #model: Model | null = null;
  #isBusy = false;

  get model(): Model | null {
    return this.#model;
  }

  /** Whether a task uses the model. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Calls a listener at each change. */
  onChange(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /** Replaces the model; frees the one before. */
  async use(model: Model | null): Promise<void> {
    const before = this.#model;
    this.#model = model;
    this.#tell();
    await before?.[Symbol.asyncDispose]();
  }

  /** Runs a task on the model, which no other task may use meanwhile. */
  async run(work: (model: Model) => Promise<void>): Promise<void> {
    const model = this.#model;
    if (!model || this.#isBusy) return;
    this.#isBusy = true;
    this.#tell();
    try {
      await work(model);
    } finally {
      this.#isBusy = false;
      this.#tell();
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener(this);
  }
}

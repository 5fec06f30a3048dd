/**
 * Standard globals that older runtimes lack. esbuild replaces each use of an exported name by the
 * export, so that the globals of the program that loads the library stay as they are.
 *
 * @module
 */

/** The stack of Node 22 and older browsers: the methods that the library calls. */
class Stack<T> {
  #resources: T[] = [];

  /** Adds a resource, to be disposed of before those added earlier. */
  use<R extends T>(resource: R): R {
    this.#resources.push(resource);
    return resource;
  }

  /** Empties this stack into a new one. */
  protected moveInto<S extends Stack<T>>(other: S): S {
    other.#resources = this.take();
    return other;
  }

  /** The resources, the last one first; none is left. */
  protected take(): T[] {
    return this.#resources.splice(0);
  }
}

class SyncStack extends Stack<Disposable | null | undefined> {
  move(): SyncStack {
    return this.moveInto(new SyncStack());
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Disposes of all; throws the first error after the last resource. */
  dispose(): void {
    const errors: unknown[] = [];
    for (const resource of this.take().reverse()) {
      try {
        resource?.[Symbol.dispose]();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length) throw errors[0];
  }
}

class AsyncStack extends Stack<AsyncDisposable | Disposable | null | undefined> {
  move(): AsyncStack {
    return this.moveInto(new AsyncStack());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disposeAsync();
  }

  /** Disposes of all, one after another; throws the first error after the last resource. */
  async disposeAsync(): Promise<void> {
    const errors: unknown[] = [];
    for (const resource of this.take().reverse()) {
      try {
        if (resource && Symbol.asyncDispose in resource) await resource[Symbol.asyncDispose]();
        else resource?.[Symbol.dispose]();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length) throw errors[0];
  }
}

const DisposableStackHere = globalThis.DisposableStack ?? SyncStack;
const AsyncDisposableStackHere = globalThis.AsyncDisposableStack ?? AsyncStack;

export {
  AsyncDisposableStackHere as AsyncDisposableStack,
  AsyncStack,
  DisposableStackHere as DisposableStack,
  SyncStack,
};

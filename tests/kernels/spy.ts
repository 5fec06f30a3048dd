/**
 * Spies on WebGPU calls: count what a WebGPU backend requests.
 *
 * @module
 */

/** Counts the calls of some methods of a WebGPU class while in use. */
export class Spy implements Disposable {
  readonly calls: Record<string, number> = {};
  readonly #undo: (() => void)[] = [];

  /** `seen` gets `this`, the result and the arguments of each call. */
  on(
    { prototype }: { prototype: object },
    method: string,
    seen: (self: unknown, result: unknown, args: unknown[]) => void = () => {},
  ): this {
    const calls = this.calls;
    const original = Reflect.get(prototype, method) as (...args: unknown[]) => unknown;
    Reflect.set(prototype, method, function (this: unknown, ...args: unknown[]) {
      calls[method] = (calls[method] ?? 0) + 1;
      const result = original.apply(this, args);
      seen(this, result, args);
      return result;
    });
    this.#undo.push(() => Reflect.set(prototype, method, original));
    return this;
  }

  /** All factory methods of a device. */
  onCreate(): this {
    for (const name of Object.getOwnPropertyNames(GPUDevice.prototype)) {
      if (name.startsWith("create")) this.on(GPUDevice, name);
    }
    return this;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo) undo();
  }
}

/** Counts live buffers and their bytes. */
export class BufferSpy implements Disposable {
  /** Bytes of live buffers. */
  bytes = 0;
  /** Peak of live buffers. */
  peak = 0;
  readonly alive = new Set<GPUBuffer>();
  readonly #spy = new Spy();

  constructor() {
    this.#spy.on(GPUDevice, "createBuffer", (_, buffer) => {
      this.alive.add(buffer as GPUBuffer);
      this.bytes += (buffer as GPUBuffer).size;
      this.peak = Math.max(this.peak, this.bytes);
    });
    this.#spy.on(GPUBuffer, "destroy", (buffer) => {
      if (this.alive.delete(buffer as GPUBuffer)) this.bytes -= (buffer as GPUBuffer).size;
    });
  }

  [Symbol.dispose](): void {
    this.#spy[Symbol.dispose]();
  }
}

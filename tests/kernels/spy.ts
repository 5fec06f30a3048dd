/**
 * Counting what a WebGPU backend really does, at WebGPU's own door.
 *
 * @module
 */

/** Counts the calls of some methods of a WebGPU class while it is in use. */
export class Spy implements Disposable {
  readonly calls: Record<string, number> = {};
  readonly #undo: (() => void)[] = [];

  /** `seen` is given what each call was given, with `this` and its result in front. */
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

  /** Everything that a device can be asked to make. */
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

/** The buffers that there are, counted as they come and go. */
export class BufferSpy implements Disposable {
  /** Of the buffers that there are. */
  bytes = 0;
  /** The most there were at once. */
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

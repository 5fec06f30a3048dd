/**
 * One device for all WebGPU tests of a file, which compiles each shader once.
 *
 *     test 1: open ── compile A, B ── dispose ┐
 *     test 2: open ── A, B from before        ├─▶ one device, destroyed after the last test
 *     test 3: open ── A from before, C ───────┘
 *
 * A software adapter takes 0.1 to 2 s of a core for a shader, and most shaders of a file are those
 * of its earlier tests. Buffers, errors and queues of a test stay its own: disposing of a backend
 * frees its buffers and waits for its queue. Not for tests of a lost device, of error scopes around
 * a faulty shader, or of how often a device is asked for an object.
 *
 * @module
 */

/** Methods of a device whose objects hold no state, so that tests can share them. */
const SHARED = [
  "createBindGroupLayout",
  "createPipelineLayout",
  "createShaderModule",
  "createComputePipelineAsync",
] as const;

/** Makes adapters give one device for equal descriptors, until it is disposed of. */
export class SharedDevices implements Disposable {
  readonly #original = GPUAdapter.prototype.requestDevice;
  readonly #devices = new Map<string, GPUDevice>();

  constructor() {
    const [original, devices] = [this.#original, this.#devices];
    GPUAdapter.prototype.requestDevice = async function (descriptor) {
      const key = JSON.stringify(descriptor);
      const device = devices.get(key) ?? reusable(await original.call(this, descriptor));
      devices.set(key, device);
      return device;
    };
  }

  [Symbol.dispose](): void {
    GPUAdapter.prototype.requestDevice = this.#original;
    for (const device of this.#devices.values()) GPUDevice.prototype.destroy.call(device);
  }
}

/** Shares devices until all tests of the file have run. */
export function shareDevices(): void {
  const shared = new SharedDevices();
  Deno.test.afterAll(() => shared[Symbol.dispose]());
}

/** A device that keeps what it compiled, and that its users cannot destroy. */
function reusable(device: GPUDevice): GPUDevice {
  const ids = new Map<unknown, number>();
  const made = new Map<string, unknown>();
  for (const method of SHARED) {
    const make = device[method].bind(device) as (descriptor: object) => unknown;
    const share = (descriptor: object) => {
      const key = method + JSON.stringify(descriptor, (_, value) => ids.get(value) ?? value);
      if (!made.has(key)) {
        const object = make(descriptor);
        made.set(key, object);
        ids.set(object, ids.size);
      }
      return made.get(key);
    };
    Object.defineProperty(device, method, { value: share });
  }
  Object.defineProperty(device, "destroy", { value: () => {} });
  return device;
}

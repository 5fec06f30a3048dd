/**
 * Fake WebGPU adapter that compiles and computes nothing, but records the shaders that a backend
 * requests: for adapters that this machine does not have.
 *
 * @module
 */

/** Contents of every buffer: the correct result of the backend's trial of subgroups. */
function trialSum(): number {
  let sum = 0;
  for (let lane = 0; lane < 256; lane++) sum += lane + 2 * (lane * lane % 7);
  return sum;
}

/** Properties of the fake adapter. */
export interface FakeAdapter {
  readonly software: boolean;
  readonly subgroups: boolean;
  /** Most bytes of a buffer and of a binding; default 128 MiB. */
  readonly maxBytes?: number;
}

/** A dispatch: the label and text of its shader, and its workgroups. */
export interface FakeDispatch extends FakeShader {
  readonly groups: number;
}

interface FakeShader {
  readonly label: string;
  readonly code: string;
}

/** Replaces `navigator.gpu` until disposed. */
export class FakeGpu implements Disposable {
  /** Label of each requested shader, by its text. */
  readonly shaders = new Map<string, string>();
  /** Number of calls of each method of the device, its queue, encoders and passes. */
  readonly calls: Record<string, number> = {};
  /** Every dispatch, in order. */
  readonly dispatches: FakeDispatch[] = [];

  constructor(adapter: FakeAdapter) {
    const value = { requestAdapter: () => Promise.resolve(fakeAdapter(adapter, this)) };
    Object.defineProperty(navigator, "gpu", { value, configurable: true });
  }

  /** Forgets the calls so far. */
  forget(): void {
    for (const name of Object.keys(this.calls)) delete this.calls[name];
    this.dispatches.length = 0;
  }

  [Symbol.dispose](): void {
    Reflect.deleteProperty(navigator, "gpu");
  }
}

/** The same methods, which count their calls. */
function counted<M extends Record<string, (...args: never[]) => unknown>>(
  { calls }: FakeGpu,
  methods: M,
): M {
  const counting = Object.entries(methods).map(([name, method]) => [
    name,
    (...args: never[]) => {
      calls[name] = (calls[name] ?? 0) + 1;
      return method(...args);
    },
  ]);
  return Object.fromEntries(counting);
}

function fakeAdapter({ software, subgroups, maxBytes = 2 ** 27 }: FakeAdapter, fake: FakeGpu) {
  const limits = { maxStorageBufferBindingSize: maxBytes, maxBufferSize: 2 * maxBytes };
  return {
    info: { description: "fake GPU", isFallbackAdapter: software },
    features: new Set(["timestamp-query"]),
    limits,
    requestDevice: () => Promise.resolve(fakeDevice(fake, limits, subgroups ? trialSum() : 1)),
  };
}

function fakeDevice(fake: FakeGpu, limits: Record<string, number>, word: number) {
  const nothing = () => {};
  const object = () => ({ destroy: nothing });
  let shader: FakeShader;
  const pass = counted(fake, {
    setPipeline: (pipeline: FakeShader) => void (shader = pipeline),
    setBindGroup: nothing,
    dispatchWorkgroups: (x: number, y = 1) => fake.dispatches.push({ ...shader, groups: x * y }),
    end: nothing,
  });
  const encoder = counted(fake, {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    resolveQuerySet: nothing,
    finish: object,
  });
  const done = () => Promise.resolve();
  const methods = counted(fake, {
    createBuffer: ({ size }: { size: number }) => ({
      size,
      unmap: nothing,
      destroy: nothing,
      mapAsync: done,
      getMappedRange: (_: number, bytes: number) => new Float32Array(bytes / 4).fill(word).buffer,
    }),
    createBindGroupLayout: object,
    createPipelineLayout: object,
    createBindGroup: object,
    createQuerySet: object,
    createCommandEncoder: () => encoder,
    createShaderModule: ({ label, code }: FakeShader) => {
      fake.shaders.set(code, label);
      return { label, code };
    },
    createComputePipelineAsync: ({ compute }: { compute: { module: FakeShader } }) =>
      Promise.resolve(compute.module),
  });
  return {
    ...methods,
    limits: {
      ...limits,
      maxComputeWorkgroupsPerDimension: 65535,
      maxStorageBuffersPerShaderStage: 8,
      maxComputeWorkgroupStorageSize: 16384,
    },
    lost: new Promise(nothing),
    queue: counted(fake, { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: done }),
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: done,
    destroy: nothing,
  };
}

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

/** Replaces `navigator.gpu` until disposed. */
export class FakeGpu implements Disposable {
  /** Label of each requested shader, by its text. */
  readonly shaders = new Map<string, string>();

  constructor(adapter: { readonly software: boolean; readonly subgroups: boolean }) {
    const value = { requestAdapter: () => Promise.resolve(fakeAdapter(adapter, this.shaders)) };
    Object.defineProperty(navigator, "gpu", { value, configurable: true });
  }

  [Symbol.dispose](): void {
    Reflect.deleteProperty(navigator, "gpu");
  }
}

function fakeAdapter(
  { software, subgroups }: { readonly software: boolean; readonly subgroups: boolean },
  shaders: Map<string, string>,
) {
  return {
    info: { description: "fake GPU", isFallbackAdapter: software },
    features: new Set(["timestamp-query"]),
    limits: { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 28 },
    requestDevice: () => Promise.resolve(fakeDevice(shaders, subgroups ? trialSum() : 1)),
  };
}

function fakeDevice(shaders: Map<string, string>, word: number) {
  const nothing = () => {};
  const object = () => ({ destroy: nothing });
  const pass = {
    setPipeline: nothing,
    setBindGroup: nothing,
    dispatchWorkgroups: nothing,
    end: nothing,
  };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    resolveQuerySet: nothing,
    finish: object,
  };
  const done = () => Promise.resolve();
  return {
    limits: {
      maxStorageBufferBindingSize: 2 ** 27,
      maxBufferSize: 2 ** 28,
      maxComputeWorkgroupsPerDimension: 65535,
      maxStorageBuffersPerShaderStage: 8,
      maxComputeWorkgroupStorageSize: 16384,
    },
    lost: new Promise(nothing),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: done },
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: done,
    destroy: nothing,
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
    createShaderModule: ({ label, code }: { label: string; code: string }) => {
      shaders.set(code, label);
      return {};
    },
    createComputePipelineAsync: () => Promise.resolve({}),
  };
}

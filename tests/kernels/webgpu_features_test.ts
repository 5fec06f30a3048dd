/**
 * Tests of what the WebGPU backend requires of a device: features by trial, limits of every device.
 */
import assert from "node:assert/strict";
import type { Backend } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { sampleChooseWgsl, sampleCutWgsl } from "../../kernels/ops/sample/wgsl_many.ts";
import { sampleOneWgsl } from "../../kernels/ops/sample/wgsl_one.ts";
import { measureWebGpu, openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { type Feature, openGpu } from "../../kernels/webgpu/device.ts";
import { tryFeatures } from "../../kernels/webgpu/features.ts";
import { Compiler, type ShaderCall } from "../../kernels/webgpu/pipeline.ts";
import { StepQueue } from "../../kernels/webgpu/queue.ts";
import { Tiles } from "../../kernels/webgpu/tuner.ts";
import { TILES } from "../../kernels/ops/matmul/tiles.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { BufferSpy } from "./spy.ts";
import { checkMatmulCase, checkNormCase } from "./twins.ts";
import { checkWriteKvCase } from "./twins_attention.ts";

const ignore = await ignoreWithoutAdapter("webgpu_features_test.ts");

/** A device whose features were tried after `change`. */
async function tried(change: Partial<Pick<GPUAdapter, "requestDevice">> = {}) {
  const { prototype } = GPUAdapter;
  const original = prototype.requestDevice;
  prototype.requestDevice = change.requestDevice ?? original;
  try {
    const gpu = await openGpu();
    const queue = new StepQueue(gpu);
    const compiler = new Compiler(gpu, queue);
    await tryFeatures(gpu, queue, compiler);
    return { gpu, queue, compiler };
  } finally {
    prototype.requestDevice = original;
  }
}

/** An adapter that refuses a device with `refused`. */
function refusing(refused: Feature): Pick<GPUAdapter, "requestDevice"> {
  const original = GPUAdapter.prototype.requestDevice;
  return {
    requestDevice(this: GPUAdapter, descriptor) {
      const asked: string[] = [...descriptor?.requiredFeatures ?? []];
      if (asked.includes(refused)) return Promise.reject(new TypeError(`no ${refused}`));
      return original.call(this, descriptor);
    },
  };
}

Deno.test({
  name: "tryFeatures() adds the granted features when they work, and leaks no buffer",
  ignore,
  async fn() {
    using buffers = new BufferSpy();
    const { gpu } = await tried();
    assert.deepEqual([...gpu.features], [...gpu.granted]);
    assert.ok(!gpu.granted.some((name) => (name as string) === "shader-f16"));
    gpu.close();
    assert.equal(buffers.alive.size, 0);
  },
});

Deno.test({
  name: "openGpu() opens without a feature when the adapter refuses it, and reports it",
  ignore,
  async fn() {
    const all = await tried();
    all.gpu.close();
    for (const refused of all.gpu.granted) {
      const { gpu } = await tried(refusing(refused));
      const rest = all.gpu.granted.filter((name) => name !== refused);
      assert.deepEqual([...gpu.features], rest);
      // Deno does not list subgroups, so they do not count as faulty.
      const listed = (await navigator.gpu.requestAdapter())?.features.has(refused);
      assert.deepEqual(gpu.claimed, listed ? all.gpu.claimed : rest);
      gpu.close();
    }
  },
});

Deno.test({
  name: "tryFeatures() omits a feature when its result is wrong, and kernels do without",
  ignore,
  async fn() {
    const original = GPUDevice.prototype.createShaderModule;
    GPUDevice.prototype.createShaderModule = function (descriptor) {
      const code = descriptor.code.replaceAll("subgroupAdd(mine)", "mine");
      return original.call(this, { ...descriptor, code });
    };
    const resolve = GPUCommandEncoder.prototype.resolveQuerySet;
    GPUCommandEncoder.prototype.resolveQuerySet = () => {}; // a stopped clock
    try {
      const { gpu } = await tried();
      assert.deepEqual([...gpu.features], []);
      assert.equal(gpu.directives, "");
      gpu.close();
      const { features, faulty } = await measureWebGpu();
      assert.deepEqual([features, faulty], [[], gpu.claimed]);
      await using backend = await openWebGpuBackend();
      await checkNormCase(backend, { T: 3, C: 66, kind: "layer" });
    } finally {
      GPUDevice.prototype.createShaderModule = original;
      GPUCommandEncoder.prototype.resolveQuerySet = resolve;
    }
  },
});

Deno.test({
  name: "tryFeatures() enables subgroups in shaders when the device requires it",
  ignore,
  async fn() {
    const original = GPUDevice.prototype.createShaderModule;
    // As in a browser: the directive is required; but this device rejects it.
    GPUDevice.prototype.createShaderModule = function (descriptor) {
      const { code } = descriptor;
      const enabled = code.startsWith("enable subgroups;\n");
      const known = enabled ? code.slice("enable subgroups;\n".length) : code;
      const bad = !enabled && code.includes("subgroupAdd");
      return original.call(this, { ...descriptor, code: bad ? "enable is missing" : known });
    };
    try {
      const { gpu } = await tried();
      assert.equal(gpu.features.has("subgroups"), gpu.granted.includes("subgroups"));
      if (gpu.features.has("subgroups")) assert.equal(gpu.directives, "enable subgroups;\n");
      gpu.close();
    } finally {
      GPUDevice.prototype.createShaderModule = original;
    }
  },
});

Deno.test({
  name: "openGpu() requests no more than the default limits of kernels",
  ignore,
  async fn() {
    const { gpu } = await tried();
    const { limits } = gpu.device;
    assert.equal(limits.maxStorageBuffersPerShaderStage, 8);
    assert.equal(limits.maxComputeWorkgroupStorageSize, 16384);
    assert.equal(limits.maxComputeInvocationsPerWorkgroup, 256);
    gpu.close();
  },
});

Deno.test({
  name: "prepare() names the kernel when it binds too much or takes too much workgroup memory",
  ignore,
  async fn() {
    const { gpu, compiler } = await tried();
    const buffers = Array.from({ length: 9 }, () => gpu.storage(16, "staging"));
    const call = (count: number, workgroupBytes: number): ShaderCall => ({
      op: "greedy",
      workgroupBytes,
      wgsl: `
${
        buffers.slice(0, count).map((_, i) =>
          `@group(1) @binding(${i}) var<storage, read_write> b_${i}: array<f32>;`
        ).join("\n")
      }
var<workgroup> shared_numbers: array<f32, ${Math.ceil(workgroupBytes / 4)}>;
@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) lane: u32) { shared_numbers[lane] = b_0[0]; b_0[0] = shared_numbers[0]; }`,
      operands: buffers.slice(0, count).map((buffer) => ({ buffer, written: true })),
      groups: () => 1,
    });
    await compiler.prepare(call(8, 16384));
    const refused: [number, number, RegExp][] = [
      [9, 32, /^Cannot bind "greedy" on webgpu: expected at most 8 operands, got 9$/],
      [1, 16416, /^Cannot compile "greedy" .*at most 16384 bytes.*got 16416$/],
      [1, 16388, /^Cannot compile "greedy" .*at most 16384 bytes.*got 16388$/],
      [1, NaN, /^Cannot compile "greedy" .*got NaN$/],
    ];
    for (const [count, bytes, message] of refused) {
      await assert.rejects(
        compiler.prepare(call(count, bytes)),
        (error: Error) => error instanceof DeviceError && message.test(error.message),
      );
    }
    gpu.close();
  },
});

Deno.test({
  name: "writeKv() stays within eight operands when both norms have a bias and there is a table",
  ignore,
  async fn() {
    await using backend: Backend = await openWebGpuBackend();
    for (const over of ["head", "row"] as const) {
      for (const interleaved of [false, true]) {
        for (const [H, G] of [[2, 2], [6, 2]]) {
          await checkWriteKvCase(backend, {
            ...{ T: 5, H, G, D: 66, S: 9, rows: 4, position: 3, slot: 2, rotaryDim: 32 },
            interleaved,
            qNorm: { kind: "layer", over, bias: true },
            kNorm: { kind: "layer", over, bias: true },
          });
        }
      }
    }
  },
});

/** Makes matmul shuffle as if subgroups had `size` lanes, by way of workgroup memory. */
function withSubgroupsOf(size: number, code: string): string {
  return code.replaceAll("subgroupAdd(1u)", `${size}u`)
    .replaceAll("subgroupShuffleXor(", "shuffle(lane, ") + `
var<workgroup> pool: array<f32, 256>;
fn shuffle(lane: u32, v: f32, mask: u32) -> f32 {
  workgroupBarrier();
  pool[lane] = v;
  workgroupBarrier();
  return select(12345.0, pool[lane ^ mask], lane / ${size}u == (lane ^ mask) / ${size}u);
}`;
}

for (const size of [4, 8, 16, 32, 64, 128]) {
  Deno.test({
    name: `matmul() agrees with matmulJs() when subgroups have ${size} lanes`,
    ignore,
    async fn() {
      const original = GPUDevice.prototype.createShaderModule;
      let changed = 0;
      GPUDevice.prototype.createShaderModule = function (descriptor) {
        const { code, label } = descriptor;
        const shuffles = label === "matmul" && code.includes("subgroupShuffleXor");
        if (!shuffles) return original.call(this, descriptor);
        changed++;
        return original.call(this, { ...descriptor, code: withSubgroupsOf(size, code) });
      };
      const choose = Tiles.prototype.of;
      try {
        await using backend = await openWebGpuBackend({ software: false, tune: false });
        for (const tile of TILES.decode) {
          Tiles.prototype.of = () => tile;
          await checkMatmulCase(backend, { T: 1, N: 66, K: 1030, dtype: "BF16", bias: true });
        }
      } finally {
        GPUDevice.prototype.createShaderModule = original;
        Tiles.prototype.of = choose;
      }
      const { gpu } = await tried();
      assert.equal(changed >= TILES.decode.length, gpu.features.has("subgroups"), `${changed}`);
      gpu.close();
    },
  });
}

Deno.test("sampling sums by subgroups only when the device has them", () => {
  for (const shader of [sampleOneWgsl, sampleCutWgsl, sampleChooseWgsl]) {
    for (const lanes of [64, 256]) {
      const constants = { V: 65, R: 4, lanes };
      assert.match(shader({ ...constants, subgroups: true }).wgsl, /subgroupAdd/);
      assert.doesNotMatch(shader(constants).wgsl, /subgroupAdd/);
    }
  }
});

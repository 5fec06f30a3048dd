/**
 * Kernels for a GPU on adapters with subgroups of 4 to 128 lanes and without: the shaders' sums and
 * shuffles are replaced by others over workgroup memory, which take as many lanes.
 */
import assert from "node:assert/strict";
import { openWebGpuBackend, type WebGpuOptions } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { checkMatmulCase, checkNormCase } from "../kernels/twins.ts";
import { checkAttentionCase } from "../kernels/twins_attention.ts";
import { sampleTwinTests } from "../kernels/twins_sample.ts";

const ignore = await ignoreWithoutAdapter("soak/webgpu_subgroups_test.ts");

/** Lanes of the smallest subgroup that the adapter reports, and of those that shaders get. */
const SIZES = [[4, 4], [4, 64], [8, 8], [16, 16], [32, 32], [64, 64], [128, 128]] as const;

/** The platform's WebGPU, whose adapter reports subgroups of `smallest` lanes. */
function hostOf(smallest: number): WebGpuOptions["host"] {
  const gpu = {
    async requestAdapter() {
      const adapter = await navigator.gpu.requestAdapter();
      if (!adapter) return null;
      const { features, limits, info: { description } } = adapter;
      return {
        info: { description, isFallbackAdapter: false, subgroupMinSize: smallest },
        features,
        limits,
        requestDevice: (descriptor?: GPUDeviceDescriptor) => adapter.requestDevice(descriptor),
      };
    },
  };
  return { gpu } as unknown as WebGpuOptions["host"];
}

/** Functions of `type` over subgroups of `size` lanes; all lanes of a workgroup call them. */
function overMemory(type: string, size: number): string {
  return `
var<workgroup> pool_${type}: array<${type}, 256>;
fn shuffle_${type}(lane: u32, v: ${type}, mask: u32) -> ${type} {
  workgroupBarrier();
  pool_${type}[lane] = v;
  workgroupBarrier();
  return select(${type}(), pool_${type}[lane ^ mask], lane / ${size}u == (lane ^ mask) / ${size}u);
}
fn add_${type}(lane: u32, v: ${type}, lanes: u32) -> ${type} {
  workgroupBarrier();
  pool_${type}[lane] = v;
  workgroupBarrier();
  var sum = ${type}();
  let first = lane - lane % ${size}u;
  for (var i = first; i < min(first + ${size}u, lanes); i++) { sum += pool_${type}[i]; }
  return sum;
}`;
}

/** The shader with subgroups of `size` lanes, or undefined if it has none. */
function withSubgroupsOf(size: number, code: string): string | undefined {
  if (!/subgroup(Add|ShuffleXor)\(/.test(code)) return undefined;
  const lanes = /@workgroup_size\((\d+)/.exec(code)![1];
  const changed = code
    .replaceAll("subgroupAdd(1u)", `min(${size}u, ${lanes}u)`)
    .replace("fn sum_shuffled(mine: vec4f)", "fn sum_shuffled(lane: u32, mine: vec4f)")
    .replaceAll("sum_shuffled(mine)", "sum_shuffled(lane, mine)")
    .replace(
      /fn \w+\(lane: u32, (?:near: bool, )?mine: (\w+)\)[^]*?\n}/g,
      (text, type) =>
        text.replace(/subgroupAdd\((mine|sum)\)/g, `add_${type}(lane, $1, ${lanes}u)`)
          .replaceAll("subgroupShuffleXor(", `shuffle_${type}(lane, `),
    )
    .replaceAll("subgroupShuffleXor(", "shuffle_f32(lane, ");
  assert.doesNotMatch(changed, /subgroup(Add|ShuffleXor)/);
  const types = ["f32", "vec3f", "vec3u", "vec4f"].filter((type) =>
    changed.includes(`add_${type}(`) || changed.includes(`shuffle_${type}(`)
  );
  return changed + types.map((type) => overMemory(type, size)).join("");
}

const samples: ((backend: Awaited<ReturnType<typeof openWebGpuBackend>>) => Promise<void>)[] = [];
sampleTwinTests((name, run) => {
  if (name.includes("settings vary")) samples.push(run);
});

/** Attention of few keys, of splits and of many rows; a norm, a product, sampling. */
async function checkKernels(options: WebGpuOptions): Promise<void> {
  await using backend = await openWebGpuBackend({ ...options, software: false, tune: false });
  for (const D of [64, 128]) {
    const shape = { H: 4, G: 2, D, S: 300 };
    await checkAttentionCase(backend, { ...shape, T: 1, length: 70 });
    await checkAttentionCase(backend, { ...shape, T: 1, length: 290 });
    await checkAttentionCase(backend, { ...shape, T: 9, length: 40 });
  }
  await checkNormCase(backend, { T: 3, C: 66, kind: "layer" });
  await checkMatmulCase(backend, { T: 1, N: 66, K: 1030, dtype: "BF16", bias: true });
  for (const run of samples) await run(backend);
}

for (const [smallest, size] of SIZES) {
  Deno.test({
    name: `kernels agree with typed arrays when subgroups have ${size} lanes, at least ${smallest}`,
    ignore,
    async fn() {
      assert.equal(samples.length, 1);
      const original = GPUDevice.prototype.createShaderModule;
      const changed: Record<string, number> = {};
      GPUDevice.prototype.createShaderModule = function (descriptor) {
        const { label = "", code } = descriptor;
        const other = label === "trial" ? undefined : withSubgroupsOf(size, code);
        if (other) changed[label] = (changed[label] ?? 0) + 1;
        return original.call(this, { ...descriptor, code: other ?? code });
      };
      try {
        await checkKernels({ host: hostOf(smallest) });
      } finally {
        GPUDevice.prototype.createShaderModule = original;
      }
      assert.deepEqual(Object.keys(changed).sort(), ["attention", "matmul", "norm", "sample"]);
    },
  });
}

Deno.test({
  name: "kernels agree with typed arrays when the device has no subgroups",
  ignore,
  fn: () => checkKernels({ subgroups: false }),
});

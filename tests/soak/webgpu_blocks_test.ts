/** Every block format on WebGPU against its typed-array form, and quantised models. */
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { blockedDtypes } from "../kernels/twins_blocks.ts";
import { blockGpuTests } from "../kernels/twins_blocks_gpu.ts";

const ignore = await ignoreWithoutAdapter("soak/webgpu_blocks_test.ts");

for (const dtype of blockedDtypes("wgsl")) {
  for (const software of [false, true]) blockGpuTests(dtype, software, ignore);
}

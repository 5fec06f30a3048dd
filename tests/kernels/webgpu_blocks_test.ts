/** Blocked weights on WebGPU against their typed-array forms; the soak tests have every format. */
import { ignoreWithoutAdapter } from "./adapter.ts";
import { blockGpuTests } from "./twins_blocks_gpu.ts";

const ignore = await ignoreWithoutAdapter("webgpu_blocks_test.ts");

for (const dtype of ["Q8_0", "Q6_K"] as const) blockGpuTests(dtype, false, ignore);
blockGpuTests("Q4_0", true, ignore);

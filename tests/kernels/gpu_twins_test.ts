import { gpuTwinTests } from "./twins_gpu.ts";

await gpuTwinTests(false, "gpu_twins_test.ts");

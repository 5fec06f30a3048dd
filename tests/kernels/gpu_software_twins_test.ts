import { gpuTwinTests } from "./twins_gpu.ts";

await gpuTwinTests(true, "gpu_software_twins_test.ts");

import { twinTests } from "./twins.ts";
import { gpuTwinTests } from "./twins_gpu.ts";
import { sampleTwinTests } from "./twins_sample.ts";

await gpuTwinTests("gpu_twins_test.ts", (test) => {
  twinTests(test, { small: true });
  sampleTwinTests(test);
});

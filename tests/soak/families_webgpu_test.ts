import { testFamilies } from "../engine/families.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { shareDevices } from "../kernels/shared_gpu.ts";

if (!await ignoreWithoutAdapter("families_webgpu_test.ts")) {
  shareDevices();
  testFamilies("webgpu");
}

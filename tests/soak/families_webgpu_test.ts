import { testFamilies } from "../engine/families.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";

if (!await ignoreWithoutAdapter("families_webgpu_test.ts")) testFamilies("webgpu");

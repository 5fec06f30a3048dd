import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { testGoldens } from "./goldens.ts";

if (!await ignoreWithoutAdapter("golden_webgpu_test.ts")) testGoldens("webgpu");

import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { fusedTests } from "../kernels/twins_fused.ts";

fusedTests(false, await ignoreWithoutAdapter("soak/webgpu_fuse_test.ts"));

import { ignoreWithoutAdapter } from "./adapter.ts";
import { fusedTests } from "./twins_fused.ts";

fusedTests(true, await ignoreWithoutAdapter("webgpu_fuse_test.ts"));

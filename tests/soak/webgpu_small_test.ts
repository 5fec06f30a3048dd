import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { SMALL_CASES, testSmallModels } from "../kernels/small_adapters.ts";

const ignore = await ignoreWithoutAdapter("soak/webgpu_small_test.ts");
testSmallModels(SMALL_CASES.filter(([dtype, software]) => software !== (dtype === "F16")), ignore);

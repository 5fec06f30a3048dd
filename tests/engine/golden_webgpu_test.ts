import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { shareDevices } from "../kernels/shared_gpu.ts";
import { testGgufs } from "./ggufs.ts";
import { testGoldens } from "./goldens.ts";
import { testKvDtypes } from "./kv_dtypes.ts";

if (!await ignoreWithoutAdapter("golden_webgpu_test.ts")) {
  shareDevices();
  testGoldens("webgpu");
  testKvDtypes("webgpu");
  testGgufs("webgpu", { files: ["llama-q4_0.gguf", "gemma3.gguf"], cached: [true] });
}

import { GGUF_FILES, testGgufs } from "../engine/ggufs.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { shareDevices } from "../kernels/shared_gpu.ts";

testGgufs("js");
testGgufs("wasm");
// A software adapter compiles shaders for seconds per model: one family, one shape, every type.
// Families without the cache are in families_webgpu_test.ts.
const files = GGUF_FILES.filter((file) =>
  /^(llama-|whole-)/.test(file) || file === "gpt2-q4_1.gguf"
);
if (!await ignoreWithoutAdapter("gguf_test.ts")) {
  shareDevices();
  testGgufs("webgpu", { files, cached: [true] });
}

import { testGgufs } from "../engine/ggufs.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";

testGgufs("js");
testGgufs("wasm");
// Families without the cache are in families_webgpu_test.ts.
if (!await ignoreWithoutAdapter("gguf_test.ts")) testGgufs("webgpu", { cached: [true] });

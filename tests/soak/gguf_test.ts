import { testGgufs } from "../engine/ggufs.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";

testGgufs("js");
testGgufs("wasm");
if (!await ignoreWithoutAdapter("gguf_test.ts")) testGgufs("webgpu");

import { probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { testGoldens } from "./goldens.ts";

if (await probeWebGpu() || Deno.env.get("WGSLM_REQUIRE_WEBGPU") === "1") {
  testGoldens("webgpu");
} else {
  console.warn("golden_webgpu_test.ts: SKIPPED, no WebGPU adapter here");
}

import { probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { testFamilies } from "../engine/families.ts";

if (await probeWebGpu() || Deno.env.get("WGSLM_REQUIRE_WEBGPU") === "1") testFamilies("webgpu");
else console.warn("families_webgpu_test.ts: SKIPPED, no WebGPU adapter here");

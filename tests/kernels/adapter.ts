import { probeWebGpu } from "../../kernels/webgpu/backend.ts";

/**
 * Whether a file's tests of the GPU are to be ignored, which is said aloud: there is no
 * adapter, and none is required.
 */
export async function ignoreWithoutAdapter(file: string): Promise<boolean> {
  const ignore = await probeWebGpu() === null && Deno.env.get("WGSLM_REQUIRE_WEBGPU") !== "1";
  if (ignore) {
    console.warn(
      `${file}: SKIPPED, no WebGPU adapter here (WGSLM_REQUIRE_WEBGPU=1 makes that a failure)`,
    );
  }
  return ignore;
}

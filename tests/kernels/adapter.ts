import { probeWebGpu } from "../../kernels/webgpu/backend.ts";

/** Whether to ignore a file's GPU tests: no adapter, and none required. Logs a warning then. */
export async function ignoreWithoutAdapter(file: string): Promise<boolean> {
  const ignore = await probeWebGpu() === null && Deno.env.get("WGSLM_REQUIRE_WEBGPU") !== "1";
  if (ignore) {
    console.warn(
      `${file}: SKIPPED, no WebGPU adapter here (WGSLM_REQUIRE_WEBGPU=1 makes that a failure)`,
    );
  }
  return ignore;
}

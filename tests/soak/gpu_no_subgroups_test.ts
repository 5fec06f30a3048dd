/** Norms of writeKv on a device without subgroups, in all their combinations. */
import { twinTestsWithoutSubgroups } from "../kernels/twins_gpu.ts";

await twinTestsWithoutSubgroups("soak/gpu_no_subgroups_test.ts", /^writeKv\(\).*normed/);

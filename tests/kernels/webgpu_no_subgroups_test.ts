import { twinTestsWithoutSubgroups } from "./twins_gpu.ts";

await twinTestsWithoutSubgroups("webgpu_no_subgroups_test.ts", /^(norm|writeKv|sample)\(\)/, {
  small: true,
});

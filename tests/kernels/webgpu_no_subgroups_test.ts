/** Twin tests on a device without subgroups; other tests use them if the device has them. */
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { shareDevices } from "./shared_gpu.ts";
import { twinTests } from "./twins.ts";
import { attentionTwinTests } from "./twins_attention.ts";
import { sampleTwinTests } from "./twins_sample.ts";

const ignore = await ignoreWithoutAdapter("webgpu_no_subgroups_test.ts");
if (!ignore) shareDevices();

for (const register of [twinTests, attentionTwinTests, sampleTwinTests]) {
  register((name, run) => {
    if (!/^(norm|writeKv|sample)\(\)/.test(name) || name.includes("Llama")) return;
    Deno.test({
      name: `${name}, without subgroups`,
      ignore,
      async fn() {
        const software = name.startsWith("sample") ? false : undefined;
        await using backend = await openWebGpuBackend({ subgroups: false, software, tune: false });
        await run(backend);
      },
    });
  }, { small: true });
}

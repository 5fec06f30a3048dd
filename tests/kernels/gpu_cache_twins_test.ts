import { attentionTwinTests, randomTwinTest } from "./twins_attention.ts";
import { gpuTwinTests } from "./twins_gpu.ts";
import { kvTwinTests } from "./twins_kv.ts";

await gpuTwinTests("gpu_cache_twins_test.ts", (test) => {
  attentionTwinTests((name, run) => name.startsWith("attention()") || test(name, run), {
    small: true,
  });
  kvTwinTests(test, { small: true });
  randomTwinTest(test, 2); // the soak test has more
});

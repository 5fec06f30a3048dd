import { attentionTwinTests } from "./twins_attention.ts";
import { gpuTwinTests } from "./twins_gpu.ts";

await gpuTwinTests("gpu_attention_twins_test.ts", (test) => {
  attentionTwinTests((name, run) => name.startsWith("attention()") && test(name, run), {
    small: true,
  });
});

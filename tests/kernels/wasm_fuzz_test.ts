import { SYSTEM_HOST } from "../../engine/host/system.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { randomTwinTest } from "./twins_attention.ts";

// With the host, V8's flags decide the width of vectors.
randomTwinTest((name, run) => {
  Deno.test(`${name} (wasm)`, async () => {
    await using backend = await openWasmBackend({ host: SYSTEM_HOST.compute });
    await run(backend);
  });
}, 24);

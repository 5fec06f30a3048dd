import assert from "node:assert/strict";
import { nextTask } from "../../kernels/next_task.ts";
import { PATIENCE_MS } from "../patience.ts";
import { runDeno } from "../process.ts";
import { Spy } from "./spy.ts";

Deno.test("nextTask() runs a timer when it is due", async () => {
  let due = false;
  setTimeout(() => due = true, 5);
  const end = performance.now() + PATIENCE_MS;
  while (!due && performance.now() < end) await nextTask();
  assert.ok(due);
});

Deno.test("nextTask() closes every port that it opens", async () => {
  // The GC never collects an open port: 5 KiB each.
  const open = new Set<MessagePort>();
  const original = globalThis.MessageChannel;
  using spy = new Spy().on(MessagePort, "close", (port) => open.delete(port as MessagePort));
  try {
    globalThis.MessageChannel = class extends original {
      constructor() {
        super();
        open.add(this.port1).add(this.port2);
      }
    };
    for (let i = 0; i < 100; i++) await nextTask();
  } finally {
    globalThis.MessageChannel = original;
  }
  assert.deepEqual([open.size, spy.calls.close], [0, 200]);
});

Deno.test({
  name: "nextTask() lets a signal through when a built-in module was loaded before",
  ignore: Deno.build.os === "windows",
  async fn() {
    // In a separate process: the test runner's loop handles signals anyway.
    const code = `
      import { nextTask } from "${new URL("../../kernels/next_task.ts", import.meta.url)}";
      process.getBuiltinModule("node:vm");
      let got = false;
      Deno.addSignalListener("SIGUSR2", () => got = true);
      await new Promise((resolve) => setTimeout(resolve, 5));
      Deno.kill(Deno.pid, "SIGUSR2");
      // Without signals the loop would see none in any time.
      for (const end = performance.now() + 60_000; !got && performance.now() < end;) {
        for (const end = performance.now() + 20; performance.now() < end;);
        await nextTask();
      }
      console.log(got);
      Deno.exit();
    `;
    const { stdout, stderr } = await runDeno(["eval", "--ext=ts", code]);
    assert.equal(stdout, "true\n", stderr);
  },
});

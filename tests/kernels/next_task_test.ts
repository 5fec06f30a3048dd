import assert from "node:assert/strict";
import { nextTask } from "../../kernels/next_task.ts";

Deno.test("nextTask() runs a timer when it is due", async () => {
  let due = false;
  setTimeout(() => due = true, 5);
  const start = performance.now();
  while (!due && performance.now() - start < 5000) await nextTask();
  assert.ok(due);
});

Deno.test("nextTask() leaks nothing when it is called 20,000 times", async () => {
  const memoryAfter = async (count: number) => {
    for (let i = 0; i < count; i++) await nextTask();
    return Deno.memoryUsage().rss;
  };
  const before = await memoryAfter(2000);
  const grown = await memoryAfter(20_000) - before;
  assert.ok(grown < 40e6, `grew by ${grown} bytes`); // an open port takes 5 KiB: 100 MB in all
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
      for (let yields = 0; !got && yields < 15; yields++) {
        for (const end = performance.now() + 20; performance.now() < end;);
        await nextTask();
      }
      console.log(got);
      Deno.exit();
    `;
    const child = new Deno.Command(Deno.execPath(), { args: ["eval", "--ext=ts", code] });
    const { stdout, stderr } = await child.output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assert.equal(out, "true\n", err);
  },
});

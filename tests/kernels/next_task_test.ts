import assert from "node:assert/strict";
import { nextTask } from "../../kernels/next_task.ts";

Deno.test("nextTask() lets a timer have its turn that is due", async () => {
  let due = false;
  setTimeout(() => due = true, 5);
  const start = performance.now();
  while (!due && performance.now() - start < 5000) await nextTask();
  assert.ok(due);
});

Deno.test("nextTask() leaves nothing when it was called 20,000 times", async () => {
  const turns = async (count: number) => {
    for (let i = 0; i < count; i++) await nextTask();
    return Deno.memoryUsage().rss;
  };
  const before = await turns(2000);
  const grown = await turns(20_000) - before;
  assert.ok(grown < 40e6, `grew by ${grown} bytes`); // a port that stays takes 5 KiB: 100 MB
});

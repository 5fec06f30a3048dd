import assert from "node:assert/strict";

/** The watchdog as a page has it, which finds no built-in module: an instance of its own. */
async function withoutWatchdog(): Promise<typeof import("../../../engine/host/watchdog.ts")> {
  return await import(new URL("../../../engine/host/watchdog.ts?page", import.meta.url).href);
}

Deno.test("runWithin() refuses work that was too late when there is no watchdog", async () => {
  const { runWithin } = await withoutWatchdog();
  const { process } = globalThis;
  Reflect.deleteProperty(globalThis, "process");
  try {
    assert.equal(runWithin(1000, () => runWithin(1000, () => 1)), 1);
    const start = performance.now();
    const wait = () => {
      while (performance.now() < start + 20);
      return 1;
    };
    assert.throws(
      () => runWithin(10, wait),
      new Error("it does not come to an end within 0 seconds"),
    );
    // It ends with the work, since no watchdog comes.
    assert.ok(performance.now() < start + 1000);
    assert.equal(runWithin(1000, () => 2), 2);
  } finally {
    Object.assign(globalThis, { process });
  }
});

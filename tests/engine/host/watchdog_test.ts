import assert from "node:assert/strict";

/** A separate instance of the module, for a page, which has no built-in modules. */
async function withoutWatchdog(): Promise<typeof import("../../../engine/host/watchdog.ts")> {
  return await import(new URL("../../../engine/host/watchdog.ts?page", import.meta.url).href);
}

Deno.test("runWithin() refuses late work without a watchdog", async () => {
  const { runWithin } = await withoutWatchdog();
  const { process } = globalThis;
  Reflect.deleteProperty(globalThis, "process");
  try {
    assert.equal(runWithin(1000, () => runWithin(1000, () => 1)), 1);
    const { now } = performance;
    const start = now.call(performance);
    try {
      // A clock that every look at it moves.
      let looks = 0;
      performance.now = () => start + looks++;
      const wait = () => {
        while (performance.now() < start + 20);
        return 1;
      };
      assert.throws(
        () => runWithin(10, wait),
        new Error("it does not come to an end within 0 seconds"),
      );
      // It ends with the work: there is no watchdog to wait for.
      assert.ok(looks < 30, `${looks} looks at the clock`);
    } finally {
      performance.now = now;
    }
    assert.equal(runWithin(1000, () => 2), 2);
  } finally {
    Object.assign(globalThis, { process });
  }
});

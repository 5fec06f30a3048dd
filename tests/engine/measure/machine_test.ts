import assert from "node:assert/strict";
import { SYSTEM_HOST } from "../../../engine/host/system.ts";
import type { MachineActivity } from "../../../engine/host/mod.ts";
import { MachineWatch } from "../../../engine/measure/machine.ts";
import { until } from "../../patience.ts";
import { runDeno } from "../../process.ts";

const HIDDEN: MachineActivity = {
  loadAverage: null,
  cpuMhz: null,
  cpu: null,
  stolenMs: null,
  ownMs: null,
};

/** A watch over two steps of 100 ms each; the activities are read before and after each. */
async function watch(...activities: MachineActivity[]) {
  let [read, now] = [0, 0];
  const watch = new MachineWatch({ activity: () => activities[read++] }, () => now);
  for (let step = 0; step < 2; step++) {
    const result = await watch.during(() => {
      now += 100;
      return Promise.resolve(step);
    });
    assert.equal(result, step);
    now += 1000; // a gap, which does not count
  }
  return watch.report();
}

/** Two processors at a moment: busy, own and stolen ms. */
const at = (busyMs: number, ownMs: number, stolenMs: number | null = 0): MachineActivity => ({
  loadAverage: [busyMs, 2, 3],
  cpuMhz: [1000, 2000 + ownMs],
  cpu: { busyMs, processors: 2 },
  ownMs,
  stolenMs,
});

Deno.test("MachineWatch adds up other processes' CPU time over the steps alone", async () => {
  // Of 2 · 100 ms in each step: 150 busy, 120 of them own, then 90 and 70; 20 and 0 stolen.
  const report = await watch(at(0, 0), at(150, 120, 20), at(900, 130, 50), at(990, 200, 50));
  assert.deepEqual(report, {
    load_average: [990, 2, 3],
    cpu_mhz: 1600,
    other_cpu_share: 50 / 400,
    stolen_cpu_share: 20 / 400,
  });
});

Deno.test("MachineWatch reports a share below the clock's resolution as 0", async () => {
  const report = await watch(at(0, 0), at(90, 99), at(90, 99), at(180, 198));
  assert.equal(report.other_cpu_share, 0);
});

Deno.test("MachineWatch reports null for what the system hides", async () => {
  assert.deepEqual(await watch(HIDDEN, HIDDEN, HIDDEN, HIDDEN), {
    load_average: null,
    cpu_mhz: null,
    other_cpu_share: null,
    stolen_cpu_share: null,
  });
  const once = await watch(at(0, 0), at(1, 1, null), at(2, 2), at(3, 3));
  assert.deepEqual([once.stolen_cpu_share, once.other_cpu_share], [null, 0]);
});

Deno.test("the host reads CPU times that grow with this process's work", async () => {
  const before = SYSTEM_HOST.activity();
  let after = before;
  await until("CPU time of this process", () => {
    for (const end = performance.now() + 30; performance.now() < end;);
    after = SYSTEM_HOST.activity();
    return after.ownMs! > before.ownMs!;
  });
  assert.ok(after.cpu!.processors >= 1 && after.cpu!.busyMs >= before.cpu!.busyMs);
});

Deno.test("the host reads V8's flags, and hides what is not permitted without a prompt", async () => {
  const script = `
    import { SYSTEM_HOST } from ${
    JSON.stringify(new URL("../../../engine/host/system.ts", import.meta.url))
  };
    console.log(JSON.stringify([(await SYSTEM_HOST.platform()).v8Flags, SYSTEM_HOST.activity()]));`;
  const run = async (...args: string[]) => {
    const code = `data:text/typescript,${encodeURIComponent(script)}`;
    const env = { DENO_V8_FLAGS: "--max-lazy" };
    const { stdout } = await runDeno(["run", "--no-lock", "--no-check", ...args, code], { env });
    return JSON.parse(stdout);
  };
  const [flags] = await run("-A", "--v8-flags=--no-liftoff,--no-opt");
  if (Deno.build.os === "linux") {
    assert.deepEqual(flags, ["--no-liftoff", "--no-opt", "--max-lazy"]);
  }
  const { ownMs: _, ...hidden } = HIDDEN;
  const [none, { ownMs, ...activity }] = await run("--allow-import");
  assert.deepEqual([none, activity], [null, hidden]);
  assert.ok(ownMs > 0);
});

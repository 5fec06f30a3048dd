/**
 * Activity of the machine: CPU times, load average and clock at one moment.
 *
 * @module
 */
import { builtin } from "./builtin.ts";
import type { MachineActivity } from "./mod.ts";
import { runtime } from "./runtime.ts";

const os = builtin("node:os")!;

/** Milliseconds of a tick in /proc/stat: Linux reports times in units of 10 ms. */
const TICK_MS = 10;

/** Reads the activity; null for each value that the system or a missing permission hides. */
export function readActivity(): MachineActivity {
  const cpus = isGranted({ name: "sys", kind: "cpus" }) ? valueOf(() => os.cpus()) : null;
  const [load] = isGranted({ name: "sys", kind: "loadavg" }) ? [valueOf(() => os.loadavg())] : [];
  const busyMs = cpus?.map(({ times: { user, nice, sys, irq } }) => user + nice + sys + irq);
  return {
    // Windows has no load average, and reports zeros.
    loadAverage: load?.some((mean) => mean > 0) ? load as [number, number, number] : null,
    cpuMhz: clocks() ?? clocksOf(cpus?.map(({ speed }) => speed)),
    cpu: cpus?.length && busyMs
      ? { busyMs: busyMs.reduce((sum, ms) => sum + ms, 0), processors: cpus.length }
      : null,
    stolenMs: stolenMs(),
    ownMs: ownMs(),
  };
}

/** Clock of each processor, by Linux. */
function clocks(): readonly number[] | null {
  const text = readProc("/proc/cpuinfo");
  return clocksOf([...text?.matchAll(/^cpu MHz\s*:\s*([\d.]+)/gm) ?? []].map(([, mhz]) => +mhz));
}

function clocksOf(mhz: readonly number[] = []): readonly number[] | null {
  return mhz.length && mhz.every((clock) => clock > 0) ? mhz : null;
}

/** Time that a hypervisor gave to other machines, summed over the processors. */
function stolenMs(): number | null {
  // cpu user nice system idle iowait irq softirq steal …
  const ticks = readProc("/proc/stat")?.match(/^cpu((?: +\d+){8})/)?.[1].trim().split(/ +/);
  return ticks ? TICK_MS * Number(ticks[7]) : null;
}

/** CPU time of this process with all its threads. */
function ownMs(): number | null {
  const usage = valueOf(() => globalThis.process.cpuUsage());
  return usage && (usage.user + usage.system) / 1000;
}

/** A file of Linux; null elsewhere. Deno demands every permission for most of them. */
function readProc(path: string): string | null {
  if (runtime.build.os !== "linux" || !isGranted({ name: "read", path })) return null;
  return valueOf(() => runtime.readTextFileSync(path));
}

/** Whether a permission is granted. Asked first, so that no prompt interrupts a measurement. */
function isGranted(permission: Deno.PermissionDescriptor): boolean {
  return runtime.permissions.querySync(permission).state === "granted";
}

function valueOf<T>(read: () => T): T | null {
  try {
    return read();
  } catch { // not permitted after all, or not on this system
    return null;
  }
}

/** V8's flags, from the command line and from the environment; null if they cannot be read. */
export function readV8Flags(): readonly string[] | null {
  const line = readProc("/proc/self/cmdline");
  if (line === null || !isGranted({ name: "env", variable: V8_FLAGS })) return null;
  const asked = line.split("\0").filter((arg) => arg.startsWith("--v8-flags="))
    .map((arg) => arg.slice("--v8-flags=".length));
  // Node takes flags of V8 among its own; Deno has none of its own here.
  return [...globalThis.process.execArgv, ...asked, runtime.env.get(V8_FLAGS) ?? ""].flatMap((
    flags,
  ) => flags.split(/[ ,]+/))
    .filter((flag) => flag !== "");
}

/** Variable that Deno reads flags of V8 from. */
const V8_FLAGS = "DENO_V8_FLAGS";

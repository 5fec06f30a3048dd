/**
 * `devices`: what can run here, and its limits.
 *
 * @module
 */
import { probeLimits } from "../kernels/js/limits.ts";
import { measureWasm } from "../kernels/wasm/limits.ts";
import {
  type BackendName,
  DeviceError,
  measureWebGpu,
  openBackend,
  probeWebGpu,
  type WebGpuLimits,
} from "../mod.ts";
import { bytes, plural, table } from "./format.ts";
import { print, styled } from "./terminal.ts";

/** What each `--device` is. */
const DEVICES: Readonly<Record<BackendName, string>> = {
  webgpu: "the GPU",
  wasm: "the CPU, WebAssembly",
  js: "the CPU, typed arrays",
};

/** Runs the command. */
export async function devices(): Promise<void> {
  const rows: string[][] = [];
  const threads: Partial<Record<BackendName, number>> = {};
  for (const [name, about] of Object.entries(DEVICES) as [BackendName, string][]) {
    const state = await stateOf(name);
    threads[name] = state.threads;
    rows.push([name, about, state.text]);
  }
  const { total, available } = Deno.systemMemoryInfo();
  print(`${styled("bold", "Devices")}\n${table(rows)}`);
  section("This machine", [
    ["cores", String(navigator.hardwareConcurrency)],
    ["memory", `${bytes(total)}, ${bytes(available)} of it free`],
  ]);
  const adapter = await probeWebGpu();
  if (adapter) section(`webgpu: ${adapter.description}`, gpuRows(await measureWebGpu()));
  if (threads.wasm) {
    const { readBytesPerSec, flopsPerSec } = await measureWasm(threads.wasm);
    section(`wasm: ${plural(threads.wasm, "thread")}`, rates(readBytesPerSec, flopsPerSec));
  }
  const { readGBs, flopsGFs } = probeLimits();
  section("js: one thread", rates(1e9 * readGBs, 1e9 * flopsGFs));
}

/** Each is told when it is known: measuring takes a second or two. */
function section(title: string, rows: readonly string[][]): void {
  print(`\n${styled("bold", title)}\n${table(rows)}`);
}

/**
 * What was measured, by code that does nothing else; `bench --profile` holds kernels
 * against the same figures.
 */
function rates(readBytesPerSec: number, flopsPerSec: number): string[][] {
  return [
    ["reads", `${(readBytesPerSec / 1e9).toFixed(1)} GB/s`],
    ["calculates", `${(flopsPerSec / 1e9).toFixed(1)} GFLOP/s`],
  ];
}

function gpuRows(limits: WebGpuLimits): string[][] {
  const { maxBindingBytes, workgroupBytes, workgroupLanes, features, faulty } = limits;
  const works = features.join(", ") || "none of those that help";
  return [
    ["features", faulty.length ? `${works}; tried in vain: ${faulty.join(", ")}` : works],
    ["binding", `at most ${bytes(maxBindingBytes)}; larger weights are split`],
    ["workgroup", `${workgroupLanes} lanes, ${bytes(workgroupBytes)}`],
    ...rates(limits.readBytesPerSec, limits.flopsPerSec),
  ];
}

async function stateOf(name: BackendName): Promise<{ text: string; threads?: number }> {
  try {
    await using backend = await openBackend(name);
    const { description, threads } = backend;
    const withThreads = name === "webgpu" ? "" : `, ${plural(threads, "thread")}`;
    return { text: `runs models: ${description}${withThreads}`, threads };
  } catch (error) {
    if (error instanceof DeviceError) return { text: `not here: ${error.message}` };
    throw error;
  }
}

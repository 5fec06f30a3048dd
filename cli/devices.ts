/**
 * `devices`: the backends that run here, and the limits of this machine.
 *
 * @module
 */
import { findHost } from "../engine/host/choose.ts";
import type { ComputeHost } from "../kernels/host.ts";
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
import { runtime } from "../engine/host/runtime.ts";

/** The hardware of each backend. */
const DEVICES: Readonly<Record<BackendName, string>> = {
  webgpu: "the GPU",
  wasm: "the CPU, WebAssembly",
  js: "the CPU, typed arrays",
};

/** Runs the command. */
export async function devices(): Promise<void> {
  const host = (await findHost()).compute;
  const rows: string[][] = [];
  const threads: Partial<Record<BackendName, number>> = {};
  for (const [name, about] of Object.entries(DEVICES) as [BackendName, string][]) {
    const state = await stateOf(name, host);
    threads[name] = state.threads;
    rows.push([name, about, state.text]);
  }
  print(`${styled("bold", "Devices")}\n${table(rows)}`);
  section("This machine", [
    ["cores", String(navigator.hardwareConcurrency)],
    ["memory", memoryOfMachine()],
  ]);
  const adapter = await probeWebGpu();
  if (adapter) section(`webgpu: ${adapter.description}`, gpuRows(await measureWebGpu()));
  if (threads.wasm) {
    const { readBytesPerSec, flopsPerSec } = await measureWasm(threads.wasm, host);
    section(`wasm: ${plural(threads.wasm, "thread")}`, rates(readBytesPerSec, flopsPerSec));
  }
  const { readGBs, flopsGFs } = probeLimits();
  section("js: one thread", rates(1e9 * readGBs, 1e9 * flopsGFs));
}

function memoryOfMachine(): string {
  try {
    const { total, available } = runtime.systemMemoryInfo();
    return `${bytes(total)}, ${bytes(available)} of it free`;
  } catch (error) {
    if (!(error instanceof runtime.errors.NotCapable)) throw error;
    return "not known without --allow-sys=systemMemoryInfo";
  }
}

/** Prints a section as soon as it is measured, which takes a second or two. */
function section(title: string, rows: readonly string[][]): void {
  print(`\n${styled("bold", title)}\n${table(rows)}`);
}

/**
 * Measured limits, by code that does nothing else; `bench --profile` compares kernels with them.
 */
function rates(readBytesPerSec: number, flopsPerSec: number): string[][] {
  return [
    ["reads", `${(readBytesPerSec / 1e9).toFixed(1)} GB/s`],
    ["calculates", `${(flopsPerSec / 1e9).toFixed(1)} GFLOP/s`],
  ];
}

function gpuRows(limits: WebGpuLimits): string[][] {
  const { maxBindingBytes, workgroupBytes, workgroupLanes, features, faulty } = limits;
  const works = features.join(", ") || "none that kernels use";
  return [
    ["features", faulty.length ? `${works}; failed a trial: ${faulty.join(", ")}` : works],
    ["binding", `at most ${bytes(maxBindingBytes)}; larger weights are split`],
    ["workgroup", `${workgroupLanes} lanes, ${bytes(workgroupBytes)}`],
    ...rates(limits.readBytesPerSec, limits.flopsPerSec),
  ];
}

async function stateOf(
  name: BackendName,
  host: ComputeHost | undefined,
): Promise<{ text: string; threads?: number }> {
  try {
    await using backend = await openBackend(name, { host });
    const { description, threads, note } = backend;
    const withThreads = name === "webgpu" ? "" : `, ${plural(threads, "thread")}`;
    const withNote = note ? `; ${note}` : "";
    return { text: `runs models: ${description}${withThreads}${withNote}`, threads };
  } catch (error) {
    if (error instanceof DeviceError) return { text: `not here: ${error.message}` };
    throw error;
  }
}

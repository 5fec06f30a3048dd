/**
 * `devices`: what can run here, and its limits.
 *
 * @module
 */
import { probeLimits } from "../kernels/js/limits.ts";
import { type BackendName, DeviceError, measureWebGpu, openBackend, probeWebGpu } from "../mod.ts";
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
  for (const [name, about] of Object.entries(DEVICES) as [BackendName, string][]) {
    rows.push([name, about, await stateOf(name)]);
  }
  const { readGBs, flopsGFs } = probeLimits();
  const adapter = await probeWebGpu();
  const { total, available } = Deno.systemMemoryInfo();
  print(`${styled("bold", "Devices")}\n${table(rows)}
${styled("bold", "This machine, one thread of plain typed arrays")}
${
    table([
      ["cores", String(navigator.hardwareConcurrency)],
      ["memory", `${bytes(total)}, ${bytes(available)} of it free`],
      ["reads", `${readGBs.toFixed(1)} GB/s`],
      ["calculates", `${flopsGFs.toFixed(1)} GFLOP/s`],
    ])
  }${
    adapter
      ? `
${styled("bold", `The GPU, ${adapter.description}`)}
${await gpuLimits()}`
      : ""
  }`);
}

async function gpuLimits(): Promise<string> {
  const { readBytesPerSec, flopsPerSec } = await measureWebGpu();
  return table([
    ["reads", `${(readBytesPerSec / 1e9).toFixed(1)} GB/s`],
    ["calculates", `${(flopsPerSec / 1e9).toFixed(1)} GFLOP/s`],
  ]);
}

async function stateOf(name: BackendName): Promise<string> {
  try {
    await using backend = await openBackend(name);
    const { description, threads } = backend;
    return `runs models: ${description}${
      name === "webgpu" ? "" : `, ${plural(threads, "thread")}`
    }`;
  } catch (error) {
    if (error instanceof DeviceError) return `not here: ${error.message}`;
    throw error;
  }
}

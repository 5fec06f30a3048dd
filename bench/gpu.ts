/**
 * Everything to learn from a machine with a GPU, in one command of at most ten minutes, without
 * network: `gpu.json` and `gpu.md` in a folder.
 *
 *     deno run -A --no-remote --no-npm bench/gpu.ts --out DIR [--budget SECONDS]
 *         [--only facts,limits,tests,kernels,models] [--software]
 *
 *     facts    adapter, features, cost of a dispatch, a submit and a read
 *     limits   bandwidth by loads in flight, latency, multiply-adds
 *     tests    every operation and two models against typed arrays; two runs bit-equal
 *     kernels  products over weights that no cache holds, attention by keys and rows
 *     models   demo to 8 billion parameters: decode, prefill, host time
 *
 * Each stage is a process of its own, within its share of the budget, and saves its part as soon as
 * it is done: a hang, a lost device or a time-out loses one stage. On a software adapter it stops
 * at once; with `--software` it rehearses all stages with tiny shapes.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { probeWebGpu } from "../kernels/webgpu/backend.ts";
import { messageOf } from "../kernels/errors.ts";
import { facts, limits } from "./gpu/limits.ts";
import { markdown } from "./gpu/report.ts";
import { tests } from "./gpu/right.ts";
import { kernels, models } from "./gpu/speed.ts";
import type { Stage } from "./gpu/stage.ts";

/** Stages in order, and each one's share of the budget. */
const STAGES: Readonly<Record<string, { readonly stage: Stage; readonly share: number }>> = {
  facts: { stage: facts, share: 0.02 },
  limits: { stage: limits, share: 0.06 },
  tests: { stage: tests, share: 0.25 },
  kernels: { stage: kernels, share: 0.25 },
  models: { stage: models, share: 0.42 },
};

/** Milliseconds between the end of a stage's time and the end of its process. */
const GRACE_MS = 5000;

/** Milliseconds until the adapter must have answered. */
const ADAPTER_MS = 10_000;

const USAGE = `usage: bench/gpu.ts --out DIR [--budget SECONDS] [--software]
    [--only ${Object.keys(STAGES).join(",")}]`;

interface Options {
  readonly out: string;
  readonly budgetMs: number;
  readonly only: readonly string[];
  readonly software: boolean;
  /** The stage that this process runs, if it is one's. */
  readonly stage?: string;
}

/** @throws {RangeError} If a flag or its value is unknown. */
function parse(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      out: { type: "string" },
      budget: { type: "string", default: "540" },
      only: { type: "string", default: Object.keys(STAGES).join(",") },
      software: { type: "boolean", default: false },
      stage: { type: "string" },
    },
  });
  const budgetMs = 1000 * Number(values.budget);
  if (!(budgetMs > 0)) {
    throw new RangeError(`Cannot use "--budget ${values.budget}": expected seconds above 0`);
  }
  const only = values.only.split(",");
  const unknown = [...only, values.stage ?? "facts"].find((name) => !Object.hasOwn(STAGES, name));
  if (unknown !== undefined) {
    throw new RangeError(
      `Cannot use "--only ${unknown}": expected ${Object.keys(STAGES).join(", ")}`,
    );
  }
  if (!values.out) throw new RangeError("Cannot start: expected --out DIR, got none");
  return { out: values.out, budgetMs, only, software: values.software, stage: values.stage };
}

/** @throws {Error} If there is no GPU: one sentence with the next step. */
async function expectGpu(software: boolean): Promise<string> {
  const late = new Promise<never>((_, reject) => {
    const error = new Error("Cannot reach an adapter: expected one within 10 s, got no answer");
    Deno.unrefTimer(setTimeout(() => reject(error), ADAPTER_MS));
  });
  const adapter = await Promise.race([probeWebGpu(), late]);
  if (adapter && (software || !adapter.software)) return adapter.description;
  const got = adapter?.description ?? "no adapter";
  throw new Error(
    `Cannot measure a GPU: expected a hardware adapter, got ${got}; install the GPU's Vulkan ` +
      "driver, or set VK_DRIVER_FILES to its ICD file (for NVIDIA, a JSON that names " +
      "libGLX_nvidia.so.0), or rehearse with --software",
  );
}

/** A stage's process: runs it and writes its part. */
async function runStage(name: string, { out, budgetMs, software }: Options): Promise<void> {
  const end = performance.now() + budgetMs;
  const left = () => end - performance.now();
  const save = (part: Record<string, unknown>) =>
    Deno.writeTextFileSync(`${out}/${name}.json`, JSON.stringify(part));
  save(await STAGES[name].stage({ tiny: software, left, save, before: readParts(out) }));
  Deno.exit(0); // a device that hangs keeps no process alive
}

function readParts(out: string): Record<string, unknown> {
  const parts: Record<string, unknown> = {};
  for (const name of Object.keys(STAGES)) {
    try {
      parts[name] = JSON.parse(Deno.readTextFileSync(`${out}/${name}.json`));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) parts[name] = { error: messageOf(error) };
    }
  }
  return parts;
}

/** Starts a stage's process; returns what went wrong, if anything. */
async function start(name: string, options: Options): Promise<string | undefined> {
  const { out, budgetMs, software } = options;
  const seconds = STAGES[name].share * budgetMs / 1000;
  const flags = ["--out", out, "--budget", `${seconds}`, ...software ? ["--software"] : []];
  const script = new URL(import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-remote", "--no-npm", script, "--stage", name, ...flags],
    stderr: "piped",
    stdout: "null",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), 1000 * seconds + GRACE_MS);
  const { success, signal, stderr } = await child.output();
  clearTimeout(timer);
  if (success) return undefined;
  if (signal) return `ended by ${signal} after ${seconds} s`;
  return new TextDecoder().decode(stderr).trim().slice(-500);
}

async function runAll(options: Options): Promise<void> {
  const { out, only, software } = options;
  const adapter = await expectGpu(software);
  Deno.mkdirSync(out, { recursive: true });
  for (const name of only) {
    try {
      Deno.removeSync(`${out}/${name}.json`); // of an earlier run
    } catch { /* there is none */ }
    const started = performance.now();
    const error = await start(name, options);
    if (error) {
      const part = { ...readParts(out)[name] as Record<string, unknown>, error };
      Deno.writeTextFileSync(`${out}/${name}.json`, JSON.stringify(part));
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.error(`${name}: ${error ?? "done"} (${seconds} s)`);
    const report = {
      schema: 1,
      timestamp: new Date().toISOString(),
      deno: Deno.version,
      os: Deno.build.os,
      cores: navigator.hardwareConcurrency,
      adapter,
      tiny: software,
      ...readParts(out),
    };
    Deno.writeTextFileSync(`${out}/gpu.json`, JSON.stringify(report, null, 1) + "\n");
    Deno.writeTextFileSync(`${out}/gpu.md`, markdown(report));
  }
  console.log(Deno.readTextFileSync(`${out}/gpu.md`));
}

try {
  const options = parse(Deno.args);
  await (options.stage ? runStage(options.stage, options) : runAll(options));
} catch (error) {
  const isUsage = error instanceof RangeError || error instanceof TypeError;
  console.error(isUsage ? `${messageOf(error)}\n${USAGE}` : messageOf(error));
  Deno.exit(isUsage ? 2 : 1);
}

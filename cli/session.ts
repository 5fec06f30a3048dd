/**
 * Model selection, settings and loading, shared by the commands.
 *
 * @module
 */
import {
  type Config,
  type Device,
  DeviceError,
  loadConfig,
  type LoadOptions,
  type Model,
  probeWebGpu,
} from "../mod.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { type LoadCheck, loadChecked } from "../engine/load.ts";
import { type Given, UsageError } from "./flags.ts";
import { duration, plural } from "./format.ts";
import type { Invocation } from "./parse.ts";
import type { Progress } from "./progress.ts";
import { note, noteOnce, say } from "./terminal.ts";
import { runtime } from "../engine/host/runtime.ts";

/** The model that the arguments name. */
export interface Chosen {
  readonly source: string | { config: Record<string, unknown>; seed?: number };
  /** Its name in reports. */
  readonly id: string;
  /** Its source in reports. */
  readonly origin: "local" | "hf";
  /** Whether it is the bundled demo, the only model with a default prompt. */
  readonly isDemo?: boolean;
}

/** Reads `--config`, if it was given. */
export async function readSettings(given: Given): Promise<Config> {
  const config = given.config === undefined
    ? { generation: {}, warnings: [] }
    : await loadConfig(given.config);
  config.warnings.forEach(note);
  return config;
}

/**
 * The model that the arguments name, or the demo.
 * @throws {UsageError} If they name none and there is no demo.
 * @throws {Error} If the path does not exist and may be a repository of the hub.
 */
export function chooseModel({ command, model, given }: Invocation, config?: Config): Chosen {
  if (given["random-weights"]) {
    if (!config?.model) {
      throw new Error(
        `Cannot make a model: expected a section [model] in "${given.config}", ` +
          "which --random-weights takes its shape from",
      );
    }
    // LabCore's files do not name the family.
    const shape = { family: "labcore", ...config.model };
    const seed = given.seed ?? config.generation.seed;
    return { source: { config: shape, seed }, id: `random:${given.config}`, origin: "local" };
  }
  const hub = given.source === "hf";
  const repository = given["repo-id"] ?? (hub ? model : undefined);
  if (hub && repository === undefined) {
    throw new UsageError("--source hf needs a model: name one with --repo-id OWNER/NAME");
  }
  const path = repository === undefined
    ? model ?? given.checkpoint
    : `hf:${repository.replace(/^hf:/, "")}`;
  if (path?.startsWith("hf:")) return { source: path, id: path.slice(3), origin: "hf" };
  if (path !== undefined) {
    refuseRepository(path);
    return { source: path, id: path, origin: "local", isDemo: isDemo(path) };
  }
  const demo = demoFolder();
  if (demo !== null) return { source: demo, id: "demo", origin: "local", isDemo: true };
  throw new UsageError(
    `${command} needs a model, since the demo is missing: name one with --checkpoint PATH`,
  );
}

/** The bundled checkpoint; it is in a clone and not in the published package. */
function demoFolder(): string | null {
  const url = new URL("../bench/demo/config.json", import.meta.url);
  if (url.protocol !== "file:") return null;
  // A URL has its own spelling of blanks, and of drives.
  const path = decodeURIComponent(url.pathname).replace(/^\/([A-Za-z]:)/, "$1");
  return isMissing(path) ? null : path.replace(/\/config\.json$/, "");
}

/** Whether there is nothing at a path; false without permission to look. */
function isMissing(path: string): boolean {
  try {
    runtime.statSync(path);
    return false;
  } catch (error) {
    return error instanceof runtime.errors.NotFound;
  }
}

/** Whether a path leads to the demo. Looks there only for a folder of its name. */
function isDemo(path: string): boolean {
  if (!/(^|[/\\])demo[/\\]*$/.test(path)) return false;
  const demo = demoFolder();
  try {
    return demo !== null && runtime.realPathSync(path) === runtime.realPathSync(demo);
  } catch { // missing, or not permitted
    return false;
  }
}

/** @throws {Error} If a path is missing and looks like OWNER/NAME. */
function refuseRepository(path: string): void {
  const isName = /^\w[\w.-]*\/\w[\w.-]*$/.test(path) &&
    !/\.(safetensors|pt|pth|ckpt|bin|json|gguf)$/.test(path);
  if (!isName || !isMissing(path)) return;
  throw new Error(
    `Cannot open "${path}": there is no such file or folder; ` +
      `name a model of the hub hf:${path}`,
  );
}

/**
 * The device to load on. `cuda` asks for a GPU, so a software adapter, which is slower than the
 * CPU's own backend, does not do (the demo: 158 tokens per second against 2022).
 * @throws {DeviceError} If `--strict` forbids the CPU.
 */
export async function chooseDevice(
  given: Pick<Given, "device" | "strict">,
): Promise<Device> {
  const { device = DEFAULTS.device, strict } = given;
  if (device !== "cuda" && device !== "webgpu") return device;
  const adapter = await probeWebGpu();
  if (!adapter?.software) return "webgpu";
  if (device === "webgpu") {
    noteOnce(`${adapter.description}, is slow: --device cpu is faster`);
    return device;
  }
  const sentence = `expected a GPU, got ${adapter.description}; --device webgpu runs on it`;
  if (strict) throw new DeviceError(`Cannot use --device cuda: ${sentence}`);
  note(`falling back to the CPU: ${sentence}`);
  return "cpu";
}

/** Opens a model; on the CPU if the device that was asked for is missing. */
export async function openModel(
  { source }: Chosen,
  given: Given,
  { generation: { deterministic }, model: config }: Config,
  progress: Progress,
  signal: AbortSignal,
  check?: LoadCheck,
): Promise<Model> {
  const device = await chooseDevice(given);
  const options: LoadOptions = {
    device,
    dtype: given.dtype,
    activations: given.activations,
    kvDtype: given["kv-dtype"],
    onProgress: progress.load,
    signal,
    ...given.threads !== undefined && { threads: given.threads },
    ...(given["no-tune"] || deterministic) && { tune: false },
    ...given.context !== undefined && { contextLength: given.context },
    ...given.tokenizer !== undefined && { tokenizer: given.tokenizer },
    ...given.meta !== undefined && { meta: given.meta },
    ...config && typeof source === "string" && { config },
    ...given.lora && { adapters: given.lora },
    ...hubOptions(given),
  };
  let model: Model;
  try {
    model = await loadChecked(source, options, check);
  } catch (error) {
    if (!(error instanceof DeviceError) || given.strict) throw error;
    // A failure of the CPU has no fallback.
    const onGpu = device === "webgpu" ||
      device === "auto" && (await probeWebGpu())?.software === false;
    if (!onGpu) throw error;
    note(`falling back to the CPU: ${error.message}`);
    model = await loadChecked(source, { ...options, device: "cpu" }, check);
  }
  model.notes.forEach(noteOnce);
  const { threads } = model.backend;
  const processors = navigator.hardwareConcurrency;
  if (threads > processors) {
    noteOnce(
      `${threads} threads wait for ${
        plural(processors, "processor")
      }: a smaller --threads is faster`,
    );
  }
  return model;
}

/** Options of the hub. */
export function hubOptions(given: Given): Pick<LoadOptions, "revision" | "offline"> {
  const revision = given["repo-revision"];
  return { ...revision !== undefined && { revision }, ...given.offline && { offline: true } };
}

/** Two lines on a loaded model and its device. */
export function sayModel(model: Model, id: string): void {
  const { nLayer, nHead, nEmbd, vocabSize } = model.config;
  const { name, threads, description } = model.backend;
  say(
    `${id}: ${(model.parameters / 1e6).toFixed(3)} M parameters in ${model.dtype} ` +
      `(${nLayer} layers, ${nHead} heads, ${nEmbd} wide, ${vocabSize} ids), ` +
      `context ${model.contextLength}`,
  );
  say(
    `${name} on ${description}, ${plural(threads, "thread")}; loaded in ${duration(model.loadMs)}`,
  );
}

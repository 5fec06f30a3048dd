/**
 * What the commands have in common: which model is meant, its settings, and opening it.
 *
 * @module
 */
import {
  type Config,
  DeviceError,
  loadConfig,
  loadModel,
  type LoadOptions,
  type Model,
  probeWebGpu,
} from "../mod.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { type Given, UsageError } from "./flags.ts";
import { duration, plural } from "./format.ts";
import type { Invocation } from "./parse.ts";
import type { Progress } from "./progress.ts";
import { note, say } from "./terminal.ts";

/** A model that is meant: where it is, and what reports call it. */
export interface Chosen {
  readonly source: string | { config: Record<string, unknown>; seed?: number };
  readonly id: string;
  /** Where it is from, as reports tell it. */
  readonly origin: "local" | "hf";
}

/** Reads `--config`, where it was given. */
export async function readSettings(given: Given): Promise<Config> {
  const config = given.config === undefined
    ? { generation: {}, warnings: [] }
    : await loadConfig(given.config);
  config.warnings.forEach(note);
  return config;
}

/**
 * The model that the command line names, or the demo.
 * @throws {UsageError} when it names none and there is no demo.
 */
export function chooseModel({ command, model, given }: Invocation, config?: Config): Chosen {
  if (given["random-weights"]) {
    if (!config?.model) {
      throw new Error(
        `Cannot make a model: expected a section [model] in "${given.config}", ` +
          "which --random-weights takes its shape from",
      );
    }
    // LabCore's own files do not say whose shape it is.
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
  if (path !== undefined) return { source: path, id: path, origin: "local" };
  const demo = demoFolder();
  if (demo === null) {
    throw new UsageError(
      `${command} needs a model, since the demo is not here: name one with --checkpoint PATH`,
    );
  }
  return { source: demo, id: "demo", origin: "local" };
}

/**
 * The checkpoint that comes with the source; it is in a checkout and not in the published package.
 */
function demoFolder(): string | null {
  const url = new URL("../bench/demo/config.json", import.meta.url);
  if (url.protocol !== "file:") return null;
  // A URL has its own spelling of blanks, and of drives.
  const path = decodeURIComponent(url.pathname).replace(/^\/([A-Za-z]:)/, "$1");
  try {
    Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  return path.replace(/\/config\.json$/, "");
}

/** Opens a model; on the CPU where the device that was asked for is not there. */
export async function openModel(
  { source }: Chosen,
  given: Given,
  { generation: { deterministic }, model: config }: Config,
  progress: Progress,
  signal: AbortSignal,
): Promise<Model> {
  const device = given.device === "cuda" ? "webgpu" : given.device ?? DEFAULTS.device;
  const options: LoadOptions = {
    device,
    dtype: given.dtype,
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
    model = await loadModel(source, options);
  } catch (error) {
    if (!(error instanceof DeviceError) || given.strict) throw error;
    // From the processor to the processor there is nothing to fall back to.
    const onGpu = device === "webgpu" ||
      device === "auto" && (await probeWebGpu())?.software === false;
    if (!onGpu) throw error;
    note(`falling back to the CPU: ${error.message}`);
    model = await loadModel(source, { ...options, device: "cpu" });
  }
  model.notes.forEach(note);
  const { threads } = model.backend;
  const processors = navigator.hardwareConcurrency;
  if (threads > processors) {
    note(
      `${threads} threads wait for ${
        plural(processors, "processor")
      }: a smaller --threads is faster`,
    );
  }
  return model;
}

/** What the flags say of the hub. */
export function hubOptions(given: Given): Pick<LoadOptions, "revision" | "offline"> {
  const revision = given["repo-revision"];
  return { ...revision !== undefined && { revision }, ...given.offline && { offline: true } };
}

/** One line on the model that was opened. */
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

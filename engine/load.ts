/**
 * Model loading: options → files → architecture → memory estimate → upload. A `LoadPlan` is
 * computed once, before any weight is read; `loadModel` carries it out, `describeCheckpoint` and
 * `inspect` show it.
 *
 *     source ─locate─▶ config.json ─readArchitecture─▶ Architecture ─specTree─▶ specs
 *       │                                   ▲                                  │
 *       │                 bounds its layers │                    names, shapes ▼
 *       └──▶ weights ─openWeights─▶ Checkpoint ─────────────────────▶ WeightSource
 *                                                                          │
 *     options ─contextLength─▶ S ┐                                         │
 *     backend ─prefillRows───▶ T ┴──▶ estimateMemory ◀─────────────────────┤
 *                                          │                               │
 *     LoadPlan = all of the above          ▼                               ▼
 *                              fitMemory, reserve ───────────────▶ uploadWeights ─▶ Runner, Model
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import { openBackend } from "../kernels/mod.ts";
import { isOutOfMemory } from "../kernels/errors.ts";
import { collectGarbage } from "../kernels/memory.ts";
import { dtypeOf, type WeightDtype } from "../kernels/formats/mod.ts";
import {
  type Architecture,
  gptConfigOf,
  isGptConfig,
  readArchitecture,
  readGguf,
  readOutline,
} from "./architecture/mod.ts";
import {
  type Checkpoint,
  openGgufParts,
  openWeights,
  type TensorInfo,
} from "./checkpoint/checkpoint.ts";
import { adapterIn, locate } from "./checkpoint/locate.ts";
import { DEFAULTS } from "./defaults.ts";
import { CheckpointError } from "./errors.ts";
import { isPage } from "./host/builtin.ts";
import { findHost } from "./host/choose.ts";
import { beside, exists, readJsonObject } from "./host/files.ts";
import { cacheNotes, checkOptions, checkSource, contextOf } from "./load_options.ts";
import type { LoadOptions, PickedFolder, RandomModel } from "./load_options.ts";
import { estimateMemory, fitMemory, type MemoryEstimate, USUAL_CHUNK } from "./memory.ts";
import { Model, type PlainRunner } from "./model.ts";
import { Runner } from "./runner.ts";
import { findTokenizer } from "./tokenizer/load.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import { adapt, type Adapted, type AdapterOptions, baseOf, openAdapters } from "./weights/lora.ts";
import {
  checkpointWeights,
  countParameters,
  type Holds,
  mainDtype,
  randomWeights,
  uploadWeights,
  weightBytes,
  type WeightSource,
} from "./weights/mod.ts";
import { Yielder } from "./yielder.ts";

export type { LoadOptions, LoadProgress, PickedFolder, RandomModel } from "./load_options.ts";

/** All decisions about a load, made before any weight is read. */
export interface LoadPlan {
  /** Names the model in messages. */
  readonly id: string;
  readonly architecture: Architecture;
  /** Every tensor, its dtype on the backend, and a reader of its rows. */
  readonly source: WeightSource;
  /** Number of learned parameters; tied ones count once. */
  readonly parameters: number;
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** Rows of a prefill chunk, and bytes by class. */
  readonly memory: MemoryEstimate;
  /** Choices and omissions made while reading the files, a sentence each. */
  readonly notes: readonly string[];
}

/** The open files of a model. */
interface OpenFiles extends Disposable {
  /** The source, as the caller named it. */
  readonly id: string;
  /** Folder of config.json and the tokenizer. */
  readonly folder: string;
  readonly architecture: Architecture;
  /** The base checkpoint, with the tensors that adapters replace. */
  readonly checkpoint: Checkpoint;
  /** Sums that adapters add to tensors, by tensor name. */
  readonly deltas: Adapted["deltas"];
  readonly notes: readonly string[];
}

/**
 * Loads a model onto a backend.
 *
 * @param source `hf:owner/name`, `hf:owner/name:Q4_K_M` or `hf:owner/name/file.gguf`, a folder in
 *   Hugging Face layout, a `.safetensors` file beside its config.json, a `.gguf` file, a PyTorch
 *   checkpoint (`.pt`), a LoRA adapter's folder, or a shape to fill with random weights. In a page:
 *   the URL of such a folder or file, files or a folder that the visitor chose, `hf:`, or a shape;
 *   the model then runs in a worker.
 * @param options backend, dtype, context length, tokenizer, adapters, hub access and progress.
 * @returns a model; dispose of it to free its memory.
 * @throws {CheckpointError} If a file is missing, damaged, or of an unsupported format or family.
 * @throws {DeviceError} If the device is missing or too small.
 * @throws {TypeError} If an option is unknown, or it or the source is of the wrong type.
 * @throws {RangeError} If an option is out of range.
 * @example
 * ```ts
 * import { loadModel } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo", { device: "cpu", dtype: "F16" });
 * console.log(model.config.nLayer, model.contextLength); // 6 512
 * ```
 */
export async function loadModel(
  source: string | RandomModel | URL | readonly File[] | PickedFolder,
  options: LoadOptions = {},
): Promise<Model> {
  if (isPage()) return await (await import("./page/remote.ts")).loadRemote(source, options);
  return await loadChecked(source as string | RandomModel, options);
}

/** A model about to be uploaded, for a check that may refuse it before its weights are read. */
export interface Loadable {
  readonly architecture: Architecture;
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** The tokenizer, or a sentence on why there is none. */
  readonly tokenizer: Tokenizer | string;
  /** Estimated bytes of the run. */
  readonly memory: Pick<MemoryEstimate, "total">;
  /** The backend that it is loaded onto. */
  readonly backend: Pick<Backend, "threads" | "onGpu" | "software">;
}

/** Checks a model before its weights are read; throws to refuse it. */
export type LoadCheck = (model: Loadable) => void;

/** As `loadModel`, with a check before the upload. */
export async function loadChecked(
  source: string | RandomModel,
  options: LoadOptions,
  check?: LoadCheck,
  start: number = performance.now(),
): Promise<Model> {
  checkSource(source, true);
  checkOptions(options);
  const { device = DEFAULTS.device, threads, tune, activations, signal } = options;
  signal?.throwIfAborted();
  // The backend comes first, so that a missing device costs no download.
  const host = await findHost();
  for (let mostRows = Infinity;; mostRows = USUAL_CHUNK) {
    const backend = await openBackend(device, {
      threads,
      tune,
      activations,
      store: host.tiles,
      host: host.compute,
    });
    try {
      const { vocabSize, model } = await loadOnto(backend, source, options, mostRows, check);
      if (vocabSize > MANY_TOKENS) collectGarbage();
      return model(performance.now() - start);
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      // Memory was free when it was checked, but is not any more: once more, with fewer rows.
      if (!isOutOfMemory(error) || mostRows === USUAL_CHUNK) throw error;
    }
  }
}

/** Vocabulary whose metadata leaves garbage worth collecting: 20 MiB of 49,152 tokens. */
const MANY_TOKENS = 10_000;

/** Loads a model; it is made by a call, before which the contents of its files are garbage. */
async function loadOnto(
  backend: Backend,
  source: string | RandomModel,
  options: LoadOptions,
  mostRows: number,
  check?: LoadCheck,
): Promise<{ vocabSize: number; model: (loadMs: number) => Model }> {
  using files = typeof source === "string" ? await openFiles(source, options) : null;
  const plan = await planLoad(files ?? source as RandomModel, options, backend);
  const chunk = await reserve(backend, plan, mostRows);
  const tokenizer = await pickTokenizer(plan, files, options);
  check?.({ ...plan, tokenizer, backend });
  const onBytes = progressOf(plan, files?.checkpoint.path, options);
  const runner = await openRunner(backend, plan, chunk, onBytes);
  const { id, architecture, parameters, memory: { chunk: usual } } = plan;
  const fewer = runner.chunk < usual
    ? [`Prefill takes ${runner.chunk} rows at a time: ${usual} do not fit the device's memory.`]
    : [];
  const facts = {
    id,
    dtype: mainDtype(plan.source),
    parameters,
    notes: [...backend.note ? [backend.note] : [], ...plan.notes, ...fewer],
    openPlain: (contextLength: number, signal?: AbortSignal) =>
      openPlain(source, { ...options, contextLength, signal }),
  };
  const model = (loadMs: number) =>
    new Model(backend, architecture, runner, tokenizer, { ...facts, loadMs });
  return { vocabSize: architecture.vocabSize, model };
}

/** Prepares a backend for a plan; returns the rows of a prefill chunk, at most `mostRows`. */
async function reserve(backend: Backend, plan: LoadPlan, mostRows = Infinity): Promise<number> {
  const most = Math.min(mostRows, plan.memory.chunk);
  const memory = await fitMemory(backend, { ...plan, memory: plan.memory.with({ chunk: most }) });
  await backend.reserve?.(plan.id, memory.total, memory.classes.weights);
  return memory.chunk;
}

/** Uploads the weights of a plan and records the passes. */
async function openRunner(
  backend: Backend,
  plan: LoadPlan,
  chunk: number,
  onBytes: (count: number) => Promise<void>,
): Promise<Runner> {
  const { id, architecture, contextLength: slots, memory: { kvDtype } } = plan;
  const weights = await uploadWeights(backend, architecture, plan.source, slots + 1, onBytes);
  const runner = await Runner.create(backend, architecture, weights, { id, slots, chunk, kvDtype });
  // A device reports that an allocation failed with the next read.
  if (chunk > USUAL_CHUNK) await backend.read(runner.buffers.sampling.counter);
  return runner;
}

/** Opens the same weights once more, on typed arrays and without a tokenizer. */
async function openPlain(
  source: string | RandomModel,
  { onProgress: _, ...options }: LoadOptions,
): Promise<PlainRunner> {
  const backend = await openBackend("js");
  try {
    // Offline: the first load has downloaded every file.
    using files = typeof source === "string"
      ? await openFiles(source, { ...options, offline: true })
      : null;
    const plan = await planLoad(files ?? source as RandomModel, options, backend);
    const chunk = await reserve(backend, plan);
    const runner = await openRunner(backend, plan, chunk, progressOf(plan, undefined, options));
    return { runner, [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose]() };
  } catch (error) {
    await backend[Symbol.asyncDispose]();
    throw error;
  }
}

/** Contents of a checkpoint, read without its weights. */
export interface CheckpointDescription {
  /** Shape and conventions of the model. */
  readonly architecture: Architecture;
  /** Number of learned parameters; tied ones count once. */
  readonly parameters: number;
  /** Every tensor of the file. */
  readonly tensors: readonly TensorInfo[];
  /** Metadata of the file, by key; see `Checkpoint.metadata`. */
  readonly metadata: Checkpoint["metadata"];
  /** Number of tokens that the cache would hold. */
  readonly contextLength: number;
  /** Bytes that a run would take on the CPU. */
  readonly memory: MemoryEstimate;
  /** Choices and omissions made while reading the files, a sentence each. */
  readonly notes: readonly string[];
}

/**
 * Describes a checkpoint: reads and checks everything but the weights' bytes. Those
 * of a type that is widened to F16 are read too, since F16 may not hold them.
 *
 * @param source as of `loadModel`, random weights excepted.
 * @param options context length, dtype, adapters and hub access.
 * @throws {CheckpointError} If a file is missing, damaged, or of an unsupported format or family.
 * @throws {TypeError} If an option is unknown, or it or the source is of the wrong type.
 * @throws {RangeError} If an option is out of range.
 * @example
 * ```ts
 * import { describeCheckpoint } from "@wgslm/wgslm";
 *
 * const { parameters, memory } = await describeCheckpoint("bench/demo", { contextLength: 128 });
 * console.log(`${parameters} parameters, ${memory.total} bytes at run time`);
 * ```
 */
export async function describeCheckpoint(
  source: string,
  options: Omit<LoadOptions, "device" | "threads" | "tokenizer" | "meta"> = {},
): Promise<CheckpointDescription> {
  checkSource(source, false);
  checkOptions(options);
  using files = await openFiles(source, options);
  const plan = await planLoad(files, options);
  const { architecture, parameters, contextLength, memory, notes } = plan;
  const { checkpoint } = files;
  return {
    architecture,
    parameters,
    tensors: checkpoint.tensors(),
    metadata: checkpoint.metadata,
    contextLength,
    memory,
    notes,
  };
}

/**
 * Decides how a model is loaded.
 * @param backend the backend to run on; without it, a processor that adds no scratch.
 */
async function planLoad(
  from: OpenFiles | RandomModel,
  { dtype, kvDtype = DEFAULTS.kvDtype, contextLength: slots }: LoadOptions,
  backend?: Backend,
): Promise<LoadPlan> {
  const asked = dtype ?? DEFAULTS.dtype;
  const kept = asked === "auto" ? asked : dtypeOf(asked);
  const { id, architecture, source, notes } = "checkpoint" in from
    ? await planFiles(from, kept, backend?.holds)
    : planRandom(from, kept, backend?.holds);
  const contextLength = contextOf(architecture, slots);
  return {
    id,
    architecture,
    source,
    parameters: countParameters(source.specs),
    contextLength,
    memory: estimateMemory(architecture, source, { contextLength, kvDtype, backend }),
    notes: [...notes, ...cacheNotes(kvDtype, architecture.headDim)],
  };
}

async function planFiles(files: OpenFiles, dtype: WeightDtype | "auto", holds?: Holds) {
  const { id, checkpoint, deltas } = files;
  const source = await checkpointWeights(checkpoint, files.architecture, dtype, deltas, holds);
  const { architecture } = source;
  return { id, architecture, source, notes: [...files.notes, ...source.notes] };
}

function planRandom(
  { config, seed = 0 }: RandomModel,
  wanted: WeightDtype | "auto",
  holds?: Holds,
) {
  const architecture = readArchitecture(config, "config");
  const source = randomWeights(architecture, seed, wanted === "auto" ? "F32" : wanted, holds);
  return { id: "random weights", architecture, source, notes: source.notes };
}

/** Opens the files that a source names; an adapter's folder opens its base and the adapter. */
async function openFiles(source: string, options: LoadOptions): Promise<OpenFiles> {
  const { adapters = [], ...hub } = options;
  const adapter = await adapterIn(source);
  if (!adapter) return await openBase(source, adapters, hub);
  const { path, note } = adapter;
  const files = await openBase(await baseOf(path), [{ path }, ...adapters], hub);
  return { ...files, id: source, notes: [...note ? [note] : [], ...files.notes] };
}

/** Opens a model, which is no adapter, with adapters to merge into it. */
async function openBase(
  source: string,
  adapters: readonly AdapterOptions[],
  hub: LoadOptions,
): Promise<OpenFiles> {
  // Checked before the weights, so that an unknown family costs no download of them.
  const { weights, folder, note } = await locate(source, hub, {
    beforeWeights: async (folder) => void readOutline(...await readConfig(folder, source)),
    beforeGguf: async (parts) => void await readGguf(await openGgufParts(parts)),
  });
  using opened = new DisposableStack();
  const base = opened.use(await openWeights(weights, true));
  const architecture = base.format === "gguf"
    ? await readGguf(base)
    : await readConfigured(base, folder, weights, hub.config);
  const added = (await openAdapters(adapters)).map((adapter) => opened.use(adapter));
  const { checkpoint, deltas } = await adapt(base, architecture, added);
  const files = opened.move();
  return {
    id: source,
    folder,
    architecture,
    checkpoint,
    deltas,
    notes: [...note ? [note] : [], ...base.notes ?? []],
    [Symbol.dispose]: () => files.dispose(),
  };
}

/** Reads the architecture from the configuration of a model. */
async function readConfigured(
  base: Checkpoint,
  folder: string,
  weights: string,
  given?: Readonly<Record<string, unknown>>,
): Promise<Architecture> {
  const [config, where] = await configOf(base, folder, weights, given);
  return readArchitecture(config, where, { path: base.path, tensors: base.tensors().length });
}

/**
 * Finds the configuration: in the checkpoint, in the config.json beside it, or in the options. For
 * a plain state dict of nanoGPT, the tensors' shapes give the rest. A config.json wins over a
 * configuration that was only recognised in the checkpoint by its keys.
 */
async function configOf(
  checkpoint: Checkpoint,
  folder: string,
  weights: string,
  given?: Readonly<Record<string, unknown>>,
): Promise<[config: Record<string, unknown>, path: string]> {
  const { config, configIsGuess } = checkpoint;
  const isThere = await exists(beside(folder, "config.json"));
  if (config && !(configIsGuess && isThere)) return [config, weights];
  if (isThere) return await readConfig(folder, weights);
  const shape = gptConfigOf(checkpoint.tensors());
  if (shape && given?.n_head !== undefined) return [{ ...shape, ...given }, weights];
  if (given && !shape) return [{ ...given }, weights];
  if (!shape) return await readConfig(folder, weights);
  throw new CheckpointError(
    `Cannot open "${weights}": expected the number of heads, which no tensor shows; ` +
      "put n_head into a config.json beside it, or into [model] of --config",
  );
}

/** Reads the configuration in the files beside the weights; returns its path too. */
async function readConfig(
  folder: string,
  weights: string,
): Promise<[config: Record<string, unknown>, path: string]> {
  const path = beside(folder, "config.json");
  if (!await exists(path)) {
    throw new CheckpointError(
      `Cannot open "${weights}": expected a config.json beside it, or a model_config within`,
    );
  }
  const config = await readJsonObject(path);
  // nanoGPT's GPTConfig, saved as JSON, names no family.
  const isGpt = isGptConfig((key) => Object.hasOwn(config, key));
  if (config.model_type === undefined && isGpt) {
    return [{ ...config, model_type: "nanogpt" }, path];
  }
  const generation = beside(folder, "generation_config.json");
  // The end-of-text ids that the model's authors generate with.
  const { eos_token_id: eos } = await exists(generation) ? await readJsonObject(generation) : {};
  return [eos == null ? config : { ...config, eos_token_id: eos }, path];
}

/** The tokenizer, or a sentence on why there is none. */
async function pickTokenizer(
  { id, architecture: { family, vocabSize } }: LoadPlan,
  files: OpenFiles | null,
  { tokenizer: kind, meta }: LoadOptions,
): Promise<Tokenizer | string> {
  const { format, path, metadata } = files?.checkpoint ?? {};
  const found = await findTokenizer({
    folder: files?.folder,
    gguf: format === "gguf" ? { metadata: metadata!, path: path! } : undefined,
    record: files?.checkpoint.tokenizer,
    nanogpt: family === "nanogpt" ? { dataset: files?.checkpoint.dataset, vocabSize } : undefined,
    meta,
    kind,
  });
  if (typeof found === "string") {
    if (kind) throw new CheckpointError(found);
    return found;
  }
  // A model's own tokenizer.json may list more tokens than the embedding has rows, as in Gemma 3
  // and many fine-tunes; ids beyond the rows are refused when they are used.
  const isOwn = kind !== "bpe" && meta === undefined && family !== "nanogpt" &&
    files?.checkpoint.tokenizer === undefined;
  if (found.vocabSize > vocabSize && !isOwn) {
    throw new CheckpointError(
      `Cannot load "${id}": expected a vocabulary of at most ${vocabSize}, got ${found.vocabSize}${
        meta ? ` in "${meta}"` : ""
      }`,
    );
  }
  return found;
}

/** After each chunk of an upload: reports progress, yields, and throws if aborted. */
function progressOf(
  { source }: LoadPlan,
  file: string | undefined,
  { onProgress, signal }: LoadOptions,
): (count: number) => Promise<void> {
  const yielder = new Yielder();
  const total = weightBytes(source);
  let loaded = 0;
  return async (count) => {
    loaded += count;
    onProgress?.({ stage: "weights", file, loaded, total });
    await yielder.yieldIfDue(signal);
  };
}

/**
 * Loading a model: options → files → architecture → memory estimate → upload. A `LoadPlan` is
 * computed once, before a byte of a weight is read; `loadModel` carries it out,
 * `describeCheckpoint` and `inspect` show it.
 *
 *     source ─locate─▶ config.json ─readArchitecture─▶ Architecture ─specTree─▶ specs
 *       │                                   ▲                                  │
 *       │                 bounds its layers │                    names, shapes ▼
 *       └──▶ weights ─openWeights─▶ Checkpoint ─────────────────────▶ WeightSource
 *                                                                          │
 *     options ─contextLength─▶ S ┐                                         │
 *     backend ─nominalFlops──▶ T ┴──▶ estimateMemory ◀─────────────────────┤
 *                                          │                               │
 *     LoadPlan = all of the above          ▼                               ▼
 *                                      expectFits ───────────────▶ uploadWeights ─▶ Runner, Model
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import { type Device, openBackend } from "../kernels/mod.ts";
import { FORMATS, isWeightDtype, type WeightDtype } from "../kernels/formats/mod.ts";
import {
  type Architecture,
  gptConfigOf,
  isGptConfig,
  readArchitecture,
  readOutline,
} from "./architecture/mod.ts";
import { type Checkpoint, openWeights, type TensorInfo } from "./checkpoint/checkpoint.ts";
import { locate } from "./checkpoint/locate.ts";
import { DEFAULTS } from "./defaults.ts";
import { CheckpointError } from "./errors.ts";
import { findHost } from "./host/choose.ts";
import { beside, exists, readJsonObject } from "./host/files.ts";
import type { HubOptions } from "./hub/fetch.ts";
import { estimateMemory, expectFits, type MemoryEstimate } from "./memory.ts";
import { Model } from "./model.ts";
import { Runner } from "./runner.ts";
import { findTokenizer } from "./tokenizer/load.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import {
  adapt,
  type Adapted,
  type AdapterOptions,
  baseOf,
  isAdapter,
  openAdapters,
} from "./weights/lora.ts";
import {
  checkpointWeights,
  countParameters,
  randomWeights,
  uploadWeights,
  weightBytes,
  type WeightSource,
} from "./weights/mod.ts";
import { Yielder } from "./yielder.ts";

/** How far loading has come, in bytes. */
export interface LoadProgress {
  /** What is being loaded. */
  readonly stage: "download" | "weights";
  /** The file that is being read. */
  readonly file?: string;
  /** Bytes so far. */
  readonly loaded: number;
  /** Bytes in all. */
  readonly total?: number;
}

/** How a model is to be loaded; `revision`, `token`, `cacheDir` and `offline` are for the hub. */
export interface LoadOptions extends HubOptions {
  /**
   * `cpu` is the best backend that runs here; `auto`, the default, a real GPU if there is one, else
   * `cpu`.
   */
  readonly device?: Device;
  /** How weights are kept; "auto", the default, as they are stored. */
  readonly dtype?: WeightDtype | "auto" | "Q8" | "Q4";
  /** Threads that may compute, on the processor; default as many as are worth having. */
  readonly threads?: number;
  /**
   * Tokens that the cache holds; default the smaller of the model's context and 4096, LabCore's
   * whole block.
   */
  readonly contextLength?: number;
  /**
   * Whether a GPU's kernels are chosen by measuring them, where that was not done before; default
   * true.
   */
  readonly tune?: boolean;
  /** The kind of tokenizer; default whatever lies beside the weights. */
  readonly tokenizer?: "char" | "bpe" | "hf";
  /** Path of a meta.json or of nanoGPT's meta.pkl that holds the vocabulary. */
  readonly meta?: string;
  /** The keys of a config.json, for weights that come without one: a plain state dict. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** LoRA adapters of PEFT, merged into the weights in this order. */
  readonly adapters?: readonly AdapterOptions[];
  /** Called after each run of bytes. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/**
 * A shape to be filled with random weights: the keys of a config.json, or of a preset's `[model]`.
 */
export interface RandomModel {
  /** The keys of a config.json, or of a preset's `[model]`. */
  readonly config: Record<string, unknown>;
  /** Default 0. */
  readonly seed?: number;
}

/** A model to be loaded, decided before a byte of a weight is read. */
export interface LoadPlan {
  /** Names the model in messages. */
  readonly id: string;
  readonly architecture: Architecture;
  /** Every tensor, its dtype on the backend, and its rows. */
  readonly source: WeightSource;
  /** Learned numbers, tied ones once. */
  readonly parameters: number;
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** Rows of a prefill chunk, and bytes by class. */
  readonly memory: MemoryEstimate;
  /** What a user should know of the files: what was chosen or left out, a sentence each. */
  readonly notes: readonly string[];
}

/** The open files of a model. */
interface OpenFiles extends Disposable {
  /** The source that they were found by. */
  readonly id: string;
  /** The folder of config.json and the tokenizer. */
  readonly folder: string;
  readonly architecture: Architecture;
  /** With the tensors that adapters replace. */
  readonly checkpoint: Checkpoint;
  /** What adapters add to tensors, by their names. */
  readonly deltas: Adapted["deltas"];
  readonly notes: readonly string[];
}

/** Every option; an unknown one would be ignored, and give wrong answers without a word. */
const OPTIONS = {
  device: true,
  dtype: true,
  threads: true,
  contextLength: true,
  tune: true,
  tokenizer: true,
  meta: true,
  config: true,
  adapters: true,
  revision: true,
  token: true,
  cacheDir: true,
  offline: true,
  onProgress: true,
  signal: true,
} satisfies Record<keyof LoadOptions, true>;

/**
 * Loads a model: `hf:owner/name`, a folder in Hugging Face layout, a `.safetensors` file beside its
 * config.json, a checkpoint of PyTorch (`.pt`), or a shape with random weights.
 *
 * @throws {CheckpointError} If a file is missing, damaged, or of an unsupported format or family.
 * @throws {DeviceError} If the device is missing or too small.
 * @throws {TypeError} If an option is unknown.
 * @throws {RangeError} If an option is out of range.
 */
export async function loadModel(
  source: string | RandomModel,
  options: LoadOptions = {},
): Promise<Model> {
  const start = performance.now();
  checkOptions(options);
  const { device = DEFAULTS.device, threads, tune, signal } = options;
  signal?.throwIfAborted();
  // First of all: a missing device should cost no download.
  const host = await findHost();
  const backend = await openBackend(device, {
    threads,
    tune,
    store: host?.tiles,
    host: host?.compute,
  });
  try {
    return await loadOnto(backend, source, options, start);
  } catch (error) {
    await backend[Symbol.asyncDispose]();
    throw error;
  }
}

async function loadOnto(
  backend: Backend,
  source: string | RandomModel,
  options: LoadOptions,
  start: number,
): Promise<Model> {
  using files = typeof source === "string" ? await openFiles(source, options) : null;
  const plan = await planLoad(files ?? source as RandomModel, options, backend);
  const tokenizer = await pickTokenizer(plan, files, options);
  await expectFits(backend, plan);
  const { id, architecture, contextLength: slots, memory: { chunk } } = plan;
  const onBytes = progressOf(plan, files?.checkpoint.path, options);
  const weights = await uploadWeights(backend, architecture, plan.source, slots + 1, onBytes);
  const runner = await Runner.create(backend, architecture, weights, { id, slots, chunk });
  return new Model(backend, architecture, runner, tokenizer, {
    id,
    dtype: weights.wte.dtype,
    parameters: plan.parameters,
    notes: plan.notes,
    loadMs: performance.now() - start,
  });
}

/** What `inspect` shows of a checkpoint without loading it. */
export interface CheckpointDescription {
  /** The shape and the conventions of the model. */
  readonly architecture: Architecture;
  /** Learned numbers, tied ones once. */
  readonly parameters: number;
  /** Every tensor of the file. */
  readonly tensors: readonly TensorInfo[];
  /** Text that the file's writer left in it. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Tokens that the cache would hold. */
  readonly contextLength: number;
  /** Bytes that a run would take on the CPU. */
  readonly memory: MemoryEstimate;
  /** What was chosen or left out of the files, a sentence each. */
  readonly notes: readonly string[];
}

/** Reads and checks everything but the weights' bytes. @throws as `loadModel` does. */
export async function describeCheckpoint(
  source: string,
  options: Omit<LoadOptions, "device" | "threads" | "tokenizer" | "meta"> = {},
): Promise<CheckpointDescription> {
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
 * @param backend what it will run on; without it, a processor that adds nothing of its own.
 */
async function planLoad(
  from: OpenFiles | RandomModel,
  { dtype, contextLength: asked }: LoadOptions,
  backend?: Backend,
): Promise<LoadPlan> {
  const kept = (dtype ?? DEFAULTS.dtype) as WeightDtype | "auto";
  const { id, architecture, source, notes } = "checkpoint" in from
    ? await planFiles(from, kept)
    : planRandom(from, kept);
  const contextLength = contextOf(architecture, asked);
  return {
    id,
    architecture,
    source,
    parameters: countParameters(source.specs),
    contextLength,
    memory: estimateMemory(architecture, source, { contextLength, backend }),
    notes,
  };
}

async function planFiles(files: OpenFiles, dtype: WeightDtype | "auto") {
  const { id, checkpoint, deltas } = files;
  const source = await checkpointWeights(checkpoint, files.architecture, dtype, deltas);
  const { architecture } = source;
  return { id, architecture, source, notes: [...files.notes, ...source.notes] };
}

function planRandom({ config, seed = 0 }: RandomModel, dtype: WeightDtype | "auto") {
  const architecture = readArchitecture(config, "config");
  const source = randomWeights(architecture, seed, dtype === "auto" ? "F32" : dtype);
  return { id: "random weights", architecture, source, notes: [] };
}

/**
 * Opens the files that a source names. An adapter's folder stands for its base with the adapter.
 */
async function openFiles(source: string, options: LoadOptions): Promise<OpenFiles> {
  const { adapters = [], ...hub } = options;
  if (await isAdapter(source)) {
    const all = [{ path: source }, ...adapters];
    return { ...await openFiles(await baseOf(source), { ...hub, adapters: all }), id: source };
  }
  // An unknown family costs no download of its weights.
  const { weights, folder, note } = await locate(
    source,
    hub,
    async (folder) => void readOutline(...await readConfig(folder, source)),
  );
  using opened = new DisposableStack();
  const base = opened.use(await openWeights(weights));
  const [config, where] = await configOf(base, folder, weights, options.config);
  const bound = { path: base.path, tensors: base.tensors().length };
  const architecture = readArchitecture(config, where, bound);
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

/**
 * The configuration within the checkpoint, in the config.json beside it, or as given; of nanoGPT's
 * state dicts, with what the tensors say. What was found by its keys alone is second to a file.
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
    `Cannot open "${weights}": expected the number of heads, which no tensor has; ` +
      "put n_head into a config.json beside it, or into [model] of --config",
  );
}

/** The configuration in the files beside the weights, and its path. */
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
  // nanoGPT's GPTConfig as JSON names no family.
  const isGpt = isGptConfig((key) => Object.hasOwn(config, key));
  if (config.model_type === undefined && isGpt) {
    return [{ ...config, model_type: "nanogpt" }, path];
  }
  const generation = beside(folder, "generation_config.json");
  // Its end-of-text ids are those that the model's makers generate with.
  const { eos_token_id: eos } = await exists(generation) ? await readJsonObject(generation) : {};
  return [eos == null ? config : { ...config, eos_token_id: eos }, path];
}

/** The tokenizer, or the sentence that says why there is none. */
async function pickTokenizer(
  { id, architecture: { family, vocabSize } }: LoadPlan,
  files: OpenFiles | null,
  { tokenizer: kind, meta }: LoadOptions,
): Promise<Tokenizer | string> {
  const found = await findTokenizer({
    folder: files?.folder,
    record: files?.checkpoint.tokenizer,
    nanogpt: family === "nanogpt" ? { dataset: files?.checkpoint.dataset, vocabSize } : undefined,
    meta,
    kind,
  });
  if (typeof found === "string") {
    if (kind) throw new CheckpointError(found);
    return found;
  }
  // A model's own tokenizer.json may list more tokens than the embedding has rows: Gemma 3 and many
  // fine-tunes are shipped so, and their ids are refused where they are used.
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

/**
 * @throws {TypeError} If an option is unknown.
 * @throws {RangeError} If an option is out of range.
 */
function checkOptions(options: LoadOptions): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(OPTIONS, name));
  if (unknown !== undefined) {
    throw new TypeError(
      `Cannot load: expected options of ${Object.keys(OPTIONS).join(" ")}, got "${unknown}"`,
    );
  }
  const { dtype, threads, tokenizer: kind } = options;
  if (dtype !== undefined && dtype !== "auto" && !isWeightDtype(dtype)) {
    const known = ["auto", ...Object.keys(FORMATS)].join(" ");
    throw new RangeError(`Cannot load: expected a dtype of ${known}, got "${dtype}"`);
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new RangeError(`Cannot load: expected threads to be a positive integer, got ${threads}`);
  }
  if (kind !== undefined && !["char", "bpe", "hf"].includes(kind)) {
    throw new RangeError(`Cannot load a tokenizer of kind "${kind}": expected char, bpe or hf`);
  }
}

/** S: tokens that the cache holds. @throws {RangeError} If it is out of the model's range. */
function contextOf({ slides, crops, blockSize }: Architecture, asked?: number): number {
  if (asked === undefined) {
    return slides || crops ? blockSize : Math.min(blockSize, DEFAULTS.contextLength);
  }
  if (!Number.isInteger(asked) || asked < 1 || asked > blockSize) {
    throw new RangeError(
      `Cannot load: expected a context of 1 to ${blockSize} tokens, got ${asked}`,
    );
  }
  return asked;
}

/**
 * Reports progress after each chunk of an upload, yields to the event loop, and stops when aborted.
 */
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

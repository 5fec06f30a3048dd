/**
 * Loading a model: options → files → architecture → memory estimate → upload.
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import { type Device, openBackend } from "../kernels/mod.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import { type Architecture, readArchitecture, readOutline } from "./architecture/mod.ts";
import { beside, exists, readJsonObject } from "./checkpoint/bytes.ts";
import { type Checkpoint, openWeights, type TensorInfo } from "./checkpoint/checkpoint.ts";
import { locate } from "./checkpoint/locate.ts";
import { DEFAULTS } from "./defaults.ts";
import { CheckpointError } from "./errors.ts";
import { TILE_STORE } from "./host/tile_cache.ts";
import type { HubOptions } from "./hub/fetch.ts";
import { estimateMemory, expectFits, type MemoryEstimate } from "./memory.ts";
import { Model } from "./model.ts";
import { chunkRows, Runner } from "./runner.ts";
import { findTokenizer } from "./tokenizer/load.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";
import {
  checkpointWeights,
  countParameters,
  putWeights,
  randomWeights,
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
  /** `cpu` is the best backend that runs here; `auto`, the default, a real GPU if there is one, else `cpu`. */
  readonly device?: Device;
  /** How weights are kept; "auto", the default, as they are stored. */
  readonly dtype?: WeightDtype | "auto" | "Q8" | "Q4";
  /** Threads that may compute, on the processor; default as many as are worth having. */
  readonly threads?: number;
  /** Tokens that the cache holds; default the smaller of the model's context and 4096, LabCore's whole block. */
  readonly contextLength?: number;
  /** Whether a GPU's kernels are chosen by measuring them, where that was not done before; default true. */
  readonly tune?: boolean;
  /** The kind of tokenizer; default whatever lies beside the weights. */
  readonly tokenizer?: "char" | "bpe" | "hf";
  /** Path of a meta.json that holds the vocabulary. */
  readonly meta?: string;
  /** Called after each run of bytes. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** A shape to be filled with random weights: the keys of a config.json, or of a preset's `[model]`. */
export interface RandomModel {
  /** The keys of a config.json, or of a preset's `[model]`. */
  readonly config: Record<string, unknown>;
  /** Default 0. */
  readonly seed?: number;
}

/** What an estimate takes a processor to calculate in a second: two threads of WebAssembly. */
const CPU_FLOPS = 80e9;

/**
 * Loads a model: `hf:owner/name`, a folder in Hugging Face layout, a `.safetensors` file beside its config.json, a checkpoint of
 * PyTorch (`.pt`), or a shape with random weights.
 *
 * @throws {CheckpointError} when a file is missing, damaged, or not of this version's formats and families.
 * @throws {DeviceError} when the device is not there, or is too small.
 * @throws {RangeError} on an option out of range.
 */
export async function loadModel(
  source: string | RandomModel,
  options: LoadOptions = {},
): Promise<Model> {
  const start = performance.now();
  const { device = "auto", signal } = options;
  checkOptions(options);
  signal?.throwIfAborted();
  // First of all: a device that is not there should cost no download.
  const { threads, tune } = options;
  const backend = await openBackend(device, { threads, tune, store: TILE_STORE });
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
  const { meta } = options;
  const random = typeof source !== "string";
  using opened = random ? null : await openModelFiles(source, options);
  const a = opened?.architecture ?? readArchitecture((source as RandomModel).config, "config");
  const id = random ? "random weights" : source;
  const kept = options.dtype as WeightDtype | "auto" | undefined;
  const weightSource = opened
    ? await checkpointWeights(opened.checkpoint, a, kept ?? "auto")
    : randomWeights((source as RandomModel).seed ?? 0, !kept || kept === "auto" ? "F32" : kept);
  const tokenizer = await pickTokenizer(opened, options);
  if (typeof tokenizer !== "string" && tokenizer.vocabSize > a.vocabSize) {
    throw new CheckpointError(
      `Cannot load "${id}": expected a vocabulary of at most ${a.vocabSize}, got ${tokenizer.vocabSize}${
        meta ? ` in "${meta}"` : ""
      }`,
    );
  }
  const slots = contextOf(a, options.contextLength);
  const chunk = chunkRows(backend.nominalFlops, a, slots);
  const dtypeOf: WeightSource["dtype"] = (spec) => weightSource.dtype(spec);
  const estimate = estimateMemory(a, { contextLength: slots, chunk, dtypeOf, backend });
  await expectFits(backend, id, estimate, slots);
  const onBytes = progressOf(options, opened?.checkpoint.path, a, weightSource);
  const weights = await putWeights(backend, a, weightSource, slots + 1, onBytes);
  const runner = await Runner.create(backend, a, weights, { id, slots, chunk });
  return new Model(backend, a, runner, tokenizer, {
    id,
    dtype: weights.wte.dtype,
    loadMs: performance.now() - start,
  });
}

/** What `inspect` tells of a checkpoint without loading it. */
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
}

/** Reads and checks everything but the weights' bytes. @throws as `loadModel` does. */
export async function describeCheckpoint(
  source: string,
  options: Omit<LoadOptions, "device" | "threads" | "tokenizer" | "meta"> = {},
): Promise<CheckpointDescription> {
  checkOptions(options);
  using opened = await openModelFiles(source, options);
  const { architecture, checkpoint } = opened;
  const kept = (options.dtype ?? "auto") as WeightDtype | "auto";
  const weights = await checkpointWeights(checkpoint, architecture, kept);
  const contextLength = contextOf(architecture, options.contextLength);
  const parameters = countParameters(architecture);
  const chunk = chunkRows(CPU_FLOPS, architecture, contextLength);
  return {
    architecture,
    parameters,
    tensors: checkpoint.tensors(),
    metadata: checkpoint.metadata,
    contextLength,
    memory: estimateMemory(architecture, {
      contextLength,
      chunk,
      dtypeOf: (spec) => weights.dtype(spec),
    }),
  };
}

interface OpenModel extends Disposable {
  readonly folder: string;
  readonly architecture: Architecture;
  readonly checkpoint: Checkpoint;
}

async function openModelFiles(source: string, hub: HubOptions): Promise<OpenModel> {
  // A family that is not known costs no download of its weights.
  const { weights, folder } = await locate(
    source,
    hub,
    async (folder) => void readOutline(...await readConfig(folder, source)),
  );
  using opened = new DisposableStack();
  const checkpoint = opened.use(await openWeights(weights));
  const [config, where] = checkpoint.config
    ? [checkpoint.config, weights]
    : await readConfig(folder, weights);
  const file = { path: checkpoint.path, tensors: checkpoint.tensors().length };
  const architecture = readArchitecture(config, where, file);
  const files = opened.move();
  return { folder, architecture, checkpoint, [Symbol.dispose]: () => files.dispose() };
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
  const generation = beside(folder, "generation_config.json");
  // Its end-of-text ids are those that the model's makers generate with.
  const { eos_token_id: eos } = await exists(generation) ? await readJsonObject(generation) : {};
  return [eos == null ? config : { ...config, eos_token_id: eos }, path];
}

async function pickTokenizer(
  opened: OpenModel | null,
  { tokenizer: kind, meta }: LoadOptions,
): Promise<Tokenizer | string> {
  const found = await findTokenizer({
    folder: opened?.folder,
    record: opened?.checkpoint.tokenizer,
    meta,
    kind,
  });
  if (kind && typeof found === "string") throw new CheckpointError(found);
  return found;
}

function checkOptions({ dtype, threads, tokenizer: kind }: LoadOptions): void {
  if (dtype === "Q8" || dtype === "Q4") {
    throw new RangeError(`Cannot load as ${dtype}: this version keeps weights as F32, F16 or BF16`);
  }
  if (dtype !== undefined && !["auto", "F32", "F16", "BF16"].includes(dtype)) {
    throw new RangeError(`Cannot load as ${dtype}: expected auto, F32, F16 or BF16`);
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new RangeError(`Cannot load: expected threads to be a positive integer, got ${threads}`);
  }
  if (kind !== undefined && !["char", "bpe", "hf"].includes(kind)) {
    throw new RangeError(`Cannot load a tokenizer of kind "${kind}": expected char, bpe or hf`);
  }
}

function contextOf({ slides, blockSize }: Architecture, asked?: number): number {
  if (asked === undefined) return slides ? blockSize : Math.min(blockSize, DEFAULTS.contextLength);
  if (!Number.isInteger(asked) || asked < 1 || asked > blockSize) {
    throw new RangeError(
      `Cannot load: expected a context of 1 to ${blockSize} tokens, got ${asked}`,
    );
  }
  return asked;
}

/** Tells progress, lets the host have its turns, and gives up when it is told to. */
function progressOf(
  { onProgress, signal }: LoadOptions,
  file: string | undefined,
  a: Architecture,
  source: WeightSource,
): (count: number) => Promise<void> {
  const yielder = new Yielder();
  const { classes: { weights: total } } = estimateMemory(a, {
    contextLength: 0,
    chunk: 0,
    dtypeOf: (spec) => source.dtype(spec),
  });
  let loaded = 0;
  return async (count) => {
    loaded += count;
    onProgress?.({ stage: "weights", file, loaded, total });
    await yielder.yieldIfDue(signal);
  };
}

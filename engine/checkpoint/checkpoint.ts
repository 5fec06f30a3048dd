/**
 * Checkpoint of any format: named tensors, read on demand.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { openFile } from "../host/files.ts";
import type { ByteSource } from "../host/mod.ts";
import type { HubOptions } from "../hub/options.ts";
import { decode } from "./dtypes.ts";
import { openGguf, readGgufParts } from "./gguf/mod.ts";
import type { Metadata } from "./gguf/metadata.ts";
import { isGguf } from "./gguf/parts.ts";
import { locate } from "./locate.ts";
import { modelNames } from "./model_names.ts";
import { readSafetensorsHeader, type SafetensorsHeader, type StoredTensor } from "./safetensors.ts";
import { joinShards, readShardIndex, shardPaths } from "./shards.ts";
import { readTorch, type TorchContents } from "./torch/mod.ts";

/** Name, dtype and shape of a stored tensor. */
export interface TensorInfo {
  /** Name in the file. */
  readonly name: string;
  /** Stored dtype, as safetensors or ggml spells it: "F32", "BF16", "F8_E4M3", "Q4_K", … */
  readonly dtype: string;
  /** Extents, outermost first. */
  readonly shape: readonly number[];
}

/** Format of a checkpoint's file. */
export type CheckpointFormat = "safetensors" | "pytorch" | "gguf";

/**
 * An open checkpoint. Opening it reads only the directory of tensors, not their values; disposing
 * of it closes the files.
 */
export interface Checkpoint extends Disposable {
  /** Path of the file, or of the index of its shards. */
  readonly path: string;
  /** Format of the file. */
  readonly format: CheckpointFormat;
  /**
   * Entries that its writer stored: texts, or a GGUF's keys with values of any type. Arrays of a
   * GGUF are decoded when they are read, and throw a `CheckpointError` if they hold other than
   * UTF-8.
   */
  readonly metadata: Metadata;
  /** Model configuration inside the file, if its trainer stored one: the keys of a config.json. */
  readonly config?: Record<string, unknown>;
  /**
   * Whether `config` was recognized only by its keys; a config.json next to the file overrides it.
   */
  readonly configIsGuess?: boolean;
  /** Tokenizer inside the file, if its trainer stored one. */
  readonly tokenizer?: Record<string, unknown>;
  /** Name of the training data set, in nanoGPT's checkpoints. */
  readonly dataset?: string;
  /** One sentence for each kind of tensor that is ignored. */
  readonly notes?: readonly string[];
  /** All tensors, in the order of their bytes. */
  tensors(): TensorInfo[];
  /**
   * Whether two tensors are the same bytes of the file, as tied weights are.
   * @param name a tensor.
   * @param other another tensor.
   * @throws {CheckpointError} If there is no tensor of one of the names.
   */
  sharesBytes(name: string, other: string): boolean;
  /**
   * Reads a tensor and converts it to F32. 64-bit numbers are rounded, integers through F64.
   * @param name the tensor.
   * @returns the elements, row by row.
   * @throws {CheckpointError} If there is no such tensor, or its bytes cannot be read.
   */
  read(name: string): Promise<Float32Array>;
  /**
   * Fills `into` with a tensor's stored bytes.
   * @param name the tensor.
   * @param byteOffset first byte, counted from the start of the tensor.
   * @param into the destination; its length is the number of bytes to read.
   * @throws {CheckpointError} If there is no such tensor, or it ends before `into` is full.
   */
  readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void>;
}

/**
 * Opens a checkpoint to read single tensors, without building a model.
 *
 * @example
 * ```ts
 * import { openCheckpoint } from "@wgslm/wgslm";
 *
 * using checkpoint = await openCheckpoint("bench/demo");
 * const [{ name, dtype, shape }] = checkpoint.tensors();
 * const values = await checkpoint.read(name); // Float32Array, row by row
 * console.log(name, dtype, shape, values.length);
 * ```
 * @param source a `.safetensors` file, a PyTorch checkpoint, the index of its shards, a folder that
 *   holds one of these, a `.gguf` file, or a repository on the Hugging Face hub: `hf:owner/name`.
 * @param hub options of the download, for a repository.
 * @throws {CheckpointError} If it is missing, damaged or in another format.
 */
export async function openCheckpoint(source: string, hub?: HubOptions): Promise<Checkpoint> {
  const beforeGguf = async (parts: readonly ByteSource[]) => void await openGgufParts(parts);
  return await openWeights((await locate(source, hub, { beforeGguf })).weights);
}

/**
 * Opens a GGUF by its parts, in their order, which stay the caller's.
 * @throws {CheckpointError} If a part breaks a rule of the format.
 */
export async function openGgufParts(parts: readonly ByteSource[]): Promise<Checkpoint> {
  const contents: Contents = { ...await readGgufParts(parts), format: "gguf" };
  return new OpenCheckpoint(parts[0].name, contents, new DisposableStack());
}

/**
 * Opens a weight file, or the index of its shards.
 * @param isModel whether its tensors are a model's: then names lose the prefixes of wrappers.
 * @throws {CheckpointError} If it breaks a rule of its format.
 */
export async function openWeights(path: string, isModel = false): Promise<Checkpoint> {
  using opened = new DisposableStack();
  const openPart = async (path: string): Promise<ByteSource> => {
    const file = opened.use(await openFile(path));
    await refusePointer(file);
    return file;
  };
  const open = async (path: string): Promise<Contents> => {
    if (isGguf(path)) return { ...await openGguf(path, openPart), format: "gguf" };
    const file = await openPart(path);
    return path.endsWith(".safetensors")
      ? { ...await readSafetensorsHeader(file), format: "safetensors" }
      : { ...await readTorch(file), format: "pytorch" };
  };
  let contents: Contents;
  if (path.endsWith(".index.json")) {
    using file = await openFile(path);
    const index = await readShardIndex(file);
    const shards: Contents[] = [];
    for (const shard of await shardPaths(index)) shards.push(await open(shard));
    const metadata = Object.assign({}, ...shards.map((shard) => shard.metadata));
    const tensors = joinShards(index, shards.map((shard) => shard.tensors));
    contents = { tensors, metadata, format: shards[0].format };
  } else {
    contents = await open(path);
  }
  if (isModel && !isGguf(path)) contents = withModelNames(contents);
  return new OpenCheckpoint(path, contents, opened.move());
}

/** The tensors of the model under its names; unchanged if two of them would share a name. */
function withModelNames(contents: Contents): Contents {
  const { names, notes } = modelNames([...contents.tensors.keys()]);
  const tensors = new Map(
    [...names].map(([file, name]) => [name, { ...contents.tensors.get(file)!, name }]),
  );
  if (tensors.size < names.size) return contents;
  return { ...contents, tensors, notes: [...contents.notes ?? [], ...notes] };
}

/** Refuses Git LFS pointers: a clone without LFS has a few lines of text for each large file. */
async function refusePointer(file: ByteSource): Promise<void> {
  const signature = "version https://git-lfs.github.com/";
  const head = new Uint8Array(Math.min(file.size, signature.length));
  await file.read(0, head);
  if (new TextDecoder().decode(head) === signature) {
    throw new CheckpointError(
      `Cannot open "${file.name}": expected weights, got a Git LFS pointer; ` +
        "fetch the file with git lfs pull",
    );
  }
}

/** Result of a format's reader. */
type Contents =
  & Pick<Checkpoint, "format" | "metadata">
  & Pick<SafetensorsHeader, "tensors">
  & Partial<Omit<TorchContents, keyof SafetensorsHeader>>;

class OpenCheckpoint implements Checkpoint {
  readonly format: CheckpointFormat;
  readonly metadata: Metadata;
  readonly config?: Record<string, unknown>;
  readonly configIsGuess: boolean;
  readonly tokenizer?: Record<string, unknown>;
  readonly dataset?: string;
  readonly notes: readonly string[];

  constructor(
    readonly path: string,
    readonly contents: Contents,
    readonly files: DisposableStack,
  ) {
    const { format, metadata, config, tokenizer, dataset, notes = [] } = contents;
    this.format = format;
    this.metadata = metadata;
    this.config = config && { ...config.record, model_type: config.kind };
    this.configIsGuess = config?.guessed ?? false;
    this.tokenizer = tokenizer;
    this.dataset = dataset;
    this.notes = notes;
  }

  tensors(): TensorInfo[] {
    const stored = [...this.contents.tensors.values()];
    return stored.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  }

  sharesBytes(name: string, other: string): boolean {
    const [a, b] = [this.#find(name), this.#find(other)];
    return a.source === b.source && a.offset === b.offset && a.byteLength === b.byteLength;
  }

  async read(name: string): Promise<Float32Array> {
    const { dtype, byteLength } = this.#find(name);
    const bytes = new Uint8Array(byteLength);
    await this.readBytes(name, 0, bytes);
    return decode(bytes, dtype);
  }

  async readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void> {
    const { source, offset, byteLength, verify } = this.#find(name);
    const end = byteOffset + into.length;
    if (!(byteOffset >= 0 && end <= byteLength)) {
      throw new CheckpointError(
        `Cannot read "${name}" of "${this.path}": expected a range of its ${byteLength} bytes, ` +
          `got ${byteOffset} to ${end}`,
      );
    }
    await source.read(offset + byteOffset, into);
    verify?.(offset + byteOffset, into);
  }

  #find(name: string): StoredTensor {
    const found = this.contents.tensors.get(name);
    if (!found) throw new CheckpointError(`Cannot read "${name}": not in "${this.path}"`);
    return found;
  }

  [Symbol.dispose](): void {
    this.files.dispose();
  }
}

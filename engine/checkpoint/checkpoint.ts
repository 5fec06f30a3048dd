/**
 * A checkpoint, whatever its format: named tensors that are read when they are asked for.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { openFile } from "../host/files.ts";
import type { ByteSource } from "../host/mod.ts";
import type { HubOptions } from "../hub/fetch.ts";
import { locate } from "./locate.ts";
import {
  decode,
  readSafetensorsHeader,
  type SafetensorsHeader,
  type StoredTensor,
} from "./safetensors.ts";
import { joinShards, readShardIndex, shardPaths } from "./shards.ts";
import { readTorch, type TorchContents } from "./torch/mod.ts";

/** What a checkpoint says of a tensor. */
export interface TensorInfo {
  /** As the file spells it. */
  readonly name: string;
  /** As stored, spelt as safetensors spells it. */
  readonly dtype: string;
  /** The outermost extent first. */
  readonly shape: readonly number[];
}

/** An open checkpoint. Opening reads the directory alone. */
export interface Checkpoint extends Disposable {
  /** The file that it was opened from, or the index of its files. */
  readonly path: string;
  /** Text that its writer left in it. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The model's configuration, where a trainer left it within: the keys of a config.json. */
  readonly config?: Record<string, unknown>;
  /** Whether `config` was found by its keys alone: a config.json beside the file knows better. */
  readonly configIsGuess?: boolean;
  /** The tokenizer's record, where a trainer left it within. */
  readonly tokenizer?: Record<string, unknown>;
  /** nanoGPT's name for the data set that the model was trained on. */
  readonly dataset?: string;
  /** What was left out of the file, a sentence each. */
  readonly notes?: readonly string[];
  /** Every tensor, in the order of their bytes. */
  tensors(): TensorInfo[];
  /**
   * Whether two names stand for the same bytes of the file.
   * @throws {CheckpointError} when there is no tensor of one of the names.
   */
  sharesBytes(name: string, other: string): boolean;
  /**
   * One tensor, widened to F32; 64-bit numbers are rounded to it, integers by way of F64.
   * @throws {CheckpointError} when there is none of that name.
   */
  read(name: string): Promise<Float32Array>;
  /**
   * Fills `into` with a tensor's stored bytes from `byteOffset` on.
   * @throws {CheckpointError} when there is no such tensor, or it ends before.
   */
  readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void>;
}

/**
 * Opens a `.safetensors` file, a PyTorch checkpoint, the index of their shards, or the weights that
 * `locate` finds in another source.
 * @throws {CheckpointError} If it is missing or breaks a rule of its format.
 */
export async function openCheckpoint(source: string, hub?: HubOptions): Promise<Checkpoint> {
  return await openWeights((await locate(source, hub)).weights);
}

/**
 * Opens the file of the weights, or the index of their shards.
 * @throws {CheckpointError} when it breaks a rule of its format.
 */
export async function openWeights(path: string): Promise<Checkpoint> {
  using opened = new DisposableStack();
  const open = async (path: string): Promise<Contents> => {
    const file = opened.use(await openFile(path));
    await refusePointer(file);
    return path.endsWith(".safetensors")
      ? await readSafetensorsHeader(file)
      : await readTorch(file);
  };
  let contents: Contents;
  if (path.endsWith(".index.json")) {
    using file = await openFile(path);
    const index = await readShardIndex(file);
    const shards: Contents[] = [];
    for (const shard of await shardPaths(index)) shards.push(await open(shard));
    const metadata = Object.assign({}, ...shards.map((shard) => shard.metadata));
    contents = { tensors: joinShards(index, shards.map((shard) => shard.tensors)), metadata };
  } else {
    contents = await open(path);
  }
  return new OpenCheckpoint(path, contents, opened.move());
}

/** A clone without Git LFS has a pointer, a few lines of text, in place of each large file. */
async function refusePointer(file: ByteSource): Promise<void> {
  const sign = "version https://git-lfs.github.com/";
  const head = new Uint8Array(Math.min(file.size, sign.length));
  await file.read(0, head);
  if (new TextDecoder().decode(head) === sign) {
    throw new CheckpointError(
      `Cannot open "${file.name}": it is a pointer of Git LFS, and the file itself is elsewhere; ` +
        "fetch it with git lfs pull",
    );
  }
}

/** What the reader of any format gives. */
type Contents = SafetensorsHeader & Partial<Omit<TorchContents, keyof SafetensorsHeader>>;

class OpenCheckpoint implements Checkpoint {
  readonly metadata: Readonly<Record<string, string>>;
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
    const { metadata, config, tokenizer, dataset, notes = [] } = contents;
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
    const { source, offset, byteLength } = this.#find(name);
    const end = byteOffset + into.length;
    if (!(byteOffset >= 0 && end <= byteLength)) {
      throw new CheckpointError(
        `Cannot read "${name}" of "${this.path}": expected a range of its ${byteLength} bytes, ` +
          `got ${byteOffset} to ${end}`,
      );
    }
    await source.read(offset + byteOffset, into);
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

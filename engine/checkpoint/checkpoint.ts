/**
 * A checkpoint, whatever its format: named tensors that are read when they are asked for.
 *
 * @module
 */
import { bytesOf, widen } from "../../kernels/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { type ByteSource, exists, openFile } from "./bytes.ts";
import { readSafetensorsHeader, STORED_BYTES, type StoredTensor } from "./safetensors.ts";

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
  /** The file that it was opened from. */
  readonly path: string;
  /** Text that its writer left in it. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Every tensor, in the order of their bytes. */
  tensors(): TensorInfo[];
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

/** The files of a model on disk. */
export interface ModelFiles {
  /** The file of the weights. */
  readonly weights: string;
  /** The folder in which config.json and the tokenizer are looked for. */
  readonly folder: string;
}

/**
 * Finds the files that a source names: a folder in Hugging Face layout, or a `.safetensors` file.
 * @throws {CheckpointError} when there is nothing, or a form that this version does not read.
 */
export async function locate(source: string): Promise<ModelFiles> {
  if (source.startsWith("hf:")) {
    throw new CheckpointError(
      `Cannot open "${source}": this version does not read from the hub; give a folder or a .safetensors file`,
    );
  }
  if (!await exists(source)) {
    throw new CheckpointError(`Cannot open "${source}": there is no such file or folder`);
  }
  if ((await Deno.stat(source)).isDirectory) {
    const weights = `${source.replace(/\/+$/, "")}/model.safetensors`;
    if (await exists(weights)) return { weights, folder: source };
    if (await exists(`${weights}.index.json`)) {
      throw new CheckpointError(
        `Cannot open "${source}": this version does not read sharded checkpoints (${weights}.index.json)`,
      );
    }
    throw new CheckpointError(`Cannot open "${source}": expected a model.safetensors in it`);
  }
  if (!source.endsWith(".safetensors")) {
    throw new CheckpointError(
      `Cannot open "${source}": expected a folder or a .safetensors file; this version reads no other format`,
    );
  }
  return { weights: source, folder: source.replace(/[^/\\]*$/, "") || "." };
}

/**
 * Opens a `.safetensors` file, or the folder that holds one.
 * @throws {CheckpointError} when it is missing or breaks a rule of its format.
 */
export async function openCheckpoint(source: string): Promise<Checkpoint> {
  const { weights } = await locate(source);
  const bytes = await openFile(weights);
  try {
    const { tensors, metadata } = await readSafetensorsHeader(bytes);
    return new OpenCheckpoint(bytes, tensors, metadata);
  } catch (error) {
    bytes[Symbol.dispose]();
    throw error;
  }
}

class OpenCheckpoint implements Checkpoint {
  constructor(
    readonly source: ByteSource,
    readonly stored: ReadonlyMap<string, StoredTensor>,
    readonly metadata: Readonly<Record<string, string>>,
  ) {}

  get path(): string {
    return this.source.name;
  }

  tensors(): TensorInfo[] {
    return [...this.stored.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  }

  async read(name: string): Promise<Float32Array> {
    const { dtype, byteLength } = this.#find(name);
    const bytes = new Uint8Array(byteLength);
    await this.readBytes(name, 0, bytes);
    return decode(bytes, dtype);
  }

  async readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void> {
    const { offset, byteLength } = this.#find(name);
    const end = byteOffset + into.length;
    if (!(byteOffset >= 0 && end <= byteLength)) {
      throw new CheckpointError(
        `Cannot read "${name}" of "${this.path}": expected a range of its ${byteLength} bytes, got ${byteOffset} to ${end}`,
      );
    }
    await this.source.read(offset + byteOffset, into);
  }

  #find(name: string): StoredTensor {
    const found = this.stored.get(name);
    if (!found) throw new CheckpointError(`Cannot read "${name}": not in "${this.path}"`);
    return found;
  }

  [Symbol.dispose](): void {
    this.source[Symbol.dispose]();
  }
}

/** Widens stored bytes of any dtype of the table to F32. */
export function decode(bytes: Uint8Array<ArrayBuffer>, dtype: string): Float32Array {
  const { buffer, byteOffset } = bytes;
  const count = bytes.length / STORED_BYTES[dtype];
  const out = new Float32Array(count);
  switch (dtype) {
    case "F32":
      bytesOf(out).set(bytes);
      break;
    case "F16":
    case "BF16":
      widen(out, new Uint16Array(buffer, byteOffset, count), dtype, 0, count);
      break;
    case "F64":
      out.set(new Float64Array(buffer, byteOffset, count));
      break;
    case "I64":
      new BigInt64Array(buffer, byteOffset, count).forEach((n, i) => out[i] = Number(n));
      break;
    case "U64":
      new BigUint64Array(buffer, byteOffset, count).forEach((n, i) => out[i] = Number(n));
      break;
    case "I32":
      out.set(new Int32Array(buffer, byteOffset, count));
      break;
    case "U32":
      out.set(new Uint32Array(buffer, byteOffset, count));
      break;
    case "I16":
      out.set(new Int16Array(buffer, byteOffset, count));
      break;
    case "U16":
      out.set(new Uint16Array(buffer, byteOffset, count));
      break;
    case "I8":
      out.set(new Int8Array(buffer, byteOffset, count));
      break;
    default: // U8, BOOL
      out.set(bytes);
  }
  return out;
}

/**
 * Where bytes come from. A format's reader asks a source for ranges and never for the whole, so that opening is quick and only
 * what is used is read.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord, parseJson } from "../json.ts";

/** Bytes with random access: a file today; a slice of a set, an HTTP range or a Blob in time. */
export interface ByteSource extends Disposable {
  /** For messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {CheckpointError} when the source ends before.
   */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/**
 * Opens a regular file.
 * @throws {CheckpointError} when it is missing, unreadable, or no regular file.
 */
export async function openFile(path: string): Promise<ByteSource> {
  try {
    // A pipe would block in open(), so that it has to be looked at before.
    const { isFile, size } = await Deno.stat(path);
    if (!isFile) throw new CheckpointError(`Cannot open "${path}": expected a regular file`);
    return new FileSource(path, size, await Deno.open(path));
  } catch (error) {
    throw asCheckpointError(error, path);
  }
}

/** Largest text file that is taken for a configuration or a vocabulary, in bytes. */
const MAX_TEXT_BYTES = 100_000_000;

/**
 * Reads a text file.
 * @param expected names what the file should hold, for messages.
 * @throws {CheckpointError} when it is missing, larger than `most` bytes, or not UTF-8.
 */
export async function readText(
  path: string,
  expected: string,
  most = MAX_TEXT_BYTES,
): Promise<string> {
  using source = await openFile(path);
  if (source.size > most) {
    throw new CheckpointError(
      `Cannot read "${path}": expected at most ${most} bytes of ${expected}, got ${source.size}`,
    );
  }
  const bytes = new Uint8Array(source.size);
  await source.read(0, bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CheckpointError(
      `Cannot read "${path}": expected ${expected}, got bytes that are no UTF-8`,
    );
  }
}

/**
 * Reads a JSON file that holds an object.
 * @throws {CheckpointError} when it is missing, torn, not UTF-8, or holds something else.
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const text = await readText(path, "JSON");
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    throw new CheckpointError(`Cannot read "${path}": expected JSON, got ${messageOf(error)}`);
  }
  if (!isRecord(value)) throw new CheckpointError(`Cannot read "${path}": expected a JSON object`);
  return value;
}

/**
 * Whether a path leads to something.
 * @throws {CheckpointError} when that cannot be told, as without permission.
 */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    const { NotFound, NotADirectory } = Deno.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return false;
    throw asCheckpointError(error, path);
  }
}

/** The folder of a file. */
export function folderOf(path: string): string {
  return path.replace(/[^/\\]*$/, "") || ".";
}

/** Path of a file in a folder. */
export function beside(folder: string, name: string): string {
  return `${folder.replace(/\/+$/, "")}/${name}`;
}

class FileSource implements ByteSource {
  constructor(readonly name: string, readonly size: number, readonly file: Deno.FsFile) {}

  // deno-lint-ignore require-await -- a promise by contract; a synchronous read is 2 to 3 times as fast
  async read(offset: number, into: Uint8Array): Promise<void> {
    try {
      this.file.seekSync(offset, Deno.SeekMode.Start);
      for (let done = 0; done < into.length;) {
        const count = this.file.readSync(into.subarray(done));
        if (count === null) {
          throw new CheckpointError(
            `Cannot read "${this.name}": expected ${into.length} bytes at ${offset}, got ${done}`,
          );
        }
        done += count;
      }
    } catch (error) {
      throw asCheckpointError(error, this.name);
    }
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

function asCheckpointError(error: unknown, path: string): CheckpointError {
  if (error instanceof CheckpointError) return error;
  if (error instanceof Deno.errors.NotFound) {
    return new CheckpointError(`Cannot open "${path}": there is no such file`);
  }
  return new CheckpointError(`Cannot open "${path}": ${messageOf(error)}`);
}

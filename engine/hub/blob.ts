/**
 * A file of a model cache while it is downloaded: partial file, hash check, final name.
 *
 *     {path}.wgslm.incomplete ──write──▶ … ──size and hash are right──▶ {path}
 *
 * A partial file is kept when a download breaks, and the next download resumes it.
 *
 * @module
 */
import { createHasher, type HashName } from "../host/hash.ts";
import type { Disk, PartialFile } from "../host/mod.ts";
import { type Sink, WrongContent } from "./http.ts";

/** Bytes per read while a partial file is hashed. */
const CHUNK_BYTES = 1 << 20;

/** The content that a file must have. */
export interface BlobFile {
  /** Bytes; undefined if the server does not tell. */
  readonly size?: number;
  /** sha256 (64 digits) or git's sha1 (40); undefined if the server does not tell. */
  readonly etag?: string;
}

/** Name of a file that is not complete yet. */
export function partialPath(path: string): string {
  return `${path}.wgslm.incomplete`;
}

/**
 * Downloads a file under a temporary name and renames it after the hash check. A damaged file is
 * downloaded once more from its first byte.
 * @param download appends the missing bytes.
 * @param onBytes called with the number of bytes added; negative if bytes are discarded.
 * @returns its hash: the sha256, or git's sha1 if `file` has one.
 * @throws {WrongContent} If size or hash is wrong twice.
 */
export async function fill(
  disk: Disk,
  path: string,
  file: BlobFile,
  download: (partial: Sink) => Promise<void>,
  onBytes: (count: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const temporary = partialPath(path);
  let hash: string;
  try {
    using partial = await Partial.open(disk, temporary, file, onBytes, signal);
    for (let isRetry = false;; isRetry = true) {
      try {
        await download(partial);
        hash = partial.check();
        break;
      } catch (error) {
        if (!(error instanceof WrongContent) || isRetry) throw error;
        await partial.restart();
      }
    }
  } catch (error) {
    if (error instanceof WrongContent || isFull(error)) await disk.remove(temporary);
    throw error;
  }
  try {
    await disk.rename(temporary, path);
  } catch (error) {
    // Without locks, another process may have renamed its copy first.
    if (await disk.sizeOf(path) !== file.size) throw error;
  }
  return hash;
}

/** Whether a page's storage is full: what it has of the file only takes space from others. */
export function isFull(error: unknown): boolean {
  return error instanceof Error && error.name === "QuotaExceededError";
}

/** A partial file. It stays on disk if the process is killed, and the next process resumes it. */
class Partial implements Sink, Disposable {
  #hash = createHasher("sha256");
  #position = 0;

  private constructor(
    readonly disk: PartialFile,
    readonly file: BlobFile,
    readonly onBytes: (count: number) => void,
  ) {}

  static async open(
    disk: Disk,
    path: string,
    file: BlobFile,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<Partial> {
    const opened = await disk.open(path);
    const partial = new Partial(opened, file, onBytes);
    try {
      partial.#startHash();
      const chunk = new Uint8Array(CHUNK_BYTES);
      for (let count; (count = await opened.read(chunk)) !== null;) {
        signal?.throwIfAborted();
        partial.#count(chunk.subarray(0, count));
      }
      return partial;
    } catch (error) {
      opened[Symbol.dispose]();
      throw error;
    }
  }

  get position(): number {
    return this.#position;
  }

  async write(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) done += await this.disk.write(chunk.subarray(done));
    this.#count(chunk);
  }

  async restart(): Promise<void> {
    await this.disk.clear();
    this.onBytes(-this.#position);
    this.#position = 0;
    this.#startHash();
  }

  /**
   * The hash.
   * @throws {WrongContent} If its size or its hash is wrong.
   */
  check(): string {
    const { size = this.#position, etag } = this.file;
    const got = this.#hash.digest();
    if (this.#position !== size) {
      throw new WrongContent(`expected ${size} bytes, got ${this.#position}`);
    }
    if (etag === undefined || got === etag) return got;
    throw new WrongContent(
      `expected ${etag.length === 64 ? "sha256" : "git sha1"} ${etag}, got ${got}`,
    );
  }

  #startHash(): void {
    const { etag, size } = this.file;
    const name: HashName = etag?.length === 40 ? "sha1" : "sha256";
    this.#hash = createHasher(name);
    // git hashes this header too
    if (name === "sha1") this.#hash.update(new TextEncoder().encode(`blob ${size}\0`));
  }

  #count(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#position += chunk.length;
    this.onBytes(chunk.length);
  }

  [Symbol.dispose](): void {
    this.disk[Symbol.dispose]();
  }
}

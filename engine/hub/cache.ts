/**
 * The hub's cache on disk, shared with Python's huggingface_hub.
 *
 *     models--{owner}--{name}/
 *       blobs/{etag}                                       files by their hash
 *       snapshots/{commit}/{path} ──▶ ../../blobs/{etag}   links, one folder a commit
 *       refs/{revision}                                    commit of a branch when last seen
 *     .locks/models--{owner}--{name}/{etag}.lock
 *
 * A file gets its final name only after its size and hash were checked, so a file with a final name
 * is complete.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { builtin } from "../host/builtin.ts";
import { exists } from "../host/files.ts";
import { type HubFile, type HubTimes, type Sink, WrongContent } from "./client.ts";
import { isCommit } from "./names.ts";

const { createHash } = builtin("node:crypto")!; // Deno has it

/** Cache directory tag (https://bford.info/cachedir/): backup programs skip a tagged folder. */
const CACHEDIR_TAG = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by wgslm.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;

/** Bytes per read while a partial file is hashed. */
const CHUNK_BYTES = 1 << 20;

/** The part of the cache that belongs to one repository. */
export class HubCache {
  readonly #repo: string;

  /**
   * @param folder folder of the whole cache, which all repositories share.
   * @param links whether a snapshot links to its blobs; otherwise it copies them.
   */
  constructor(
    readonly folder: string,
    repo: string,
    readonly links: boolean,
    readonly times: HubTimes,
  ) {
    this.#repo = `models--${repo.replace("/", "--")}`;
  }

  /** The folder with the files of a commit. */
  snapshot(commit: string): string {
    return `${this.folder}/${this.#repo}/snapshots/${commit}`;
  }

  #blob(etag: string): string {
    return `${this.folder}/${this.#repo}/blobs/${etag}`;
  }

  /** The commit that a branch or a tag was last seen at. */
  async readRef(revision: string): Promise<string | undefined> {
    const path = `${this.folder}/${this.#repo}/refs/${revision}`;
    if (!await sizeOf(path)) return undefined;
    const commit = (await Deno.readTextFile(path)).trim();
    return isCommit(commit) ? commit : undefined;
  }

  /**
   * Writes the commit of a branch or a tag. There is no newline: Python would read it as a part of
   * the hash.
   */
  async writeRef(revision: string, commit: string): Promise<void> {
    const path = `${this.folder}/${this.#repo}/refs/${revision}`;
    try {
      if (await this.readRef(revision) === commit) return;
      await makeFolderOf(path);
      await replace(path, (temporary) => Deno.writeTextFile(temporary, commit));
    } catch {
      // The cache may be read-only. The files are still usable: only --offline needs the ref.
    }
  }

  /** Whether a snapshot has the file in its full size. */
  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return await sizeOf(`${this.snapshot(commit)}/${path}`) === size;
  }

  /**
   * Puts a file into a snapshot. One process at a time downloads a blob; the others wait for it.
   * @param download appends the missing bytes to a partial blob.
   * @param onBytes called with the number of bytes added; negative if bytes are discarded.
   * @throws {WrongContent} If the blob's size or hash is wrong twice.
   */
  async ensure(
    commit: string,
    file: HubFile,
    download: (partial: Sink) => Promise<void>,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    const blob = this.#blob(file.etag);
    await this.#makeFolder();
    await makeFolderOf(blob);
    using _lock = await this.#lock(file.etag, signal);
    if (await sizeOf(blob) === file.size) onBytes(file.size);
    else await fill(blob, file, download, onBytes, signal);
    await this.#link(`${this.snapshot(commit)}/${file.path}`, file);
  }

  async #makeFolder(): Promise<void> {
    if (await exists(this.folder)) return;
    await Deno.mkdir(this.folder, { recursive: true });
    await Deno.writeTextFile(`${this.folder}/CACHEDIR.TAG`, CACHEDIR_TAG);
  }

  /**
   * Takes the lock that Python uses too. The system releases it when the process ends, even if it
   * is killed.
   */
  async #lock(etag: string, signal?: AbortSignal): Promise<Disposable> {
    const path = `${this.folder}/.locks/${this.#repo}/${etag}.lock`;
    await makeFolderOf(path);
    while (true) {
      signal?.throwIfAborted();
      const file = await openLock(path);
      // Without locks in the file system, two processes write the same bytes at the same offsets.
      const held = await file.tryLock(true).catch(() => true);
      if (held && await isStillAt(file, path)) return file;
      file.close();
      await this.times.pause(this.times.pollMs, signal);
    }
  }

  async #link(path: string, { path: name, etag }: HubFile): Promise<void> {
    await makeFolderOf(path);
    const blob = this.#blob(etag);
    // Relative: the cache can be moved.
    const target = `${"../".repeat(name.split("/").length + 1)}blobs/${etag}`;
    await replace(path, async (temporary) => {
      if (this.links) {
        try {
          return await Deno.symlink(target, temporary, { type: "file" });
        } catch {
          // Windows without permission to link, or a file system without links
        }
      }
      await Deno.copyFile(blob, temporary);
    });
  }
}

/**
 * Downloads a blob under a temporary name and renames it after the hash check. A damaged blob is
 * downloaded once more from its first byte.
 */
async function fill(
  blob: string,
  file: HubFile,
  download: (partial: Sink) => Promise<void>,
  onBytes: (count: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const path = `${blob}.wgslm.incomplete`;
  try {
    using partial = await Partial.open(path, file, onBytes, signal);
    for (let isRetry = false;; isRetry = true) {
      try {
        await download(partial);
        partial.check();
        break;
      } catch (error) {
        if (!(error instanceof WrongContent) || isRetry) throw error;
        await partial.restart();
      }
    }
  } catch (error) {
    if (error instanceof WrongContent) await Deno.remove(path);
    throw error;
  }
  try {
    await Deno.rename(path, blob);
  } catch (error) {
    // Without locks, another process may have renamed its copy first.
    if (await sizeOf(blob) !== file.size) throw error;
  }
}

/** A partial blob. It stays on disk if the process is killed, and the next process resumes it. */
class Partial implements Sink, Disposable {
  #hash = createHash("sha256");
  #position = 0;

  private constructor(
    readonly disk: Deno.FsFile,
    readonly file: HubFile,
    readonly onBytes: (count: number) => void,
  ) {}

  static async open(
    path: string,
    file: HubFile,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<Partial> {
    const disk = await Deno.open(path, { read: true, write: true, create: true });
    const partial = new Partial(disk, file, onBytes);
    try {
      partial.#startHash();
      const chunk = new Uint8Array(CHUNK_BYTES);
      for (let count; (count = await disk.read(chunk)) !== null;) {
        signal?.throwIfAborted();
        partial.#count(chunk.subarray(0, count));
      }
      return partial;
    } catch (error) {
      disk.close();
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
    await this.disk.truncate();
    await this.disk.seek(0, Deno.SeekMode.Start);
    this.onBytes(-this.#position);
    this.#position = 0;
    this.#startHash();
  }

  /** @throws {WrongContent} If its size or its hash is wrong. */
  check(): void {
    const { size, etag } = this.file;
    const got = this.#hash.digest("hex");
    if (this.#position !== size) {
      throw new WrongContent(`expected ${size} bytes, got ${this.#position}`);
    }
    const kind = etag.length === 64 ? "sha256" : "git sha1";
    if (got !== etag) throw new WrongContent(`expected ${kind} ${etag}, got ${got}`);
  }

  #startHash(): void {
    const { etag, size } = this.file;
    this.#hash = createHash(etag.length === 64 ? "sha256" : "sha1");
    if (etag.length !== 64) this.#hash.update(`blob ${size}\0`); // git hashes this header too
  }

  #count(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#position += chunk.length;
    this.onBytes(chunk.length);
  }

  [Symbol.dispose](): void {
    this.disk.close();
  }
}

/**
 * The token in the file that Python keeps; "" if there is no such file.
 * @throws {Error} The system's error, if the file cannot be read.
 */
export async function readToken(path: string): Promise<string> {
  try {
    return (await Deno.readTextFile(path)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/** Whether an error comes from a file operation, not from the network. */
export function isSystemError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof CheckpointError) return false;
  return /\(os error \d+\)/.test(error.message) || Object.hasOwn(Deno.errors, error.name);
}

/** Bytes of a file after following links; undefined if there is no file. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const { isFile, size } = await Deno.stat(path);
    return isFile ? size : undefined;
  } catch (error) {
    const { NotFound, NotADirectory } = Deno.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return undefined;
    throw error;
  }
}

async function makeFolderOf(path: string): Promise<void> {
  await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
}

/** Writes a file and renames it to `path` in one step: no process sees half of it. */
async function replace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    await make(temporary);
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {}); // it may not exist
    throw error;
  }
}

async function openLock(path: string): Promise<Deno.FsFile> {
  try {
    const file = await Deno.open(path, { read: true, write: true, createNew: true });
    // Python's mode, for a cache shared between users; not every file system has modes.
    if (Deno.build.os !== "windows") await Deno.chmod(path, 0o664).catch(() => {});
    return file;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return await Deno.open(path, { read: true, write: true, create: true });
  }
}

/**
 * Whether an open file is still the file at its path. Some versions of Python's filelock delete the
 * lock file, and a lock on a deleted file excludes no other process.
 */
async function isStillAt(file: Deno.FsFile, path: string): Promise<boolean> {
  const current = await Deno.stat(path).catch(() => null);
  return current !== null && current.ino === (await file.stat()).ino;
}

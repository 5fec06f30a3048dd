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
import { exists } from "../host/files.ts";
import type { Disk } from "../host/mod.ts";
import { fill } from "./blob.ts";
import type { HubFile } from "./client.ts";
import type { HubTimes, Sink } from "./http.ts";
import { isCommit } from "./names.ts";
import { type OpenFile, runtime } from "../host/runtime.ts";

/** Cache directory tag (https://bford.info/cachedir/): backup programs skip a tagged folder. */
const CACHEDIR_TAG = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by wgslm.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;

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
    const commit = (await runtime.readTextFile(path)).trim();
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
      await replace(path, (temporary) => runtime.writeTextFile(temporary, commit));
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
    else await fill(DISK, blob, file, download, onBytes, signal);
    await this.#link(`${this.snapshot(commit)}/${file.path}`, file);
  }

  async #makeFolder(): Promise<void> {
    if (await exists(this.folder)) return;
    await runtime.mkdir(this.folder, { recursive: true });
    await runtime.writeTextFile(`${this.folder}/CACHEDIR.TAG`, CACHEDIR_TAG);
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
          return await runtime.symlink(target, temporary, { type: "file" });
        } catch {
          // Windows without permission to link, or a file system without links
        }
      }
      await runtime.copyFile(blob, temporary);
    });
  }
}

/** Files of the cache, by path. */
const DISK: Disk = {
  sizeOf,
  rename: runtime.rename,
  remove: runtime.remove,
  async open(path) {
    const file = await runtime.open(path, { read: true, write: true, create: true });
    return {
      read: (into) => file.read(into),
      write: (chunk) => file.write(chunk),
      async clear() {
        await file.truncate();
        await file.seek(0, runtime.SeekMode.Start);
      },
      [Symbol.dispose]: () => file.close(),
    };
  },
};

/**
 * The token in the file that Python keeps; "" if there is no such file.
 * @throws {Error} The system's error, if the file cannot be read.
 */
export async function readToken(path: string): Promise<string> {
  try {
    return (await runtime.readTextFile(path)).trim();
  } catch (error) {
    if (error instanceof runtime.errors.NotFound) return "";
    throw error;
  }
}

/** Whether an error comes from a file operation, not from the network. */
export function isSystemError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof CheckpointError) return false;
  return /\(os error \d+\)/.test(error.message) || Object.hasOwn(runtime.errors, error.name);
}

/** Bytes of a file after following links; undefined if there is no file. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const { isFile, size } = await runtime.stat(path);
    return isFile ? size : undefined;
  } catch (error) {
    const { NotFound, NotADirectory } = runtime.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return undefined;
    throw error;
  }
}

async function makeFolderOf(path: string): Promise<void> {
  await runtime.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
}

/** Writes a file and renames it to `path` in one step: no process sees half of it. */
async function replace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    await make(temporary);
    await runtime.rename(temporary, path);
  } catch (error) {
    await runtime.remove(temporary).catch(() => {}); // it may not exist
    throw error;
  }
}

async function openLock(path: string): Promise<OpenFile> {
  try {
    const file = await runtime.open(path, { read: true, write: true, createNew: true });
    // Python's mode, for a cache shared between users; not every file system has modes.
    if (runtime.build.os !== "windows") await runtime.chmod(path, 0o664).catch(() => {});
    return file;
  } catch (error) {
    if (!(error instanceof runtime.errors.AlreadyExists)) throw error;
    return await runtime.open(path, { read: true, write: true, create: true });
  }
}

/**
 * Whether an open file is still the file at its path. Some versions of Python's filelock delete the
 * lock file, and a lock on a deleted file excludes no other process.
 */
async function isStillAt(file: OpenFile, path: string): Promise<boolean> {
  const current = await runtime.stat(path).catch(() => null);
  return current !== null && current.ino === (await file.stat()).ino;
}

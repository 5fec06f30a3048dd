/**
 * The hub's cache in a page: files of its origin (OPFS).
 *
 *     opfs:/wgslm/hub/models--{owner}--{name}/
 *       snapshots/{commit}/{path}      files of a commit; an unfinished one has another ending
 *       refs/{revision}                commit of a branch when last seen
 *
 * As in the cache on disk, a file with its final name is complete and its hash was checked.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { freeBytes, OPFS, OPFS_DISK, readText, writeText } from "../host/opfs.ts";
import { fill, isFull, partialPath } from "./blob.ts";
import type { HubFile } from "./client.ts";
import type { Sink } from "./http.ts";
import type { ModelCache } from "./model_cache.ts";
import { isCommit } from "./names.ts";

/** Folder of the cache, with a folder for each kind of source. */
export const PAGE_CACHE = `${OPFS}wgslm`;

/** Folder of the hub's models. */
export const PAGE_HUB = `${PAGE_CACHE}/hub`;

/** The part of the cache that belongs to one repository. */
export class PageCache implements ModelCache {
  readonly folder = PAGE_HUB;
  readonly #repo: string;

  constructor(readonly repo: string) {
    this.#repo = `${this.folder}/models--${repo.replace("/", "--")}`;
  }

  snapshot(commit: string): string {
    return `${this.#repo}/snapshots/${commit}`;
  }

  async readRef(revision: string): Promise<string | undefined> {
    const commit = await readText(`${this.#repo}/refs/${revision}`);
    return commit !== undefined && isCommit(commit) ? commit : undefined;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (await this.readRef(revision) === commit) return;
    await writeText(`${this.#repo}/refs/${revision}`, commit);
  }

  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return await OPFS_DISK.sizeOf(`${this.snapshot(commit)}/${path}`) === size;
  }

  /** @throws {CheckpointError} If the origin may not store what is missing of the files. */
  async expectRoom(commit: string, files: readonly HubFile[]): Promise<void> {
    let missing = 0;
    for (const { path, size } of files) {
      missing += size - (await partialSize(`${this.snapshot(commit)}/${path}`) ?? 0);
    }
    await expectRoom(`hf:${this.repo}`, missing);
  }

  async ensure(
    commit: string,
    file: HubFile,
    download: (partial: Sink) => Promise<void>,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    const path = `${this.snapshot(commit)}/${file.path}`;
    await withLock(path, signal, async () => {
      if (await this.has(commit, file)) return onBytes(file.size);
      try {
        await fill(OPFS_DISK, path, file, download, onBytes, signal);
      } catch (error) {
        throw isFull(error) ? await fullError(`hf:${this.repo}`, file.size) : error;
      }
    });
  }
}

/** Bytes of a file that is not complete yet. */
export async function partialSize(path: string): Promise<number | undefined> {
  return await OPFS_DISK.sizeOf(partialPath(path));
}

/** @throws {CheckpointError} If the origin may not store so many bytes. */
export async function expectRoom(id: string, bytes: number): Promise<void> {
  if (bytes > await freeBytes()) throw await fullError(id, bytes);
}

/** The error if the files of a model do not fit the origin's storage. */
export async function fullError(id: string, bytes: number): Promise<CheckpointError> {
  const mib = (count: number) => `${(count / 2 ** 20).toFixed(1)} MiB`;
  const free = await freeBytes();
  return new CheckpointError(
    `Cannot open "${id}": expected room for ${mib(bytes)} in the page's storage, got ${
      free < bytes ? mib(free) : "no more of it from the browser" // which may tell another number
    }; remove a model from the cache, or load it with cache: false`,
  );
}

/** The browser's locks, shared by the tabs of an origin. */
interface Locks {
  request<T>(name: string, options: { signal?: AbortSignal }, work: () => Promise<T>): Promise<T>;
}

/** Runs work on a file while no other tab does. */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const { locks } = globalThis.navigator as { locks?: Locks };
  return locks ? await locks.request(path, signal ? { signal } : {}, work) : await work();
}

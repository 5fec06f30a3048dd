/**
 * Files of a page's origin (OPFS): open, list, write, rename by path.
 *
 * Writing takes a synchronous access handle, which only a dedicated worker has.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import type { ByteSource, Disk, PartialFile, PathKind } from "./mod.ts";

/** Beginning of every path here. */
export const OPFS = "opfs:/";

/** A folder that a page may read: of its own, or one that the visitor chose. */
export interface DirectoryHandle {
  readonly kind: "directory";
  readonly name: string;
  getFileHandle(name: string, options?: { create?: boolean }): Promise<FileHandle>;
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<DirectoryHandle>;
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
  keys(): AsyncIterableIterator<string>;
}

interface FileHandle {
  readonly kind: "file";
  getFile(): Promise<File>;
  createSyncAccessHandle(): Promise<SyncHandle>;
  move(folder: DirectoryHandle, name: string): Promise<void>;
}

interface SyncHandle {
  read(into: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

/** Storage of a page's origin. */
interface Storage {
  getDirectory?(): Promise<DirectoryHandle>;
  estimate?(): Promise<{ quota?: number; usage?: number }>;
}

function storage(): Storage | undefined {
  return (globalThis.navigator as unknown as { storage?: Storage } | undefined)?.storage;
}

/** The reason why there are no files of the origin here; undefined if there are. */
export async function opfsDenied(): Promise<string | undefined> {
  const { isSecureContext } = globalThis as { isSecureContext?: boolean };
  if (isSecureContext === false) return "the page is not served over https";
  const folder = storage()?.getDirectory?.();
  if (!folder) return "the browser has no storage for files (OPFS)";
  return await folder.then(() => undefined, (error) => messageOf(error));
}

/** Bytes that the origin may still store; Infinity if unknown. */
export async function freeBytes(): Promise<number> {
  const { quota, usage = 0 } = await storage()?.estimate?.() ?? {};
  return quota === undefined ? Infinity : Math.max(0, quota - usage);
}

/** Bytes that the origin stores; 0 if unknown. */
export async function usedBytes(): Promise<number> {
  return (await storage()?.estimate?.())?.usage ?? 0;
}

async function root(): Promise<DirectoryHandle> {
  const folder = await storage()?.getDirectory?.();
  if (folder) return folder;
  throw new CheckpointError("Cannot open the cache: expected storage for files (OPFS), got none");
}

/** The names in a path. */
export function partsOf(path: string): string[] {
  return path.replace(OPFS, "").split("/").filter((part) => part !== "" && part !== ".");
}

/** Whether an error says that there is no such file or folder. */
function isAbsent(error: unknown): boolean {
  return error instanceof Error && ["NotFoundError", "TypeMismatchError"].includes(error.name);
}

async function orAbsent<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** A folder below another; undefined if it is missing and not created. */
export async function folderIn(
  base: DirectoryHandle,
  parts: readonly string[],
  create = false,
): Promise<DirectoryHandle | undefined> {
  let folder: DirectoryHandle | undefined = base;
  for (const part of parts) {
    folder = await orAbsent(folder.getDirectoryHandle(part, { create }));
    if (!folder) return undefined;
  }
  return folder;
}

/** A file below a folder; undefined if there is none. */
export async function fileIn(
  base: DirectoryHandle,
  parts: readonly string[],
  create = false,
): Promise<FileHandle | undefined> {
  const name = parts.at(-1);
  const folder = await folderIn(base, parts.slice(0, -1), create);
  if (!folder || name === undefined) return undefined;
  return await orAbsent(folder.getFileHandle(name, { create }));
}

/** The kind of a path below a folder. */
export async function kindIn(base: DirectoryHandle, parts: readonly string[]): Promise<PathKind> {
  if (await fileIn(base, parts)) return "file";
  return await folderIn(base, parts) ? "folder" : null;
}

/** Opens a file of the browser, from disk or chosen by the visitor. */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, into) {
      try {
        const bytes = await blob.slice(offset, offset + into.length).arrayBuffer();
        if (bytes.byteLength === into.length) return into.set(new Uint8Array(bytes));
        throw new CheckpointError(
          `Cannot read "${name}": expected ${into.length} bytes at ${offset}, ` +
            `got ${bytes.byteLength}`,
        );
      } catch (error) {
        if (error instanceof CheckpointError) throw error;
        throw new CheckpointError(`Cannot read "${name}": ${messageOf(error)}`);
      }
    },
    [Symbol.dispose]() {},
  };
}

/** The files of the origin as a disk for downloads. */
export const OPFS_DISK: Disk = {
  async open(path) {
    const file = await fileIn(await root(), partsOf(path), true);
    return new OpenFile(await file!.createSyncAccessHandle());
  },
  async rename(from, to) {
    const base = await root();
    const file = await fileIn(base, partsOf(from));
    const parts = partsOf(to);
    const folder = await folderIn(base, parts.slice(0, -1), true);
    await file!.move(folder!, parts.at(-1)!);
  },
  remove,
  async sizeOf(path) {
    const file = await fileIn(await root(), partsOf(path));
    return (await file?.getFile())?.size;
  },
};

class OpenFile implements PartialFile {
  #at = 0;

  constructor(readonly handle: SyncHandle) {}

  read(into: Uint8Array): Promise<number | null> {
    const count = this.handle.read(into, { at: this.#at });
    this.#at += count;
    return Promise.resolve(count || null);
  }

  // deno-lint-ignore require-await -- a promise by contract, so that errors reject
  async write(chunk: Uint8Array): Promise<number> {
    const count = this.handle.write(chunk, { at: this.#at });
    if (count === 0) throw new DOMException("the storage is full", "QuotaExceededError");
    this.#at += count;
    return count;
  }

  clear(): Promise<void> {
    this.handle.truncate(0);
    this.#at = 0;
    return Promise.resolve();
  }

  [Symbol.dispose](): void {
    this.handle.close();
  }
}

/** Removes a file or a folder with all its files; nothing happens if there is none. */
export async function remove(path: string): Promise<void> {
  const parts = partsOf(path);
  const folder = await folderIn(await root(), parts.slice(0, -1));
  await orAbsent(folder?.removeEntry(parts.at(-1)!, { recursive: true }) ?? Promise.resolve());
}

/** Text of a file; undefined if there is none. */
export async function readText(path: string): Promise<string | undefined> {
  const file = await fileIn(await root(), partsOf(path));
  return await (await file?.getFile())?.text();
}

/** Writes a text file under another name first, so that no reader sees half of it. */
export async function writeText(path: string, text: string): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    {
      using file = await OPFS_DISK.open(temporary);
      const bytes = new TextEncoder().encode(text);
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    }
    await OPFS_DISK.rename(temporary, path);
  } catch (error) {
    await remove(temporary);
    throw error;
  }
}

/** Names in a folder; none if there is no folder. */
export async function listNames(path: string): Promise<string[]> {
  const folder = await folderIn(await root(), partsOf(path));
  return folder ? await Array.fromAsync(folder.keys()) : [];
}

/** Opens a file. */
export async function openOpfs(path: string): Promise<ByteSource> {
  const file = await fileIn(await root(), partsOf(path));
  if (file) return blobSource(path, await file.getFile());
  throw new CheckpointError(`Cannot open "${path}": there is no such file`);
}

/** The kind of a path. */
export async function kindOfOpfs(path: string): Promise<PathKind> {
  return await kindIn(await root(), partsOf(path));
}

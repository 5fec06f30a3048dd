/**
 * Models in a page's storage: list, remove, and room.
 *
 * @module
 */
import { beside } from "../host/files.ts";
import { freeBytes, kindOfOpfs, listNames, OPFS_DISK, remove, usedBytes } from "../host/opfs.ts";
import { partialPath } from "../hub/blob.ts";
import { PAGE_HUB } from "../hub/page_cache.ts";
import { MANIFEST, readManifestIn, URL_CACHE } from "../hub/url_files.ts";

/** A model in a page's storage. */
export interface CachedModel {
  /** `hf:owner/name`, or the URL of its folder. */
  readonly source: string;
  /** Bytes of its files, unfinished ones included. */
  readonly bytes: number;
  /** Whether a file is not complete; the next load resumes it. */
  readonly isPartial: boolean;
}

const REPO = "models--";

/** Folder of a model in the storage, and its source. */
interface Entry {
  readonly source: string;
  readonly folder: string;
}

async function entries(): Promise<Entry[]> {
  const hub = (await listNames(PAGE_HUB)).filter((name) => name.startsWith(REPO)).map((name) => ({
    source: `hf:${name.slice(REPO.length).replace("--", "/")}`,
    folder: beside(PAGE_HUB, name),
  }));
  const urls = await Promise.all((await listNames(URL_CACHE)).map(async (name) => {
    const folder = beside(URL_CACHE, name);
    return { source: (await readManifestIn(folder))?.url ?? folder, folder };
  }));
  return [...hub, ...urls];
}

/** Files below a folder, with their sizes. */
async function filesBelow(folder: string): Promise<{ path: string; bytes: number }[]> {
  const found = await Promise.all((await listNames(folder)).map(async (name) => {
    const path = beside(folder, name);
    if (await kindOfOpfs(path) === "folder") return await filesBelow(path);
    return [{ path, bytes: await OPFS_DISK.sizeOf(path) ?? 0 }];
  }));
  return found.flat();
}

/**
 * Lists the models in a page's storage.
 *
 * @returns one item for each model, in any order.
 * @throws {CheckpointError} If there is no such storage: outside of a page, or without https.
 * @example
 * ```ts ignore
 * for (const { source, bytes } of await cachedModels()) console.log(source, bytes);
 * ```
 */
export async function cachedModels(): Promise<CachedModel[]> {
  const models = (await entries()).map(async ({ source, folder }) => {
    const files = (await filesBelow(folder)).filter(({ path }) => !path.endsWith(MANIFEST));
    if (!files.length) return [];
    return [{
      source,
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
      isPartial: files.some(({ path }) => path.endsWith(partialPath(""))),
    }];
  });
  return (await Promise.all(models)).flat();
}

/**
 * Removes a model from a page's storage.
 *
 * @param source as `cachedModels` lists it.
 * @returns whether it was there.
 * @throws {CheckpointError} If there is no such storage.
 * @example
 * ```ts ignore
 * await removeCachedModel("hf:openai-community/gpt2");
 * ```
 */
export async function removeCachedModel(source: string): Promise<boolean> {
  const found = (await entries()).filter((entry) => entry.source === source);
  for (const { folder } of found) await remove(folder);
  return found.length > 0;
}

/** Bytes of a page's storage. */
export interface CacheSpace {
  /** Bytes in use, by models and by anything else of the origin. */
  readonly used: number;
  /** Bytes that may still be stored; Infinity if the browser does not report them. */
  readonly free: number;
}

/**
 * Measures the room of a page's storage; `loadModel` refuses a download that does not fit.
 *
 * @example
 * ```ts ignore
 * const { free } = await cacheSpace();
 * ```
 */
export async function cacheSpace(): Promise<CacheSpace> {
  return { used: await usedBytes(), free: await freeBytes() };
}

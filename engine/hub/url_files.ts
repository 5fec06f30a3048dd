/**
 * Files of a model at a URL, in a page: kept in the page's storage, or read by ranges.
 *
 *     opfs:/wgslm/urls/{hash of the folder's URL}/
 *       wgslm.json         URL; size, sha256 and validators of each complete file
 *       model.safetensors  a complete file
 *
 * A server has no list of its files, so each name is asked for when the engine looks for it. When
 * the server cannot be reached, the complete files are used as they are.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { createHasher } from "../host/hash.ts";
import { beside, folderOf } from "../host/files.ts";
import type { ByteSource, PathKind } from "../host/mod.ts";
import { openOpfs, OPFS_DISK, readText, remove, writeText } from "../host/opfs.ts";
import { isRecord } from "../json.ts";
import { fill, isFull, partialPath } from "./blob.ts";
import { Unreachable, WrongContent } from "./http.ts";
import { expectRoom, fullError, PAGE_CACHE, partialSize, withLock } from "./page_cache.ts";
import type { RemoteFile, UrlClient } from "./url_client.ts";

/** Folder of all URLs' files. */
export const URL_CACHE = `${PAGE_CACHE}/urls`;

/** File that describes the others of its folder. */
export const MANIFEST = "wgslm.json";

/** A complete file of the cache. */
interface CachedFile extends RemoteFile {
  readonly size: number;
  readonly sha256: string;
}

/** The files of one folder at a server. */
export interface Manifest {
  /** The folder. */
  readonly url: string;
  readonly files: Record<string, CachedFile>;
  /** The files whose partial copies are kept. */
  readonly partial: Record<string, RemoteFile>;
}

/** Options of a model at a URL. */
export interface UrlOptions {
  /** Whether files are kept in the page's storage. */
  readonly isCached: boolean;
  /** Whether to make no requests. */
  readonly offline?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (
    progress: { stage: "download"; file: string; loaded: number; total?: number },
  ) => void;
  /** Takes a sentence for the model's notes. */
  readonly onNote?: (note: string) => void;
}

/** Endings of files of a model; a path with another one is a folder. */
const FILES = /\.(safetensors|gguf|pt|pth|ckpt|bin|json|txt|jinja|pkl|model|py|md)$/i;

/** Files by URL. */
export class UrlFiles {
  readonly #manifests = new Map<string, Promise<Manifest>>();
  readonly #found = new Map<string, Promise<RemoteFile | null>>();
  /** Paths in the cache of the files that this load has downloaded. */
  readonly #fetched: { folder: string; name: string }[] = [];
  #isOffline: boolean;

  constructor(readonly client: UrlClient, readonly options: UrlOptions) {
    this.#isOffline = options.offline ?? false;
  }

  async kindOf(url: string): Promise<PathKind> {
    if (!FILES.test(url)) return "folder";
    return await this.#find(url) ? "file" : null;
  }

  async open(url: string): Promise<ByteSource> {
    const file = await this.#find(url);
    if (!file) throw new CheckpointError(`Cannot open "${url}": there is no such file`);
    if (!this.options.isCached) return this.client.open(url, file, this.options.signal);
    const { folder, name } = split(url);
    const path = beside(cacheOf(folder), name);
    try {
      await withLock(path, this.options.signal, () => this.#ensure(url, path, file));
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#drop(folder, name);
      throw await fullError(this.client.source, file.size ?? 0);
    }
    return renamed(await openOpfs(path), url);
  }

  /** Removes the files that this load has downloaded: they are no model. */
  async forget(): Promise<void> {
    for (const { folder, name } of this.#fetched.splice(0)) await this.#drop(folder, name);
  }

  async #drop(folder: string, name: string): Promise<void> {
    const manifest = await this.#manifest(folder);
    delete manifest.files[name];
    delete manifest.partial[name];
    await remove(beside(cacheOf(folder), name));
    const isEmpty = !Object.keys({ ...manifest.files, ...manifest.partial }).length;
    // A full storage takes no text; then the description names a missing file, which is harmless.
    await (isEmpty ? remove(cacheOf(folder)) : save(manifest)).catch(() => {});
  }

  #find(url: string): Promise<RemoteFile | null> {
    const found = this.#found.get(url) ?? this.#look(url);
    this.#found.set(url, found);
    return found;
  }

  async #look(url: string): Promise<RemoteFile | null> {
    const { folder, name } = split(url);
    const { files } = await this.#manifest(folder);
    const known = Object.hasOwn(files, name) ? files[name] : null;
    if (this.#isOffline) return known;
    const hasAny = Object.keys(files).length > 0;
    try {
      return await this.client.stat(url, hasAny, this.options.signal);
    } catch (error) {
      if (!hasAny || !(error instanceof Unreachable)) throw error;
      this.#isOffline = true;
      this.options.onNote?.(`Loaded from the cache: ${error.message}.`);
      return known;
    }
  }

  async #ensure(url: string, path: string, file: RemoteFile): Promise<void> {
    const { folder, name } = split(url);
    const manifest = await this.#manifest(folder);
    const known = Object.hasOwn(manifest.files, name) ? manifest.files[name] : undefined;
    if (known && await OPFS_DISK.sizeOf(path) === known.size && isSame(known, file)) return;
    if (this.#isOffline) {
      throw this.client.fail(`"${name}" in the cache is damaged; load it with a connection`);
    }
    if (known) {
      delete manifest.files[name];
      await save(manifest);
      await remove(path);
    }
    const partial = manifest.partial[name];
    if (!partial || !isSame(partial, file)) await remove(partialPath(path));
    const { source } = this.client;
    if (file.size !== undefined) {
      await expectRoom(source, file.size - (await partialSize(path) ?? 0));
    }
    manifest.partial[name] = file;
    await save(manifest);
    const sha256 = await this.#download(url, path, file);
    const size = (await OPFS_DISK.sizeOf(path))!;
    manifest.files[name] = { ...file, size, sha256 };
    delete manifest.partial[name];
    await save(manifest);
    this.#fetched.push({ folder, name });
  }

  async #download(url: string, path: string, file: RemoteFile): Promise<string> {
    const { client, options: { signal, onProgress } } = this;
    const { name } = split(url);
    let loaded = 0;
    const onBytes = (count: number) => {
      loaded += count;
      const total = file.size === undefined ? {} : { total: file.size };
      onProgress?.({ stage: "download", file: name, loaded, ...total });
    };
    const download = client.download.bind(client, url, file);
    try {
      return await fill(OPFS_DISK, path, file, (sink) => download(sink, signal), onBytes, signal);
    } catch (error) {
      if (!(error instanceof WrongContent)) throw error;
      throw client.fail(`"${name}" arrived damaged twice: ${error.message}; try again`);
    }
  }

  #manifest(folder: string): Promise<Manifest> {
    const found = this.#manifests.get(folder) ??
      (this.options.isCached ? readManifest(folder) : Promise.resolve(empty(folder)));
    this.#manifests.set(folder, found);
    return found;
  }
}

function split(url: string): { folder: string; name: string } {
  const folder = folderOf(url);
  return { folder, name: url.slice(folder.length) };
}

function renamed(source: ByteSource, name: string): ByteSource {
  return {
    name,
    size: source.size,
    read: (offset, into) => source.read(offset, into),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** Whether a file is the one that was downloaded, as far as the server describes it. */
function isSame(known: RemoteFile, now: RemoteFile): boolean {
  const keys = ["size", "etag", "modified"] as const;
  return keys.every((key) =>
    known[key] === undefined || now[key] === undefined || known[key] === now[key]
  );
}

/** The folder of the cache for a folder at a server. */
function cacheOf(folder: string): string {
  const hasher = createHasher("sha256");
  hasher.update(new TextEncoder().encode(folder));
  return `${URL_CACHE}/${hasher.digest().slice(0, 16)}`;
}

function empty(url: string): Manifest {
  return { url, files: {}, partial: {} };
}

async function readManifest(url: string): Promise<Manifest> {
  const manifest = await readManifestIn(cacheOf(url));
  return manifest?.url === url ? manifest : empty(url);
}

/** The description of a folder of the cache; undefined if there is none, or a damaged one. */
export async function readManifestIn(folder: string): Promise<Manifest | undefined> {
  const value = parsed(await readText(beside(folder, MANIFEST)) ?? "");
  const isOurs = isRecord(value) && typeof value.url === "string" && isRecord(value.files) &&
    isRecord(value.partial);
  return isOurs ? value as unknown as Manifest : undefined;
}

/** The value of JSON; undefined if it is none, as after the crash of a system. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

async function save(manifest: Manifest): Promise<void> {
  await writeText(beside(cacheOf(manifest.url), MANIFEST), JSON.stringify(manifest));
}

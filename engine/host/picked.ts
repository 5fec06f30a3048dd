/**
 * Files that the visitor of a page chose: a list of files, or a folder.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import type { ByteSource, PathKind } from "./mod.ts";
import { blobSource, type DirectoryHandle, fileIn, folderIn, kindIn } from "./opfs.ts";
import { type Mount, mount } from "./page.ts";

/** A file with its path in a chosen folder, which browsers give only if a folder was chosen. */
type PickedFile = File & { readonly webkitRelativePath?: string };

/** Endings of files that are a model by themselves. */
const WEIGHTS = /\.(safetensors|gguf|pt|pth|ckpt|bin)$/i;

/**
 * Makes a list of files readable.
 * @returns path of their folder; of the file, if it is the only one with weights.
 * @throws {CheckpointError} If the list is empty.
 */
export function mountFiles(files: readonly File[]): string {
  if (!files.length) throw new CheckpointError("Cannot open files: expected some, got none");
  const paths = files.map((file: PickedFile) => file.webkitRelativePath || file.name);
  const [top] = paths[0].split("/");
  const isFolder = paths.every((path) => path.startsWith(`${top}/`));
  const name = isFolder ? top : files.length === 1 ? files[0].name : `${files.length} files`;
  const byPath = new Map(
    paths.map((path, i) => [isFolder ? path.slice(top.length + 1) : path, files[i]]),
  );
  const prefix = `files:/${name}/`;
  mount(prefix, new FileList(prefix, byPath));
  const weights = [...byPath.keys()].filter((path) => WEIGHTS.test(path));
  return weights.length === 1 && !byPath.has("config.json") ? prefix + weights[0] : prefix;
}

/**
 * Makes a folder readable.
 * @returns its path.
 */
export function mountFolder(folder: DirectoryHandle): string {
  const prefix = `files:/${folder.name}/`;
  mount(prefix, new PickedFolder(prefix, folder));
  return prefix;
}

function partsBelow(prefix: string, path: string): string[] {
  return path.slice(prefix.length).split("/").filter((part) => part !== "" && part !== ".");
}

function missing(path: string): CheckpointError {
  return new CheckpointError(`Cannot open "${path}": there is no such file`);
}

class FileList implements Mount {
  constructor(readonly prefix: string, readonly files: ReadonlyMap<string, File>) {}

  open(path: string): Promise<ByteSource> {
    const file = this.files.get(partsBelow(this.prefix, path).join("/"));
    return file ? Promise.resolve(blobSource(path, file)) : Promise.reject(missing(path));
  }

  kindOf(path: string): Promise<PathKind> {
    const name = partsBelow(this.prefix, path).join("/");
    if (this.files.has(name)) return Promise.resolve("file");
    return Promise.resolve(name === "" || this.#below(name).length ? "folder" : null);
  }

  list(folder: string): Promise<string[]> {
    const names = this.#below(partsBelow(this.prefix, folder).join("/"));
    return Promise.resolve([...new Set(names.map((path) => path.split("/")[0]))]);
  }

  /** Paths below a folder, from it on. */
  #below(name: string): string[] {
    const folder = name === "" ? "" : `${name}/`;
    return [...this.files.keys()].filter((path) => path.startsWith(folder))
      .map((path) => path.slice(folder.length));
  }
}

class PickedFolder implements Mount {
  constructor(readonly prefix: string, readonly folder: DirectoryHandle) {}

  async open(path: string): Promise<ByteSource> {
    const file = await fileIn(this.folder, partsBelow(this.prefix, path));
    if (file) return blobSource(path, await file.getFile());
    throw missing(path);
  }

  kindOf(path: string): Promise<PathKind> {
    return kindIn(this.folder, partsBelow(this.prefix, path));
  }

  async list(path: string): Promise<string[]> {
    const folder = await folderIn(this.folder, partsBelow(this.prefix, path));
    return folder ? await Array.fromAsync(folder.keys()) : [];
  }
}

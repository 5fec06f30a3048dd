/**
 * Host for runtimes with files (Deno, Node, Bun): files, environment, machine facts.
 *
 * @module
 */
import { WEB_HOST } from "../../kernels/host.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { readActivity, readV8Flags } from "./activity.ts";
import type { ByteSource, Host, PathKind } from "./mod.ts";
import { readPlatform, totalMemory } from "./platform.ts";
import { TILE_STORE } from "./tile_cache.ts";
import { type OpenFile, runtime } from "./runtime.ts";

/** The host. */
export const SYSTEM_HOST: Host = {
  open: openFile,
  kindOf,
  list,
  env: (name) => runtime.env.get(name),
  tiles: TILE_STORE,
  totalMemory,
  platform: readPlatform,
  activity: readActivity,
  compute: {
    get gpu() {
      return WEB_HOST.gpu;
    },
    get cores() {
      return WEB_HOST.cores;
    },
    engineFlags: readV8Flags,
    startWorker: WEB_HOST.startWorker,
    keepAlive: WEB_HOST.keepAlive,
    threadsDenied,
  },
};

/** Folder of the modules that a worker loads. */
const KERNELS = new URL("../../kernels/", import.meta.url);

/** A worker reads its modules from files again, which takes a permission; imports take none. */
function threadsDenied(): string | undefined {
  if (KERNELS.protocol !== "file:") return undefined;
  if (runtime.permissions.querySync({ name: "read", path: KERNELS }).state === "granted") return;
  const path = decodeURIComponent(KERNELS.pathname).replace(/\/$/, "");
  return `threads read their modules from files; --allow-read=${path} lets them`;
}

async function openFile(path: string): Promise<ByteSource> {
  try {
    // runtime.open() would block on a pipe, so the kind is checked first.
    const { isFile, size } = await runtime.stat(path);
    if (!isFile) throw new CheckpointError(`Cannot open "${path}": expected a regular file`);
    return new FileSource(path, size, await runtime.open(path));
  } catch (error) {
    throw asCheckpointError(error, path);
  }
}

async function kindOf(path: string): Promise<PathKind> {
  try {
    return (await runtime.stat(path)).isDirectory ? "folder" : "file";
  } catch (error) {
    const { NotFound, NotADirectory } = runtime.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return null;
    throw asCheckpointError(error, path);
  }
}

async function list(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(runtime.readDir(folder))).map(({ name }) => name);
  } catch (error) {
    throw asCheckpointError(error, folder);
  }
}

class FileSource implements ByteSource {
  constructor(readonly name: string, readonly size: number, readonly file: OpenFile) {}

  // deno-lint-ignore require-await -- the interface is async; readSync is 2 to 3 × as fast
  async read(offset: number, into: Uint8Array): Promise<void> {
    try {
      this.file.seekSync(offset, runtime.SeekMode.Start);
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
  if (error instanceof runtime.errors.NotFound) {
    return new CheckpointError(`Cannot open "${path}": there is no such file`);
  }
  return new CheckpointError(`Cannot open "${path}": ${messageOf(error)}`);
}

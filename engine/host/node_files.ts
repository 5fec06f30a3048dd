/**
 * Files of the runtime interface for Node and Bun.
 *
 * Functions that are asynchronous in Deno do their work at once here: each takes microseconds, but
 * for a copy, which the hub's cache makes only where it cannot link.
 *
 * @module
 */
import type { Stats } from "node:fs";
import { builtin } from "./builtin.ts";
import { later, mapped } from "./node_errors.ts";
import type { FileFacts, Files, OpenFile } from "./runtime_api.ts";

type Fs = typeof import("node:fs");

/** The functions on files. */
export function nodeFiles(): Files {
  const fs = builtin("node:fs")!;
  const readText = (path: string | URL) => fs.readFileSync(path, "utf8");
  const writeText: Files["writeTextFileSync"] = (path, text, { append, mode } = {}) =>
    fs.writeFileSync(path, text, { flag: append ? "a" : "w", mode });
  const open: Files["openSync"] = (path, options = { read: true }) =>
    new NodeFile(fs, fs.openSync(path, flagsOf(options, fs.constants), options.mode));
  const makeFolder = (path: string | URL, { recursive }: Deno.MkdirOptions = {}) =>
    recursive ? makeFolders(fs, path as string) : void fs.mkdirSync(path);
  const stat = (path: string) => factsOf(fs.statSync(path));
  // Not `rmSync`: it repeats removals that fail, and its errors have another form.
  const remove = (path: string | URL) => fs.unlinkSync(path);
  return {
    chmod: later(fs.chmodSync),
    chmodSync: mapped(fs.chmodSync),
    copyFile: later((from: string | URL, to: string | URL) => fs.copyFileSync(from, to)),
    cwd: mapped(() => globalThis.process.cwd()),
    lstatSync: mapped((path) => factsOf(fs.lstatSync(path))),
    mkdir: later(makeFolder),
    mkdirSync: mapped(makeFolder),
    open: later(open),
    openSync: mapped(open),
    readDir: (path) => namesIn(fs, path),
    readFile: later((path: string | URL) => new Uint8Array(fs.readFileSync(path))),
    readLinkSync: mapped((path) => fs.readlinkSync(path)),
    readTextFile: later(readText),
    readTextFileSync: mapped(readText),
    realPathSync: mapped((path) => fs.realpathSync.native(path as string)),
    remove: later(remove),
    removeSync: mapped(remove),
    rename: later(fs.renameSync),
    renameSync: mapped(fs.renameSync),
    stat: later(stat),
    statSync: mapped(stat),
    symlink: later((target, path, options) => fs.symlinkSync(target, path, options?.type)),
    writeTextFile: later(writeText),
    writeTextFileSync: mapped(writeText),
  };
}

/**
 * Makes a folder and the missing ones above it.
 *
 * Trick: not by Node's own recursion, which never ends in a folder that takes no new ones and says
 * that it is missing, such as /proc (seen in Node 22 and 24).
 */
function makeFolders(fs: Fs, path: string): void {
  try {
    fs.mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && fs.statSync(path).isDirectory()) return;
    const parent = builtin("node:path")!.dirname(path);
    if (code !== "ENOENT" || fs.existsSync(parent)) throw error;
    makeFolders(fs, parent);
    makeFolders(fs, path);
  }
}

async function* namesIn(fs: Fs, path: string): AsyncGenerator<{ readonly name: string }> {
  for (const name of await later(() => fs.readdirSync(path))()) yield { name };
}

function factsOf(stats: Stats): FileFacts {
  return {
    isFile: stats.isFile(),
    isDirectory: stats.isDirectory(),
    isSymlink: stats.isSymbolicLink(),
    size: stats.size,
    ino: stats.ino,
    mode: stats.mode,
  };
}

function flagsOf(options: Deno.OpenOptions, constants: Fs["constants"]): number {
  const { read, append, truncate, create, createNew } = options;
  const write = options.write || append;
  return (read && write ? constants.O_RDWR : write ? constants.O_WRONLY : constants.O_RDONLY) |
    (append ? constants.O_APPEND : 0) |
    (truncate ? constants.O_TRUNC : 0) |
    (create || createNew ? constants.O_CREAT : 0) |
    (createNew ? constants.O_EXCL : 0);
}

/** An open file. Node has no `seek`, so the position of a regular file is kept here. */
class NodeFile implements OpenFile {
  #position: number | null;

  constructor(readonly fs: Fs, readonly descriptor: number) {
    this.#position = fs.fstatSync(descriptor).isFile() ? 0 : null;
  }

  readonly readSync = mapped((into: Uint8Array): number | null => {
    const count = this.fs.readSync(this.descriptor, into, 0, into.length, this.#position);
    this.#advance(count);
    return count || (into.length ? null : 0);
  });

  readonly writeSync = mapped((bytes: Uint8Array): number => {
    const count = this.fs.writeSync(this.descriptor, bytes, 0, bytes.length, this.#position);
    this.#advance(count);
    return count;
  });

  readonly seekSync = (offset: number): number => this.#position = offset;

  readonly truncateSync = mapped((size?: number): void =>
    this.fs.ftruncateSync(this.descriptor, size)
  );

  readonly statSync = mapped((): FileFacts => factsOf(this.fs.fstatSync(this.descriptor)));
  readonly syncSync = mapped((): void => this.fs.fsyncSync(this.descriptor));
  readonly syncDataSync = mapped((): void => this.fs.fdatasyncSync(this.descriptor));

  readonly read = later(this.readSync);
  readonly write = later(this.writeSync);
  readonly seek = later(this.seekSync);
  readonly truncate = later(this.truncateSync);
  readonly stat = later(this.statSync);

  /** Without locks, appending in one piece is what keeps lines whole. */
  readonly lockSync = (): void => void lock(this.descriptor, true);

  readonly tryLock = later((): boolean => {
    const isLocked = lock(this.descriptor, false);
    if (isLocked === null) throw new Error("Cannot lock: expected the program flock, got none");
    return isLocked;
  });

  readonly close = mapped((): void => this.fs.closeSync(this.descriptor));

  [Symbol.dispose](): void {
    this.close();
  }

  #advance(count: number): void {
    if (this.#position !== null) this.#position += count;
  }
}

/**
 * Locks an open file exclusively; null without the program flock, as on macOS and Windows.
 *
 * Trick: Node has no locks. `flock` (util-linux, BusyBox) locks the descriptor that it inherits. A
 * lock belongs to the open file, so it remains when flock ends. Deno and Python take the same lock,
 * that of `flock(2)`.
 */
function lock(descriptor: number, waits: boolean): boolean | null {
  const { error, status } = builtin("node:child_process")!.spawnSync(
    "flock",
    [...waits ? [] : ["-n"], "-x", "0"],
    { stdio: [descriptor, "ignore", "ignore"] },
  );
  if (error) return null;
  return status === 0;
}

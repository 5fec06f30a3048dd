/**
 * Host interface: files, environment, caches and machine facts of a runtime.
 *
 * It replaces direct calls of one runtime's API. It has no policy: the engine decides which files
 * make a model, the defaults of options and the folder of downloads. It does not wrap web standards
 * (`fetch`, `performance`, `crypto`), nor the hub's cache, whose locks and links are in
 * `engine/hub/cache.ts`. A host is never disposed of; the caller of `open` disposes of the source.
 *
 *     engine ──▶ files.ts, choose.ts ──▶ Host ◀── system.ts ──▶ platform.ts, tile_cache.ts
 *                                         ▲                └──▶ runtime.ts
 *                                         └────── page.ts ──▶ opfs.ts
 *                (choose.ts loads the one of the runtime)
 *
 * @module
 */
import type { ComputeHost } from "../../kernels/host.ts";
import type { TileStore } from "../../kernels/mod.ts";

/** Bytes with random access: a file, or a slice of one. */
export interface ByteSource extends Disposable {
  /** Path of the file, for messages. */
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {CheckpointError} If the source ends before.
   */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/** An open partial file, which is read to its end and then written. */
export interface PartialFile extends Disposable {
  /** Reads the next bytes; null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes at the position; returns the number of bytes written. */
  write(chunk: Uint8Array): Promise<number>;
  /** Discards all bytes. */
  clear(): Promise<void>;
}

/** File operations of a model cache. */
export interface Disk {
  /** Opens a file for reading and writing, and creates it if it is missing. */
  open(path: string): Promise<PartialFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Bytes of a file; undefined if there is none. */
  sizeOf(path: string): Promise<number | undefined>;
}

/** Kind of a path, after following links; null if there is nothing. */
export type PathKind = "file" | "folder" | null;

/** Machine and runtime, as shown in reports. */
export interface Platform {
  /** Name, release and architecture of the operating system. */
  readonly os: string;
  /** Model of the processor. */
  readonly cpu: string;
  /** Versions of the runtime's parts; null for those that it lacks. */
  readonly versions: {
    readonly deno: string | null;
    readonly v8: string | null;
    readonly typescript: string | null;
    /** In Node. */
    readonly node?: string;
    /** In Bun. */
    readonly bun?: string;
    /** Name and version of the browser, in a page. */
    readonly browser?: string;
  };
  /** Commit of the engine's checkout; null if it does not run from a checkout. */
  readonly commit: string | null;
  /** Flags that V8 was started with; null if they cannot be read. */
  readonly v8Flags: readonly string[] | null;
}

/** State of the machine at one moment; null for each value that cannot be read. */
export interface MachineActivity {
  /** Runnable processes, averaged over 1, 5 and 15 minutes. */
  readonly loadAverage: readonly [number, number, number] | null;
  /** Clock of each processor in MHz. */
  readonly cpuMhz: readonly number[] | null;
  /** CPU time of all processes since the start of the system, and the number of processors. */
  readonly cpu: { readonly busyMs: number; readonly processors: number } | null;
  /** CPU time that a hypervisor gave to other machines since the start of the system. */
  readonly stolenMs: number | null;
  /** CPU time of this process and all its threads. */
  readonly ownMs: number | null;
}

/** The runtime's services for the engine. */
export interface Host {
  /**
   * Opens a regular file.
   * @throws {CheckpointError} If it is missing, unreadable or not a regular file.
   */
  open(path: string): Promise<ByteSource>;
  /**
   * The kind of a path; a pipe or a device counts as a file.
   * @throws {CheckpointError} If the path cannot be checked, such as without permission.
   */
  kindOf(path: string): Promise<PathKind>;
  /**
   * Names in a folder, in any order.
   * @throws {CheckpointError} If it cannot be read.
   */
  list(folder: string): Promise<string[]>;
  /** An environment variable; undefined if it is not set. */
  env(name: string): string | undefined;
  /** Stores a GPU's fastest matmul tiles between runs. */
  readonly tiles: TileStore;
  /** Bytes of the machine's memory; Infinity if unknown. */
  totalMemory(): number;
  /** Facts for a report; may start a process (`git`). */
  platform(): Promise<Platform>;
  /** CPU times, load and clock at this moment. */
  activity(): MachineActivity;
  /** The runtime's services for backends. */
  readonly compute: ComputeHost;
}

/**
 * The host: files, environment, caches and machine facts, behind one interface.
 *
 * Think of it as what the engine would import from a runtime if it ran on one runtime only. It has
 * no policy: which files make a model, what an option defaults to and where a download goes are the
 * engine's. It has nothing that web standards cover (`fetch`, `performance`, `crypto`), and no hub
 * cache, whose locks and links belong to `engine/hub/cache.ts`. A host lives as long as the
 * process; who opens a `ByteSource` disposes of it.
 *
 *     engine ──▶ files.ts, choose.ts ──▶ Host ◀── deno.ts ──▶ platform.ts, tile_cache.ts
 *                (loads in a page)                (loaded by choose.ts, on Deno only)
 *
 * @module
 */
import type { ComputeHost } from "../../kernels/host.ts";
import type { TileStore } from "../../kernels/mod.ts";

/** Bytes with random access: a file, or a slice of one. */
export interface ByteSource extends Disposable {
  /** For messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {CheckpointError} If the source ends before.
   */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/** What a path leads to, links followed. */
export type PathKind = "file" | "folder" | null;

/** Facts about the machine and the runtime, as reports show them. */
export interface Platform {
  /** Name, release and architecture of the operating system. */
  readonly os: string;
  /** Model of the processor. */
  readonly cpu: string;
  /** Versions of the runtime's parts. */
  readonly versions: { readonly deno: string; readonly v8: string; readonly typescript: string };
  /** HEAD of the engine's own checkout; null if it runs from anywhere else. */
  readonly commit: string | null;
}

/** The platform below the engine. */
export interface Host {
  /**
   * Opens a regular file.
   * @throws {CheckpointError} If it is missing, unreadable, or no regular file.
   */
  open(path: string): Promise<ByteSource>;
  /**
   * What a path leads to; a pipe or a device counts as a file, and nothing is null.
   * @throws {CheckpointError} If that cannot be found out, as without permission.
   */
  kindOf(path: string): Promise<PathKind>;
  /**
   * Names in a folder, in any order.
   * @throws {CheckpointError} If it cannot be read.
   */
  list(folder: string): Promise<string[]>;
  /** An environment variable. */
  env(name: string): string | undefined;
  /** Keeps a GPU's tile choices from one run to the next. */
  readonly tiles: TileStore;
  /** Bytes of the machine's memory; Infinity if they cannot be found out. */
  totalMemory(): number;
  /** Facts for a report. May start a process. */
  platform(): Promise<Platform>;
  /** What backends need. */
  readonly compute: ComputeHost;
}

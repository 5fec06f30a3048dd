/**
 * Cache interface of a repository: on disk, in a page's storage, or none.
 *
 * @module
 */
import type { HubFile } from "./client.ts";
import type { Sink, Unreachable } from "./http.ts";

/** Files of one repository, by commit. */
export interface ModelCache {
  /** Folder of the whole cache. */
  readonly folder: string;
  /** The folder with the files of a commit. */
  snapshot(commit: string): string;
  /** The commit that a branch or a tag was last seen at. */
  readRef(revision: string): Promise<string | undefined>;
  /** Writes the commit of a branch or a tag. */
  writeRef(revision: string, commit: string): Promise<void>;
  /** Whether a snapshot has the file in its full size. */
  has(commit: string, file: HubFile): Promise<boolean>;
  /** @throws {CheckpointError} If there is surely no room for the missing files. */
  expectRoom?(commit: string, files: readonly HubFile[]): Promise<void>;
  /**
   * Puts a file into a snapshot.
   * @param download appends the missing bytes to a partial file.
   * @param onBytes called with the number of bytes added; negative if bytes are discarded.
   * @throws {WrongContent} If the file's size or hash is wrong twice.
   */
  ensure(
    commit: string,
    file: HubFile,
    download: (partial: Sink) => Promise<void>,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void>;
}

/** Where a download keeps its files. */
export interface HubDisk {
  readonly cache: ModelCache;
  /** Whether an error comes from a file operation, not from the network. */
  isSystemError(error: unknown): boolean;
  readToken(path: string): Promise<string>;
  /** Next step after such an error. */
  readonly advice: string;
  /** Called if the cache is used because the hub cannot be reached; else that is an error. */
  onUnreachable?(error: Unreachable): void;
}

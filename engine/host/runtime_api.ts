/**
 * Runtime interface: the part of Deno's API that the engine's host and the command line use.
 *
 * Deno implements it itself, and `node.ts` implements it for Node and Bun. It has no policy and no
 * state. A name means what Deno's documentation says, an error of a file is one of `errors`, and
 * the caller of `open` closes the file. Pages have no runtime: code that loads there imports it
 * late.
 *
 *     cli/  engine/host/system.ts  engine/hub/cache.ts ──▶ runtime.ts ◀── Deno
 *                                                                     ◀── node.ts ──▶ node:fs …
 *
 * @module
 */

/** Kind, size and identity of a file. */
export type FileFacts = Pick<
  Deno.FileInfo,
  "isFile" | "isDirectory" | "isSymlink" | "size" | "ino" | "mode"
>;

/** An open file. Its lock excludes other processes; closing the file releases it. */
export interface OpenFile extends Disposable {
  read(into: Uint8Array): Promise<number | null>;
  readSync(into: Uint8Array): number | null;
  write(bytes: Uint8Array): Promise<number>;
  writeSync(bytes: Uint8Array): number;
  seek(offset: number, from: Deno.SeekMode.Start): Promise<number>;
  seekSync(offset: number, from: Deno.SeekMode.Start): number;
  truncate(size?: number): Promise<void>;
  truncateSync(size?: number): void;
  stat(): Promise<FileFacts>;
  statSync(): FileFacts;
  syncSync(): void;
  syncDataSync(): void;
  lockSync(exclusive: boolean): void;
  /** @throws {Error} If the file system or the runtime has no locks. */
  tryLock(exclusive: boolean): Promise<boolean>;
  close(): void;
}

/** Standard output or standard error. */
export type OutputStream = Pick<typeof Deno.stdout, "writeSync" | "isTerminal">;

/** Standard input. */
export type InputStream = Pick<
  typeof Deno.stdin,
  "read" | "readable" | "isTerminal" | "setRaw"
>;

/** Classes of errors that callers tell apart. */
export type RuntimeErrors = Readonly<
  Record<
    | "AlreadyExists"
    | "BrokenPipe"
    | "IsADirectory"
    | "NotADirectory"
    | "NotCapable"
    | "NotFound"
    | "PermissionDenied"
    | "WouldBlock",
    new (message?: string, options?: ErrorOptions) => Error
  >
>;

/** A program to be run. */
export type ProgramClass = new (
  program: string,
  options: Pick<Deno.CommandOptions, "args" | "cwd" | "stdout" | "stderr">,
) => { output(): Promise<Pick<Deno.CommandOutput, "success" | "stdout">> };

/** Functions on files that are as in Deno. */
type SameFunctions = Pick<
  typeof Deno,
  | "chmod"
  | "chmodSync"
  | "copyFile"
  | "cwd"
  | "mkdir"
  | "mkdirSync"
  | "readFile"
  | "readLinkSync"
  | "readTextFile"
  | "readTextFileSync"
  | "realPathSync"
  | "remove"
  | "removeSync"
  | "rename"
  | "renameSync"
  | "symlink"
>;

/** The runtime's files. */
export interface Files extends SameFunctions {
  stat(path: string): Promise<FileFacts>;
  statSync(path: string): FileFacts;
  lstatSync(path: string): FileFacts;
  readDir(path: string): AsyncIterable<{ readonly name: string }>;
  open(path: string, options?: Deno.OpenOptions): Promise<OpenFile>;
  openSync(path: string, options?: Deno.OpenOptions): OpenFile;
  writeTextFile(path: string, text: string): Promise<void>;
  writeTextFileSync(path: string, text: string, options?: Deno.WriteFileOptions): void;
}

/** The runtime's files, streams and process. */
export interface Runtime extends Files {
  readonly args: readonly string[];
  readonly Command: ProgramClass;
  readonly build: Pick<typeof Deno.build, "os" | "arch" | "target">;
  readonly env: Pick<typeof Deno.env, "get" | "set">;
  readonly errors: RuntimeErrors;
  readonly SeekMode: { readonly Start: Deno.SeekMode.Start };
  readonly permissions: {
    querySync(permission: Deno.PermissionDescriptor): { readonly state: Deno.PermissionState };
  };
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  /** Columns of the terminal. @throws {Error} If there is none. */
  consoleSize(): { readonly columns: number };
  systemMemoryInfo(): Pick<Deno.SystemMemoryInfo, "total" | "available">;
  addSignalListener(signal: "SIGINT", handler: () => void): void;
  removeSignalListener(signal: "SIGINT", handler: () => void): void;
  exit(status: number): never;
}

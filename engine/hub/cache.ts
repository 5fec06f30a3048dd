/**
 * The cache that Python's huggingface_hub keeps, shared with it: blobs by their hash, snapshots of commits that link to them, refs
 * that say which commit a branch was last seen at.
 *
 *     models--{owner}--{name}/blobs/{etag}   snapshots/{commit}/{path} → ../../blobs/{etag}   refs/{revision}
 *     .locks/models--{owner}--{name}/{etag}.lock
 *
 * A file gets its name only when it is whole and its hash is right, so that whatever has a name can be used.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { builtin } from "../host/builtin.ts";
import { exists } from "../host/files.ts";
import { type HubFile, type HubTimes, type Sink, WrongContent } from "./client.ts";
import { isCommit } from "./names.ts";

const { createHash } = builtin("node:crypto")!; // Deno has it

/** As https://bford.info/cachedir/ has it; backups leave such a folder out. */
const CACHEDIR_TAG = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by wgslm.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;

/** Bytes that are read at once when a part of a file is hashed. */
const CHUNK_BYTES = 1 << 20;

/** The part of the cache that belongs to one repository. */
export class HubCache {
  readonly #repo: string;

  /**
   * @param folder of the whole cache, which other repositories share.
   * @param links false where symbolic links are not wanted.
   */
  constructor(
    readonly folder: string,
    repo: string,
    readonly links: boolean,
    readonly times: HubTimes,
  ) {
    this.#repo = `models--${repo.replace("/", "--")}`;
  }

  /** The folder with the files of a commit. */
  snapshot(commit: string): string {
    return `${this.folder}/${this.#repo}/snapshots/${commit}`;
  }

  #blob(etag: string): string {
    return `${this.folder}/${this.#repo}/blobs/${etag}`;
  }

  /** The commit that a branch or a tag was last seen at. */
  async readRef(revision: string): Promise<string | undefined> {
    const path = `${this.folder}/${this.#repo}/refs/${revision}`;
    if (!await sizeOf(path)) return undefined;
    const commit = (await Deno.readTextFile(path)).trim();
    return isCommit(commit) ? commit : undefined;
  }

  /** Notes the commit of a branch or a tag, as Python does: without a newline, which Python would take for a part of it. */
  async writeRef(revision: string, commit: string): Promise<void> {
    const path = `${this.folder}/${this.#repo}/refs/${revision}`;
    try {
      if (await this.readRef(revision) === commit) return;
      await makeFolderOf(path);
      await replace(path, (temporary) => Deno.writeTextFile(temporary, commit));
    } catch {
      // The files are there and can be used, be it that the cache is for reading alone. Only --offline would miss the ref.
    }
  }

  /** Whether a snapshot has a file, of the size that it should have. */
  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return await sizeOf(`${this.snapshot(commit)}/${path}`) === size;
  }

  /**
   * Puts a file into a snapshot. One process at a time downloads a blob; others wait for it and find it there.
   * @param download fills what is there of the blob up to its end.
   * @param onBytes is told of bytes that are there, and of such that were thrown away.
   * @throws {WrongContent} when the blob's hash is not its name.
   */
  async bring(
    commit: string,
    file: HubFile,
    download: (partial: Sink) => Promise<void>,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    const blob = this.#blob(file.etag);
    await this.#makeFolder();
    await makeFolderOf(blob);
    using _lock = await this.#lock(file.etag, signal);
    if (await sizeOf(blob) === file.size) onBytes(file.size);
    else await fill(blob, file, download, onBytes, signal);
    await this.#link(`${this.snapshot(commit)}/${file.path}`, file);
  }

  async #makeFolder(): Promise<void> {
    if (await exists(this.folder)) return;
    await Deno.mkdir(this.folder, { recursive: true });
    await Deno.writeTextFile(`${this.folder}/CACHEDIR.TAG`, CACHEDIR_TAG);
  }

  /** The lock that Python takes too. The system lets go of it when the process ends, however it ends. */
  async #lock(etag: string, signal?: AbortSignal): Promise<Disposable> {
    const path = `${this.folder}/.locks/${this.#repo}/${etag}.lock`;
    await makeFolderOf(path);
    while (true) {
      signal?.throwIfAborted();
      const file = await openLock(path);
      // Where a file system knows no locks, each goes its own way: both would write the same bytes to the same places.
      const held = await file.tryLock(true).catch(() => true);
      if (held && await isStillAt(file, path)) return file;
      file.close();
      await this.times.pause(this.times.pollMs, signal);
    }
  }

  async #link(path: string, { path: name, etag }: HubFile): Promise<void> {
    await makeFolderOf(path);
    const blob = this.#blob(etag);
    // Relative, so that the cache can be moved.
    const target = `${"../".repeat(name.split("/").length + 1)}blobs/${etag}`;
    await replace(path, async (temporary) => {
      if (this.links) {
        try {
          return await Deno.symlink(target, temporary, { type: "file" });
        } catch {
          // Windows without the right to, or a file system without links
        }
      }
      await Deno.copyFile(blob, temporary);
    });
  }
}

/** Downloads a blob under another name, and gives it its own when it is right. Wrong bytes are asked for once more, from the first. */
async function fill(
  blob: string,
  file: HubFile,
  download: (partial: Sink) => Promise<void>,
  onBytes: (count: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const path = `${blob}.wgslm.incomplete`;
  try {
    using partial = await Partial.open(path, file, onBytes, signal);
    for (let again = false;; again = true) {
      try {
        await download(partial);
        partial.check();
        break;
      } catch (error) {
        if (!(error instanceof WrongContent) || again) throw error;
        await partial.restart();
      }
    }
  } catch (error) {
    if (error instanceof WrongContent) await Deno.remove(path);
    throw error;
  }
  try {
    await Deno.rename(path, blob);
  } catch (error) {
    // Without locks another process may have done it, with the same bytes.
    if (await sizeOf(blob) !== file.size) throw error;
  }
}

/** What has come of a blob. It stays on the disk when its process is killed, and the next one goes on from there. */
class Partial implements Sink, Disposable {
  #hash = createHash("sha256");
  #position = 0;

  private constructor(
    readonly disk: Deno.FsFile,
    readonly file: HubFile,
    readonly onBytes: (count: number) => void,
  ) {}

  static async open(
    path: string,
    file: HubFile,
    onBytes: (count: number) => void,
    signal?: AbortSignal,
  ): Promise<Partial> {
    const disk = await Deno.open(path, { read: true, write: true, create: true });
    const partial = new Partial(disk, file, onBytes);
    try {
      partial.#startHash();
      const chunk = new Uint8Array(CHUNK_BYTES);
      for (let count; (count = await disk.read(chunk)) !== null;) {
        signal?.throwIfAborted();
        partial.#count(chunk.subarray(0, count));
      }
      return partial;
    } catch (error) {
      disk.close();
      throw error;
    }
  }

  get position(): number {
    return this.#position;
  }

  async write(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) done += await this.disk.write(chunk.subarray(done));
    this.#count(chunk);
  }

  async restart(): Promise<void> {
    await this.disk.truncate();
    await this.disk.seek(0, Deno.SeekMode.Start);
    this.onBytes(-this.#position);
    this.#position = 0;
    this.#startHash();
  }

  /** @throws {WrongContent} when it is not what its name says. */
  check(): void {
    const { size, etag } = this.file;
    const got = this.#hash.digest("hex");
    if (this.#position !== size) {
      throw new WrongContent(`expected ${size} bytes, got ${this.#position}`);
    }
    const kind = etag.length === 64 ? "sha256" : "git sha1";
    if (got !== etag) throw new WrongContent(`expected ${kind} ${etag}, got ${got}`);
  }

  #startHash(): void {
    const { etag, size } = this.file;
    this.#hash = createHash(etag.length === 64 ? "sha256" : "sha1");
    if (etag.length !== 64) this.#hash.update(`blob ${size}\0`); // what git hashes
  }

  #count(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#position += chunk.length;
    this.onBytes(chunk.length);
  }

  [Symbol.dispose](): void {
    this.disk.close();
  }
}

/**
 * The token that Python has kept in a file; "" if there is no such file.
 * @throws what the system refuses it with.
 */
export async function readToken(path: string): Promise<string> {
  try {
    return (await Deno.readTextFile(path)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/** Whether the system refused a file operation, in contrast to what a network refused. */
export function isSystemError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof CheckpointError) return false;
  return /\(os error \d+\)/.test(error.message) || Object.hasOwn(Deno.errors, error.name);
}

/** Bytes of a file, links followed; undefined where there is none. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const { isFile, size } = await Deno.stat(path);
    return isFile ? size : undefined;
  } catch (error) {
    const { NotFound, NotADirectory } = Deno.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return undefined;
    throw error;
  }
}

async function makeFolderOf(path: string): Promise<void> {
  await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
}

/** Puts something in the place of whatever has a path, so that nobody ever finds half of it. */
async function replace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    await make(temporary);
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {}); // may not have come to be
    throw error;
  }
}

async function openLock(path: string): Promise<Deno.FsFile> {
  try {
    const file = await Deno.open(path, { read: true, write: true, createNew: true });
    // As Python does, for other users of a shared cache; not every file system has such rights.
    if (Deno.build.os !== "windows") await Deno.chmod(path, 0o664).catch(() => {});
    return file;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return await Deno.open(path, { read: true, write: true, create: true });
  }
}

/** Whether a file is still the one of that path: some versions of Python's filelock remove it, and a lock on that guards nothing. */
async function isStillAt(file: Deno.FsFile, path: string): Promise<boolean> {
  const there = await Deno.stat(path).catch(() => null);
  return there !== null && there.ino === (await file.stat()).ino;
}

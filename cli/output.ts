/**
 * Output files, written atomically: to a temporary file in the same folder, then renamed. An
 * existing pipe or device cannot be replaced and is written to.
 *
 * @module
 */
import { messageOf } from "../engine/errors.ts";
import { print, writeAllSync } from "./terminal.ts";
import { type FileFacts, runtime } from "../engine/host/runtime.ts";

/** A file could not be written. */
export class OutputError extends Error {
  override readonly name = "OutputError";
}

/** An output file, checked to be writable before the work begins. */
export interface Output {
  readonly path: string;
  /**
   * @throws {OutputError} If it cannot be written; an earlier file is still there then.
   */
  write(text: string): void;
}

/**
 * Other names of the standard streams. Opening one would write a file behind it from its beginning.
 */
const STDOUT = /^\/dev\/(stdout|fd\/1)$|^\/proc\/self\/fd\/1$/;
const STDERR = /^\/dev\/(stderr|fd\/2)$|^\/proc\/self\/fd\/2$/;

/**
 * Makes the folder of an output and checks that a file can be written there.
 * @throws {OutputError} If it cannot.
 */
export function prepareOutput(path: string): Output {
  if (STDOUT.test(path)) return { path, write: print };
  if (STDERR.test(path)) return { path, write: sentenceOf(path, writeToStderr) };
  const write = sentenceOf(path, (text: string) => {
    if (isSpecial(path)) writeInto(path, text);
    else replace(followLinks(path), text);
  });
  sentenceOf(path, () => {
    if (isSpecial(path)) return;
    const target = followLinks(path);
    if (statOf(target)?.isDirectory) throw new Error("it is a folder");
    const folder = folderOf(target);
    runtime.mkdirSync(folder, { recursive: true });
    const probe = temporaryIn(folder);
    runtime.openSync(probe, { write: true, createNew: true }).close();
    runtime.removeSync(probe);
  })();
  return { path, write };
}

/** Whether two outputs would replace the same file. */
export function sameFile(a: string, b: string): boolean {
  if (STDOUT.test(a) || STDERR.test(a) || isSpecial(a)) return false;
  return normalise(followLinks(a)) === normalise(followLinks(b));
}

function normalise(path: string): string {
  const name = path.replace(/^.*[/\\]/, "");
  try {
    return `${runtime.realPathSync(folderOf(path))}/${name}`;
  } catch { // the folder does not exist yet
    return path.replace(/^(\.\/+)+/, "").replace(/\/(\.?\/)+/g, "/");
  }
}

function sentenceOf<A extends unknown[]>(path: string, act: (...args: A) => void) {
  return (...args: A): void => {
    try {
      act(...args);
    } catch (error) {
      throw new OutputError(`Cannot write "${path}": ${messageOf(error)}`, { cause: error });
    }
  };
}

function statOf(path: string): FileFacts | undefined {
  try {
    return runtime.statSync(path);
  } catch (error) {
    if (error instanceof runtime.errors.NotFound) return undefined;
    throw error;
  }
}

function isSpecial(path: string): boolean {
  const info = statOf(path);
  return info !== undefined && !info.isFile && !info.isDirectory;
}

/** The target of a path, existing or not: a link stays a link, and its target is replaced. */
function followLinks(path: string): string {
  let target = path;
  for (let hops = 0; hops < 40; hops++) {
    try {
      if (!runtime.lstatSync(target).isSymlink) return target;
    } catch (error) {
      if (error instanceof runtime.errors.NotFound) return target;
      throw error;
    }
    const next = runtime.readLinkSync(target);
    target = isAbsolute(next) ? next : `${folderOf(target)}/${next}`;
  }
  throw new Error("too many symbolic links");
}

function isAbsolute(path: string): boolean {
  return /^([/\\]|[A-Za-z]:[/\\])/.test(path);
}

function folderOf(path: string): string {
  const folder = /^([^]*)[/\\][^/\\]*$/.exec(path)?.[1];
  return folder === undefined ? "." : folder || "/";
}

/** A short name: the file's own may already have the maximal length. */
function temporaryIn(folder: string): string {
  return `${folder}/.wgslm-${crypto.randomUUID()}.tmp`;
}

function replace(target: string, text: string): void {
  const mode = statOf(target)?.mode;
  const temporary = temporaryIn(folderOf(target));
  try {
    {
      using file = runtime.openSync(temporary, { write: true, createNew: true });
      writeAllSync(file, new TextEncoder().encode(text));
      file.syncSync(); // some file systems report only here that they are full
    }
    if (mode && runtime.build.os !== "windows") runtime.chmodSync(temporary, mode & 0o777);
    runtime.renameSync(temporary, target);
  } catch (error) {
    try {
      runtime.removeSync(temporary);
    } catch { // it was never created
    }
    throw error;
  }
}

function writeInto(path: string, text: string): void {
  using file = runtime.openSync(path, { write: true });
  writeAllSync(file, new TextEncoder().encode(text));
}

function writeToStderr(text: string): void {
  writeAllSync(runtime.stderr, new TextEncoder().encode(text));
}

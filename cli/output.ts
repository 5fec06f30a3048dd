/**
 * Files that a run leaves. A file is there whole or not at all: it is written beside its
 * place and renamed. What exists and is no regular file (a pipe, a device) cannot be
 * replaced and is written to.
 *
 * @module
 */
import { messageOf } from "../engine/errors.ts";
import { print, writeAllSync } from "./terminal.ts";

/** A file could not be written. */
export class OutputError extends Error {
  override readonly name = "OutputError";
}

/** A place for a file, found to be writable before the work began. */
export interface Output {
  readonly path: string;
  /**
   * @throws {OutputError} when it cannot be written; what stood there before is still there then.
   */
  write(text: string): void;
}

/**
 * Other names of the streams: opened by these, a file behind them would be written
 * from its beginning again.
 */
const STDOUT = /^\/dev\/(stdout|fd\/1)$|^\/proc\/self\/fd\/1$/;
const STDERR = /^\/dev\/(stderr|fd\/2)$|^\/proc\/self\/fd\/2$/;

/**
 * Makes the folder of an output and checks that a file can be written there.
 * @throws {OutputError} when it cannot.
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
    Deno.mkdirSync(folder, { recursive: true });
    const probe = temporaryIn(folder);
    Deno.openSync(probe, { write: true, createNew: true }).close();
    Deno.removeSync(probe);
  })();
  return { path, write };
}

/** Whether two paths lead to one file that one output would take from the other. */
export function sameFile(a: string, b: string): boolean {
  if (STDOUT.test(a) || STDERR.test(a) || isSpecial(a)) return false;
  return normalise(followLinks(a)) === normalise(followLinks(b));
}

function normalise(path: string): string {
  const name = path.replace(/^.*[/\\]/, "");
  try {
    return `${Deno.realPathSync(folderOf(path))}/${name}`;
  } catch { // the folder is not there yet
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

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function isSpecial(path: string): boolean {
  const info = statOf(path);
  return info !== undefined && !info.isFile && !info.isDirectory;
}

/**
 * The file that a path leads to, whether it exists or not: a link stays a link, and what
 * it leads to is replaced.
 */
function followLinks(path: string): string {
  let target = path;
  for (let hops = 0; hops < 40; hops++) {
    try {
      if (!Deno.lstatSync(target).isSymlink) return target;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return target;
      throw error;
    }
    const next = Deno.readLinkSync(target);
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

/** A short name, since the file's own may already be as long as names can be. */
function temporaryIn(folder: string): string {
  return `${folder}/.wgslm-${crypto.randomUUID()}.tmp`;
}

function replace(target: string, text: string): void {
  const mode = statOf(target)?.mode;
  const temporary = temporaryIn(folderOf(target));
  try {
    {
      using file = Deno.openSync(temporary, { write: true, createNew: true });
      writeAllSync(file, new TextEncoder().encode(text));
      file.syncSync(); // some file systems tell only now that they are full
    }
    if (mode && Deno.build.os !== "windows") Deno.chmodSync(temporary, mode & 0o777);
    Deno.renameSync(temporary, target);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch { // it was never made
    }
    throw error;
  }
}

function writeInto(path: string, text: string): void {
  using file = Deno.openSync(path, { write: true });
  writeAllSync(file, new TextEncoder().encode(text));
}

function writeToStderr(text: string): void {
  writeAllSync(Deno.stderr, new TextEncoder().encode(text));
}

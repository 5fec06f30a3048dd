/**
 * Errors of files on Node and Bun, with Deno's classes and sentences.
 *
 * @module
 */
import { builtin } from "./builtin.ts";
import type { RuntimeErrors } from "./runtime_api.ts";

/** A class of errors with a name. */
function errorClass(name: string): new (message?: string, options?: ErrorOptions) => Error {
  return class extends Error {
    override readonly name = name;
  };
}

/** The classes that callers tell apart. */
export const NODE_ERRORS: RuntimeErrors = {
  AlreadyExists: errorClass("AlreadyExists"),
  BrokenPipe: errorClass("BrokenPipe"),
  IsADirectory: errorClass("IsADirectory"),
  NotADirectory: errorClass("NotADirectory"),
  NotCapable: errorClass("NotCapable"),
  NotFound: errorClass("NotFound"),
  PermissionDenied: errorClass("PermissionDenied"),
  WouldBlock: errorClass("WouldBlock"),
};

const CLASSES: Readonly<Record<string, keyof RuntimeErrors>> = {
  EACCES: "PermissionDenied",
  EAGAIN: "WouldBlock",
  EEXIST: "AlreadyExists",
  EISDIR: "IsADirectory",
  ENOENT: "NotFound",
  ENOTDIR: "NotADirectory",
  EPERM: "PermissionDenied",
  EPIPE: "BrokenPipe",
  ERR_ACCESS_DENIED: "NotCapable",
};

/** The same function with errors of `NODE_ERRORS`. */
export function mapped<A extends unknown[], R>(act: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    try {
      return act(...args);
    } catch (error) {
      throw asRuntimeError(error);
    }
  };
}

/** As `mapped`, with a promise of the result. */
export function later<A extends unknown[], R>(act: (...args: A) => R): (...args: A) => Promise<R> {
  const run = mapped(act);
  // deno-lint-ignore require-await -- async, so that an error rejects
  return async (...args) => run(...args);
}

/** An error of the system as Deno would throw it; any other one unchanged. */
export function asRuntimeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code, errno, syscall, path } = error as NodeJS.ErrnoException;
  const name = CLASSES[code ?? ""];
  if (errno === undefined && !name) return error;
  const Class = name ? NODE_ERRORS[name] : Error;
  return new Class(sentenceOf(error.message, errno, syscall, path), { cause: error });
}

/** "No such file or directory (os error 2): open 'x'". */
function sentenceOf(message: string, errno?: number, syscall?: string, path?: string): string {
  const text = errno && builtin("node:util")?.getSystemErrorMap?.().get(errno)?.[1];
  if (!text) return message;
  const subject = path === undefined ? "" : `: ${syscall} '${path}'`;
  return `${text[0].toUpperCase()}${text.slice(1)} (os error ${Math.abs(errno)})${subject}`;
}

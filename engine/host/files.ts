/**
 * Files by path: open, list, read text and JSON; path arithmetic.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord, parseJson } from "../json.ts";
import { findHost } from "./choose.ts";
import type { ByteSource, PathKind } from "./mod.ts";

/** Largest configuration or vocabulary file, in bytes. */
const MAX_TEXT_BYTES = 100_000_000;

/**
 * Opens a regular file.
 * @throws {CheckpointError} If it is missing, unreadable or not a regular file.
 */
export async function openFile(path: string): Promise<ByteSource> {
  return await (await findHost()).open(path);
}

/**
 * The kind of a path; null if there is no file or folder.
 * @throws {CheckpointError} If the path cannot be checked, such as without permission.
 */
export async function kindOf(path: string): Promise<PathKind> {
  return await (await findHost()).kindOf(path);
}

/**
 * Whether there is a file or a folder at a path.
 * @throws {CheckpointError} If the path cannot be checked, such as without permission.
 */
export async function exists(path: string): Promise<boolean> {
  return await kindOf(path) !== null;
}

/**
 * Names in a folder, in any order.
 * @throws {CheckpointError} If it cannot be read.
 */
export async function listFolder(folder: string): Promise<string[]> {
  return await (await findHost()).list(folder);
}

/**
 * Reads a whole file.
 * @param expected the kind of content, for messages.
 * @param most largest allowed size in bytes.
 * @throws {CheckpointError} If it is missing, unreadable or larger than `most` bytes.
 */
export async function readBytes(
  path: string,
  expected: string,
  most: number,
): Promise<Uint8Array<ArrayBuffer>> {
  using source = await openFile(path);
  return await bytesOf(source, expected, most);
}

/**
 * Reads a text file.
 * @param expected the kind of content, for messages.
 * @param most largest allowed size in bytes.
 * @throws {CheckpointError} If it is missing, larger than `most` bytes, or not UTF-8.
 */
export async function readText(
  path: string,
  expected: string,
  most = MAX_TEXT_BYTES,
): Promise<string> {
  using source = await openFile(path);
  return await textOf(source, expected, most);
}

/**
 * Reads a JSON object from a file.
 * @throws {CheckpointError} If the file is missing, not UTF-8, damaged or not a JSON object.
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  using source = await openFile(path);
  return await jsonObjectOf(source);
}

/**
 * Reads a JSON object from a source.
 * @throws {CheckpointError} If the content is not UTF-8, damaged or not a JSON object.
 */
export async function jsonObjectOf(source: ByteSource): Promise<Record<string, unknown>> {
  const text = await textOf(source, "JSON", MAX_TEXT_BYTES);
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    throw new CheckpointError(
      `Cannot read "${source.name}": expected JSON, got ${messageOf(error)}`,
    );
  }
  if (isRecord(value)) return value;
  throw new CheckpointError(`Cannot read "${source.name}": expected a JSON object`);
}

async function bytesOf(
  source: ByteSource,
  expected: string,
  most: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const { name, size } = source;
  if (size > most) {
    throw new CheckpointError(
      `Cannot read "${name}": expected at most ${most} bytes of ${expected}, got ${size}`,
    );
  }
  const bytes = new Uint8Array(size);
  await source.read(0, bytes);
  return bytes;
}

async function textOf(source: ByteSource, expected: string, most: number): Promise<string> {
  const { name } = source;
  const bytes = await bytesOf(source, expected, most);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CheckpointError(
      `Cannot read "${name}": expected ${expected}, got bytes that are not UTF-8`,
    );
  }
}

/** The folder of a file. */
export function folderOf(path: string): string {
  return path.replace(/[^/\\]*$/, "") || ".";
}

/** The parent of a folder. */
export function parentOf(folder: string): string {
  const trimmed = folder.replace(/[/\\]+$/, "");
  if (/(^|[/\\])\.{0,2}$/.test(trimmed)) return beside(trimmed || "/", "..");
  return folderOf(trimmed);
}

/** Path of a file in a folder. */
export function beside(folder: string, name: string): string {
  return `${folder.replace(/\/+$/, "")}/${name}`;
}

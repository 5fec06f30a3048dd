/**
 * Files by path: opening them, reading text and JSON from them.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord, parseJson } from "../json.ts";
import { hostFor } from "./choose.ts";
import type { ByteSource, PathKind } from "./mod.ts";

/** Largest text file that is taken for a configuration or a vocabulary, in bytes. */
const MAX_TEXT_BYTES = 100_000_000;

/**
 * Opens a regular file.
 * @throws {CheckpointError} If it is missing, unreadable, or no regular file.
 */
export async function openFile(path: string): Promise<ByteSource> {
  return await (await hostFor(`open "${path}"`)).open(path);
}

/**
 * What a path leads to; nothing is null.
 * @throws {CheckpointError} If that cannot be found out, as without permission.
 */
export async function kindOf(path: string): Promise<PathKind> {
  return await (await hostFor(`open "${path}"`)).kindOf(path);
}

/**
 * Whether a path leads to something.
 * @throws {CheckpointError} If that cannot be found out, as without permission.
 */
export async function exists(path: string): Promise<boolean> {
  return await kindOf(path) !== null;
}

/**
 * Names in a folder, in any order.
 * @throws {CheckpointError} If it cannot be read.
 */
export async function listFolder(folder: string): Promise<string[]> {
  return await (await hostFor(`open "${folder}"`)).list(folder);
}

/**
 * Reads a file whole.
 * @param expected what the file should hold, for messages.
 * @param most bytes that it may have.
 * @throws {CheckpointError} If it is missing, unreadable or larger.
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
 * @param expected what the file should hold, for messages.
 * @param most bytes that it may have.
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
 * Reads a JSON file that holds an object.
 * @throws {CheckpointError} If it is missing, torn, not UTF-8, or holds something else.
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  using source = await openFile(path);
  return await jsonObjectOf(source);
}

/**
 * The object that a source holds as JSON.
 * @throws {CheckpointError} If it is torn, not UTF-8, or holds something else.
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
      `Cannot read "${name}": expected ${expected}, got bytes that are no UTF-8`,
    );
  }
}

/** The folder of a file. */
export function folderOf(path: string): string {
  return path.replace(/[^/\\]*$/, "") || ".";
}

/** The folder that holds a folder: one level up. */
export function parentOf(folder: string): string {
  const trimmed = folder.replace(/[/\\]+$/, "");
  if (/(^|[/\\])\.{0,2}$/.test(trimmed)) return beside(trimmed || "/", "..");
  return folderOf(trimmed);
}

/** Path of a file in a folder. */
export function beside(folder: string, name: string): string {
  return `${folder.replace(/\/+$/, "")}/${name}`;
}

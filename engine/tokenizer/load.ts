/**
 * Finds and opens a tokenizer, whatever the form it is kept in.
 *
 * @module
 */
import { exists, isRecord, readJsonObject } from "../checkpoint/bytes.ts";
import { CheckpointError } from "../errors.ts";
import { charTokenizer } from "./char.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Loads a tokenizer.
 * @param source a folder (its `tokenizer.json`, else its `meta.json`), one of those files, or what LabCore writes into them:
 * `{ type: "char", vocab: ["\n", " ", …] }`.
 * @throws {CheckpointError} when there is none, it is damaged, or it is of a kind that this version does not read.
 */
export async function loadTokenizer(source: string | Record<string, unknown>): Promise<Tokenizer> {
  const found = typeof source !== "string"
    ? fromRecord(source, "the tokenizer that was given")
    : await isFolder(source)
    ? await findTokenizer(source)
    : await fromFile(source);
  if (typeof found === "string") throw new CheckpointError(found);
  return found;
}

/**
 * Finds the tokenizer of a model's folder, which a model can do without.
 * @param meta path of a file that is taken instead of the folder's `tokenizer.json` or `meta.json`.
 * @returns the tokenizer, or the sentence that tells why there is none: nothing there, or a kind that this version does not read.
 * @throws {CheckpointError} when the file is damaged, or `meta` is missing.
 */
export async function findTokenizer(folder: string, meta?: string): Promise<Tokenizer | string> {
  if (meta !== undefined) return await fromFile(meta);
  for (const name of ["tokenizer.json", "meta.json"]) {
    const path = `${folder.replace(/\/+$/, "")}/${name}`;
    if (await exists(path)) return await fromFile(path);
  }
  return `"${folder}" has no tokenizer; give ids`;
}

async function fromFile(path: string): Promise<Tokenizer | string> {
  return fromRecord(await readJsonObject(path), `"${path}"`);
}

/** @param where names the record in messages. */
function fromRecord(file: Record<string, unknown>, where: string): Tokenizer | string {
  // A meta.json has the record under a key of its own; told by content, so that a file may have any name.
  const record = isRecord(file.tokenizer) ? file.tokenizer : file;
  const unread = (kind: string): string =>
    `Cannot read ${where}: this version reads LabCore's character vocabularies only, not ${kind}`;
  if (isRecord(record.model)) return unread("Hugging Face's form");
  if (record.type === "bpe") return unread("its bpe");
  if (record.type !== "char") {
    throw new CheckpointError(
      `Cannot read ${where}: expected a tokenizer of type "char" with its vocab, got type ${
        JSON.stringify(record.type) ?? "none"
      }`,
    );
  }
  return charTokenizer(record.vocab, where);
}

async function isFolder(path: string): Promise<boolean> {
  return await exists(path) && (await Deno.stat(path)).isDirectory;
}

/**
 * Sharded checkpoints: Hugging Face's `*.index.json`, which maps each tensor to its file.
 *
 *     model.safetensors.index.json   { "weight_map": { "a.weight": "model-1.safetensors",
 *                                                      "b.weight": "model-2.safetensors" } }
 *     model-1.safetensors            a.weight
 *     model-2.safetensors            b.weight
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { beside, exists, folderOf, jsonObjectOf } from "../host/files.ts";
import type { ByteSource } from "../host/mod.ts";
import { isRecord } from "../json.ts";
import type { StoredTensor } from "./safetensors.ts";

/** A parsed index: the file of each tensor, and the list of files. */
export interface ShardIndex {
  /** Path of the index. */
  readonly path: string;
  /** File name by tensor name. */
  readonly fileOf: ReadonlyMap<string, string>;
  /** File names without repetition, sorted. */
  readonly files: readonly string[];
}

/**
 * Reads an index. Its files must be in its own folder.
 * @throws {CheckpointError} If it is damaged, or names a file in another folder.
 */
export async function readShardIndex(source: ByteSource): Promise<ShardIndex> {
  const path = source.name;
  const { weight_map: map } = await jsonObjectOf(source);
  const entries = isRecord(map) ? Object.entries(map) : [];
  if (!entries.length) {
    throw new CheckpointError(`Cannot read "${path}": expected a weight_map from tensors to files`);
  }
  // An index of safetensors must not lead to a pickle.
  const ending = path.endsWith(".safetensors.index.json") ? ".safetensors" : "";
  const fileOf = new Map<string, string>();
  for (const [tensor, file] of entries) {
    if (typeof file !== "string" || !isPlainName(file) || !file.endsWith(ending)) {
      throw new CheckpointError(
        `Cannot read "${path}": expected the file of ${
          JSON.stringify(tensor)
        } to be a ${ending} file beside the index, got ${JSON.stringify(file)}`,
      );
    }
    fileOf.set(tensor, file);
  }
  return { path, fileOf, files: [...new Set(fileOf.values())].sort() };
}

/** Whether a name is a file name without a folder. */
function isPlainName(name: string): boolean {
  // deno-lint-ignore no-control-regex -- control characters are refused
  return name !== "" && !/^\.\.?$|[/\\\u0000-\u001f]/.test(name);
}

/**
 * The paths of the shards.
 * @throws {CheckpointError} If shards are missing; names them.
 */
export async function shardPaths({ path, files }: ShardIndex): Promise<string[]> {
  const folder = folderOf(path);
  const missing: string[] = [];
  for (const file of files) if (!await exists(beside(folder, file))) missing.push(file);
  if (missing.length) {
    throw new CheckpointError(
      `Cannot open "${path}": ${missing.length} of its ${files.length} shards are missing: ${
        missing.slice(0, 4).join(", ")
      }${missing.length > 4 ? " and more" : ""}`,
    );
  }
  return files.map((file) => beside(folder, file));
}

/**
 * Merges the tensors of all shards and checks them against the index.
 * @param shards the tensors of each file, in the order of `index.files`.
 * @throws {CheckpointError} If a tensor is in two shards, in no shard, or in another shard than the
 *   index names.
 */
export function joinShards(
  { path, fileOf, files }: ShardIndex,
  shards: readonly ReadonlyMap<string, StoredTensor>[],
): Map<string, StoredTensor> {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "${path}": expected ${expected}`);
  };
  const joined = new Map<string, StoredTensor>();
  const foundIn = new Map<string, string>();
  for (const [i, tensors] of shards.entries()) {
    for (const [name, tensor] of tensors) {
      const other = foundIn.get(name);
      if (other !== undefined) {
        fail(`every tensor in one shard, got "${name}" in ${other} and ${files[i]}`);
      }
      const expected = fileOf.get(name);
      if (expected !== files[i]) {
        fail(`"${name}" in ${expected ?? "no shard"}, got it in ${files[i]}`);
      }
      foundIn.set(name, files[i]);
      joined.set(name, tensor);
    }
  }
  for (const [name, file] of fileOf) {
    if (!joined.has(name)) fail(`"${name}" in ${file}, got a file without it`);
  }
  return joined;
}

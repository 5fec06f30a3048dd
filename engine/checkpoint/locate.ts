/**
 * Finds the files of a model: in a folder, beside a file, or on the hub.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { beside, exists, folderOf, kindOf, listFolder } from "../host/files.ts";
import { isGguf, isGgufModel } from "./gguf/parts.ts";
import { fetchRepository } from "../hub/fetch.ts";
import { WEIGHTS } from "../hub/listing.ts";
import type { HubOptions } from "../hub/options.ts";
import type { ByteSource } from "../host/mod.ts";

/** The files of a model on disk. */
export interface ModelFiles {
  /** Path of the weight file, or of the index of its shards. */
  readonly weights: string;
  /** Folder that is searched for config.json and the tokenizer. */
  readonly folder: string;
  /** A sentence that names the chosen checkpoint, if there were several. */
  readonly note?: string;
}

/** Checks of a repository between its small files and its weights. */
export interface DownloadChecks {
  /** Takes the folder of the small files. */
  readonly beforeWeights?: (folder: string) => void | Promise<void>;
  /** Takes the parts of a GGUF, of which few bytes should be read. */
  readonly beforeGguf?: (parts: readonly ByteSource[]) => void | Promise<void>;
}

/** Checkpoint in the output folder of a nanoGPT run. */
const NANOGPT = "ckpt.pt";

/** Extensions of supported weight files. */
const ENDINGS = /\.(safetensors|pt|pth|ckpt|bin|index\.json)$/;

/** The repository of a source `hf:owner/name`; undefined for a path. */
export function repositoryOf(source: string): string | undefined {
  return source.startsWith("hf:") ? source.slice(3) : undefined;
}

/** Whether a source is at a server other than the hub: a page's. */
function isUrl(source: string): boolean {
  return /^https?:\/\//.test(source);
}

/**
 * Finds the files of a source: `hf:owner/name`, a folder in Hugging Face layout, a `.safetensors`
 * file, the index of its shards, or a PyTorch checkpoint. A repository is downloaded unless it is
 * in the cache.
 * @param checks throw to refuse the repository before its weights are downloaded.
 * @throws {CheckpointError} If there is no such file, or its format is not supported.
 */
export async function locate(
  source: string,
  hub: HubOptions = {},
  { beforeWeights = () => {}, beforeGguf }: DownloadChecks = {},
): Promise<ModelFiles> {
  const repository = repositoryOf(source);
  const path = repository === undefined
    ? source
    : await fetchRepository(repository, hub, { beforeWeights, ...beforeGguf && { beforeGguf } });
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "${source}": ${expected}`);
  };
  const kind = await kindOf(path);
  if (kind === null) return fail("there is no such file or folder");
  if (isUrl(path)) {
    const folder = kind === "folder" ? path : folderOf(path);
    if (await exists(beside(folder, "config.json"))) await beforeWeights(folder);
  }
  if (kind === "folder") {
    const found = await weightsIn(path) ?? await newestCheckpoint(path);
    if (found) return found;
    const ggufs = await ggufsIn(path);
    if (ggufs.length === 1) return { weights: beside(path, ggufs[0]), folder: path };
    if (ggufs.length) {
      return fail(`expected one model in it, got ${ggufs.slice(0, 8).join(", ")}; name one`);
    }
    return fail(
      `expected a ${WEIGHTS[0]} in it, its index, a ${
        WEIGHTS[2]
      }, a ${NANOGPT}, a .gguf, or a trainer's checkpoint-N`,
    );
  }
  if (!ENDINGS.test(path) && !isGguf(path)) {
    return fail(
      "expected a folder, a .safetensors file, a .gguf file or a PyTorch checkpoint (.pt)",
    );
  }
  return { weights: path, folder: folderOf(path) };
}

/** The folder of an adapter that a source means, with a note if it had to be chosen. */
export async function adapterIn(
  source: string,
): Promise<{ readonly path: string; readonly note?: string } | undefined> {
  if (repositoryOf(source) !== undefined) return undefined;
  if (await isAdapter(source)) return { path: source };
  if (await kindOf(source) !== "folder" || await weightsIn(source)) return undefined;
  for (const path of await checkpointsIn(source)) {
    if (await isAdapter(path)) return { path, note: chosen(source, path) };
    if (await weightsIn(path)) return undefined;
  }
}

/** Whether a folder holds an adapter. */
async function isAdapter(folder: string): Promise<boolean> {
  return await exists(beside(folder, "adapter_config.json"));
}

/** The weights in a folder in Hugging Face layout, or of a nanoGPT run. */
async function weightsIn(folder: string): Promise<ModelFiles | undefined> {
  // A nanoGPT checkpoint has its configuration within; the others need one beside them.
  const isComplete = await exists(beside(folder, "config.json"));
  for (const name of isComplete ? [...WEIGHTS, NANOGPT] : [NANOGPT, ...WEIGHTS]) {
    const weights = beside(folder, name);
    if (await exists(weights)) return { weights, folder };
  }
}

/** The GGUF models in a folder, by their names; of a split one the first part. */
async function ggufsIn(folder: string): Promise<string[]> {
  return (await listFolder(folder)).filter(isGgufModel).sort();
}

/** The newest checkpoint of transformers' Trainer that holds a model. */
async function newestCheckpoint(folder: string): Promise<ModelFiles | undefined> {
  for (const path of await checkpointsIn(folder)) {
    const found = await weightsIn(path);
    if (found) return { ...found, note: chosen(folder, found.folder) };
  }
}

/** The folders `checkpoint-N`, the highest N first. */
async function checkpointsIn(folder: string): Promise<string[]> {
  return (await listFolder(folder))
    .flatMap((name) => /^checkpoint-(\d{1,15})$/.exec(name)?.[1] ?? [])
    .sort((a, b) => Number(b) - Number(a))
    .map((number) => beside(folder, `checkpoint-${number}`));
}

function chosen(folder: string, checkpoint: string): string {
  return `"${folder}" is a trainer's output: opened ${checkpoint}`;
}

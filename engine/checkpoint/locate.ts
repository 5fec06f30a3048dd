/**
 * Finds the files of a model: in a folder, beside a file, or on the hub.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { beside, exists, folderOf, kindOf, listFolder } from "../host/files.ts";
import { fetchRepository, type HubOptions, WEIGHTS } from "../hub/fetch.ts";

/** The files of a model on disk. */
export interface ModelFiles {
  /** The file of the weights, or the index of their shards. */
  readonly weights: string;
  /** The folder in which config.json and the tokenizer are looked for. */
  readonly folder: string;
  /** Which of several checkpoints was taken, in a sentence. */
  readonly note?: string;
}

/** The checkpoint of a nanoGPT run, in its output folder. */
const NANOGPT = "ckpt.pt";

/** How the files that can be read end. */
const ENDINGS = /\.(safetensors|pt|pth|ckpt|bin|index\.json)$/;

/** The repository that a source names, where it names one. */
export function repositoryOf(source: string): string | undefined {
  return source.startsWith("hf:") ? source.slice(3) : undefined;
}

/**
 * Finds the files that a source names: `hf:owner/name`, a folder in Hugging Face layout, a
 * `.safetensors` file, the index of its shards, or a PyTorch checkpoint. A repository on the hub is
 * downloaded, unless the cache has it.
 * @param beforeWeights may refuse a repository by its small files, before its weights are fetched.
 * @throws {CheckpointError} If there is no such file, or its format is not supported.
 */
export async function locate(
  source: string,
  hub: HubOptions = {},
  beforeWeights: (folder: string) => void | Promise<void> = () => {},
): Promise<ModelFiles> {
  const repository = repositoryOf(source);
  const path = repository === undefined
    ? source
    : await fetchRepository(repository, hub, { beforeWeights });
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "${source}": ${expected}`);
  };
  const kind = await kindOf(path);
  if (kind === null) return fail("there is no such file or folder");
  if (kind === "folder") {
    const found = await weightsIn(path) ?? await newestCheckpoint(path);
    if (found) return found;
    return fail(
      `expected a ${WEIGHTS[0]} in it, its index, a ${
        WEIGHTS[2]
      }, a ${NANOGPT}, or a trainer's checkpoint-N`,
    );
  }
  if (path.endsWith(".gguf")) return fail("this version does not read GGUF");
  if (!ENDINGS.test(path)) {
    return fail("expected a folder, a .safetensors file or a checkpoint of PyTorch (.pt)");
  }
  return { weights: path, folder: folderOf(path) };
}

/** The weights in a folder: in Hugging Face layout, or a nanoGPT run's. */
async function weightsIn(folder: string): Promise<ModelFiles | undefined> {
  for (const name of [...WEIGHTS, NANOGPT]) {
    const weights = beside(folder, name);
    if (await exists(weights)) return { weights, folder };
  }
}

/** The newest checkpoint of a run of transformers' Trainer: `checkpoint-N` with the highest N. */
async function newestCheckpoint(folder: string): Promise<ModelFiles | undefined> {
  const numbers = (await listFolder(folder))
    .flatMap((name) => /^checkpoint-(\d{1,15})$/.exec(name)?.[1] ?? [])
    .sort((a, b) => Number(b) - Number(a));
  for (const number of numbers) {
    const found = await weightsIn(beside(folder, `checkpoint-${number}`));
    if (found) return { ...found, note: `"${folder}" is a trainer's output: took ${found.folder}` };
  }
}

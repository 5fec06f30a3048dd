/**
 * Finds the files of a model: in a folder, beside a file, or on the hub.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { beside, exists, folderOf, kindOf } from "../host/files.ts";
import { fetchRepository, type HubOptions, WEIGHTS } from "../hub/fetch.ts";

/** The files of a model on disk. */
export interface ModelFiles {
  /** The file of the weights, or the index of their shards. */
  readonly weights: string;
  /** The folder in which config.json and the tokenizer are looked for. */
  readonly folder: string;
}

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
    for (const name of WEIGHTS) {
      const weights = beside(path, name);
      if (await exists(weights)) return { weights, folder: path };
    }
    return fail(
      `expected a ${WEIGHTS[0]} in it, its index, or a ${
        WEIGHTS[2]
      }; a .pt is named by its own path`,
    );
  }
  if (path.endsWith(".gguf")) return fail("this version does not read GGUF");
  if (!ENDINGS.test(path)) {
    return fail("expected a folder, a .safetensors file or a checkpoint of PyTorch (.pt)");
  }
  return { weights: path, folder: folderOf(path) };
}

/**
 * GGUF files of a repository, chosen as llama.cpp and ollama do.
 *
 *     owner/name:Q4_K_M      the file with this quantisation in its name, in upper or lower case
 *     owner/name/file.gguf   this file
 *     owner/name             without other weights: Q4_K_M, or the only file
 *
 * @module
 */
import { ggufPart, isGguf, isGgufModel, partPath } from "../checkpoint/gguf/parts.ts";

/** A name after `hf:`. */
export interface HubName {
  /** `owner/name`, or `name` for the oldest repositories. */
  readonly repo: string;
  /** Quantisation. */
  readonly tag?: string;
  /** Path of a GGUF file in the repository. */
  readonly file?: string;
}

/** Quantisation that is taken if none is named. */
const DEFAULT_TAG = "Q4_K_M";

/** Splits a name; each part is checked later. */
export function parseHubName(name: string): HubName {
  const [, repo, tag] = /^([^:]*):(.*)$/s.exec(name) ?? [];
  if (repo !== undefined) return { repo, tag };
  const [owner, model, ...file] = name.split("/");
  if (!file.length || !/\.gguf$/i.test(name)) return { repo: name };
  return { repo: `${owner}/${model}`, file: file.join("/") };
}

/**
 * Chooses a GGUF among a repository's files.
 * @param fail throws an error that names the repository.
 * @returns all parts of the model, the first one first; undefined if none is named and there is
 *   none.
 */
export function chooseGguf(
  paths: readonly string[],
  { repo, tag, file }: HubName,
  fail: (expected: string) => never,
): string[] | undefined {
  if (tag === "") {
    fail(`expected a quantisation after the colon, such as hf:${repo}:${DEFAULT_TAG}`);
  }
  const all = paths.filter(isGguf);
  const models = all.filter(isGgufModel);
  if (!models.length && tag === undefined && file === undefined) return undefined;
  const shown = models.slice(0, 8).map((path) => path.slice(0, 100)).join(", ") || "none";
  const got = `${shown}${models.length > 8 ? ` and ${models.length - 8} more` : ""}`;
  if (file !== undefined) {
    return all.includes(file) ? partsOf(file, all, fail) : fail(`expected "${file}", got ${got}`);
  }
  const isDefault = tag === undefined || tag.toLowerCase() === "latest";
  if (isDefault && models.length === 1) return partsOf(models[0], all, fail);
  const wanted = isDefault ? DEFAULT_TAG : tag;
  const found = models.filter((path) => hasTag(path, wanted));
  if (found.length === 1) return partsOf(found[0], all, fail);
  const example = `hf:${repo}/${(found[0] ?? models[0] ?? "FILE.gguf").slice(0, 100)}`;
  return fail(
    `expected one GGUF of ${JSON.stringify(wanted.slice(0, 40))}, got ${
      found.length ? found.slice(0, 8).join(", ") : got
    }; name one, such as ${example}`,
  );
}

/** Whether a file's name has a quantisation as a word: Q4_0 is not in IQ4_0, nor in Q4_0_4_4. */
function hasTag(path: string, tag: string): boolean {
  const word = tag.replace(/[^\w]/g, "\\$&");
  return new RegExp(`(^|[^a-z0-9])${word}([.-]|$)`, "i").test(path);
}

/** All parts of a split model. */
function partsOf(path: string, all: readonly string[], fail: (expected: string) => never) {
  const count = ggufPart(path)?.count ?? 1;
  if (count === 1) return [path];
  const parts: string[] = [];
  for (let part = 1; part <= count; part++) {
    const other = partPath(path, part);
    if (!all.includes(other)) fail(`expected ${count} parts, got no "${other}"`);
    parts.push(other);
  }
  return parts;
}

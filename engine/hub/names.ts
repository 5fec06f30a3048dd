/**
 * Names on the hub: repositories, revisions, and paths of files.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";

/** Whether a revision is a whole commit, which never moves and has no ref. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Whether a name from the network can be a path below a folder, on every system, and no way out of
 * it.
 */
export function isSafePath(name: string): boolean {
  // deno-lint-ignore no-control-regex -- no name that is meant has a control character
  if (name.length > 1000 || /[\\:\u0000-\u001f\u007f-\u009f]/.test(name)) return false;
  return name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/**
 * Checks a repository and a revision, which become parts of URLs and of paths.
 * @throws {CheckpointError} If one of them cannot be such a name.
 */
export function checkNames(repo: string, revision: string): void {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "hf:${repo}": expected ${expected}`);
  };
  const isName = /^(?:\w[\w.-]{0,95}\/)?\w[\w.-]{0,95}$/.test(repo);
  if (!isName || /--|\.\.|[.-](?:\/|$)|\.git$/.test(repo)) {
    fail(
      "hf:owner/name, or hf:name, of letters, digits, ., _ and - " +
        "(no -- and .., and neither . nor - at the ends), at most 96 each",
    );
  }
  if (!isSafePath(revision) || /[ ~^?*[]/.test(revision)) {
    fail(`a branch, a tag or a commit as the revision, got ${JSON.stringify(revision)}`);
  }
}

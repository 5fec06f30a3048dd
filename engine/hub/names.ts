/**
 * Names on the hub: repositories, revisions, and paths of files.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";

/** Whether a revision is a full commit hash, which never moves and has no ref. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Whether a name from the network is a relative path that stays inside its folder, on every system.
 */
export function isSafePath(name: string): boolean {
  // deno-lint-ignore no-control-regex -- control characters are refused
  if (name.length > 1000 || /[\\:\u0000-\u001f\u007f-\u009f]/.test(name)) return false;
  return name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/**
 * Checks the names of a repository and a revision, which become parts of URLs and paths.
 * @throws {CheckpointError} If a name is malformed.
 */
export function checkNames(repo: string, revision: string): void {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "hf:${repo}": expected ${expected}`);
  };
  const isName = /^(?:\w[\w.-]{0,95}\/)?\w[\w.-]{0,95}$/.test(repo);
  if (!isName || /--|\.\.|[.-](?:\/|$)|\.git$/.test(repo)) {
    fail(
      "hf:owner/name, or hf:name, of letters, digits, ., _ and - " +
        "(no -- or .., no . or - at an end), at most 96 characters each",
    );
  }
  if (!isSafePath(revision) || /[ ~^?*[]/.test(revision)) {
    fail(`a branch, a tag or a commit as the revision, got ${JSON.stringify(revision)}`);
  }
}

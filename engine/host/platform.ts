/**
 * Machine and runtime facts for reports: system, processor, memory, versions, commit.
 *
 * @module
 */
import { readV8Flags } from "./activity.ts";
import { builtin } from "./builtin.ts";
import type { Platform } from "./mod.ts";
import { runtime } from "./runtime.ts";

const os = builtin("node:os")!;

/** Facts for a report. */
export async function readPlatform(): Promise<Platform> {
  return {
    os: osName(),
    cpu: cpuModel(),
    versions: versions(),
    commit: await checkoutCommit(),
    v8Flags: readV8Flags(),
  };
}

/** Versions of the runtime. Deno and Bun also give the version of Node that they resemble. */
function versions(): Platform["versions"] {
  const { deno = null, bun, node, v8, typescript = null } = globalThis.process.versions;
  return {
    deno,
    v8: bun ? null : v8, // Bun has another engine, and gives a version of V8 none the less
    typescript,
    ...bun ? { bun } : deno ? {} : { node },
  };
}

/** Bytes of the machine's memory; Infinity without permission. */
export function totalMemory(): number {
  try {
    return os.totalmem();
  } catch {
    return Infinity;
  }
}

/** Name and release of the system; without permission, Deno's build target. */
function osName(): string {
  try {
    return `${os.type()} ${os.release()} ${os.arch()}`;
  } catch {
    return runtime.build.target;
  }
}

function cpuModel(): string {
  try {
    return os.cpus()[0]?.model.trim() || runtime.build.arch;
  } catch {
    return runtime.build.arch;
  }
}

/**
 * Commit of the checkout that contains this file; null outside a checkout, without git, or without
 * permission to run it.
 */
async function checkoutCommit(): Promise<string | null> {
  const root = new URL("../../", import.meta.url);
  if (root.protocol !== "file:") return null;
  try {
    const git = new runtime.Command("git", {
      args: ["rev-parse", "--show-prefix", "HEAD"],
      cwd: root,
      stdout: "piped",
      stderr: "null",
    });
    const { success, stdout } = await git.output();
    // The prefix is empty only at the root of a checkout: inside another project, git would report
    // that project's commit.
    const [prefix, commit] = new TextDecoder().decode(stdout).split("\n");
    return success && prefix === "" && /^[0-9a-f]{40}$/.test(commit) ? commit : null;
  } catch {
    return null;
  }
}

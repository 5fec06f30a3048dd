/**
 * The command line as a process, for tests.
 *
 * @module
 */

import { resolve } from "node:path";

export const CLI = new URL("../../cli.ts", import.meta.url).pathname;

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Standard input; without it, /dev/null. */
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Whether `env` is the whole environment. */
  readonly clearEnv?: boolean;
  /** Permissions of the process. Default all. */
  readonly permissions?: readonly string[];
}

/** Runs the command line to its end. */
export async function runCli(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { input, cwd, env, clearEnv, permissions = ["-A"] } = options;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--no-prompt", ...permissions, CLI, ...args],
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    cwd,
    clearEnv,
    env: { NO_COLOR: "1", ...env },
  }).spawn();
  const output = child.output();
  if (input !== undefined) {
    const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
    const writer = child.stdin.getWriter();
    // The process may end before it has read everything.
    await writer.write(bytes).then(() => writer.close()).catch(() => {});
  }
  const { code, stdout, stderr } = await output;
  if (code === 0) await checkReport(args, cwd);
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Commands whose `--json-out` is no report. */
const WITHOUT_REPORT = ["compare", "inspect", "perplexity"];

/** Validates a report that the command has written against the published schema. */
async function checkReport(args: readonly string[], cwd = "."): Promise<void> {
  const flag = args.indexOf("--json-out");
  if (flag < 0 || WITHOUT_REPORT.includes(args[0])) return;
  const path = resolve(cwd, args[flag + 1]);
  if (!Deno.statSync(path).isFile) return;
  const { assertRecords } = await import("../engine/measure/schema.ts"); // compiles the schema
  assertRecords(JSON.parse(await Deno.readTextFile(path)), path);
}

/** Deno's cache of packages, for a process whose home or cache folder is another. */
export const DENO_DIR: string = JSON.parse(
  new TextDecoder().decode(
    new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync().stdout,
  ),
).denoDir;

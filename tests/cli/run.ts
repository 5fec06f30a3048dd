/**
 * The command line as a process, for tests.
 *
 * @module
 */

import { resolve } from "node:path";
import { type Output, type ProcessOptions, runDeno } from "../process.ts";

const CLI = new URL("../../cli.ts", import.meta.url).pathname;

export interface CliOptions extends ProcessOptions {
  readonly cwd?: string;
  /** Permissions of the process. Default all. */
  readonly permissions?: readonly string[];
}

/** Deno's arguments for the command line. */
export function cliArguments(
  args: readonly string[],
  permissions: readonly string[] = ["-A"],
): string[] {
  return ["run", "--no-check", "--no-prompt", ...permissions, CLI, ...args];
}

/** Runs the command line to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<Output> {
  const output = await runDeno(cliArguments(args, options.permissions), options);
  if (output.code === 0) await checkReport(args, options.cwd);
  return output;
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
export const DENO_DIR: string = JSON.parse((await runDeno(["info", "--json"])).stdout).denoDir;

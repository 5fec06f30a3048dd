/**
 * A process on a terminal, which `script` makes, for tests.
 *
 * @module
 */
import { Process, succeeds } from "../process.ts";
import { cliArguments } from "./run.ts";

/** Whether a terminal can be made here. */
export const hasTerminal = Deno.build.os === "linux" && await succeeds("script", "--version");
if (!hasTerminal) console.warn("SKIPPED: tests on a terminal, since there is no `script` here");

/** Keys, and the text on the screen after which the next step follows. */
export type Step = readonly [typed: string, awaited: RegExp];

/**
 * Runs the command line on a terminal; `shell` makes shell code of its quoted words, which replace
 * the shell: one that got Ctrl-C too may end with another status.
 *
 * @throws {AssertionError} With the screen, if a step's text is not seen in time.
 */
export async function runOnTerminal(
  args: readonly string[],
  steps: readonly Step[],
  env: Readonly<Record<string, string>>,
  shell = (words: string) => words,
): Promise<{ code: number; screen: string }> {
  const words = [Deno.execPath(), ...cliArguments(args)].map((word) => `'${word}'`).join(" ");
  const process = new Process(
    "script",
    ["--quiet", "--return", "--command", shell(`exec ${words}`), "/dev/null"],
    { input: "open", env: { SHELL: "/bin/sh", ...env } },
  );
  for (const [typed, awaited] of steps) {
    if (typed) await process.write(typed);
    await process.shows("stdout", awaited);
  }
  const { code, stdout } = await process.output();
  return { code, screen: stdout };
}

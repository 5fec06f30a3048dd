/**
 * A process on a terminal, which `script` makes, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";

/** Whether a terminal can be made here. */
export const hasTerminal = Deno.build.os === "linux" &&
  (await new Deno.Command("script", { args: ["--version"], stdout: "null", stderr: "null" })
      .output().catch(() => null))?.success === true;
if (!hasTerminal) console.warn("SKIPPED: tests on a terminal, since there is no `script` here");

/** Keys, and the text on the screen after which the next step follows. */
export type Step = readonly [typed: string, awaited: RegExp];

/** A process that shows nothing that is awaited is ended after this time, in milliseconds. */
const PATIENCE = 120_000;

/**
 * Runs a command line on a terminal; `before` is shell code that runs first.
 *
 * @throws {assert.AssertionError} With the screen, if a step's text was not seen in time.
 */
export async function runOnTerminal(
  args: readonly string[],
  steps: readonly Step[],
  env: Readonly<Record<string, string>>,
  before = "",
): Promise<{ code: number; screen: string }> {
  const line = before + args.map((arg) => `'${arg}'`).join(" ");
  const child = new Deno.Command("script", {
    args: ["--quiet", "--return", "--command", line, "/dev/null"],
    stdin: "piped",
    stdout: "piped",
    env: { NO_COLOR: "1", ...env },
  }).spawn();
  const overdue = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
  const writer = child.stdin.getWriter();
  let screen = "";
  let from = 0; // text awaited by an earlier step is not searched again
  let step = 0;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    // A character at a time: how the output is cut into reads must not decide what is matched.
    for (const character of text) {
      screen += character;
      while (step < steps.length && steps[step][1].test(screen.slice(from))) {
        from = screen.length;
        const next = steps[++step]?.[0];
        if (next) await writer.write(new TextEncoder().encode(next));
      }
    }
  }
  clearTimeout(overdue);
  await writer.close().catch(() => {});
  assert.equal(step, steps.length, JSON.stringify(screen));
  return { code: (await child.status).code, screen };
}

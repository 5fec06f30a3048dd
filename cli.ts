/**
 * The command line: measures, generates, inspects.
 *
 * ```sh
 * deno run -A cli.ts                 # the benchmark, on the bundled demo
 * deno run -A cli.ts generate        # text
 * deno run -A cli.ts inspect         # what a checkpoint holds
 * deno run -A cli.ts kernels         # the generated code
 * deno run -A cli.ts devices         # what can run here
 * deno run -A cli.ts --help          # every flag
 * ```
 *
 * Results go to standard output, everything else to standard error. Exit status: 0 done, 1 failed,
 * 2 bad usage, 130 interrupted.
 *
 * @module
 */
import { tmpdir } from "node:os";
import { bench } from "./cli/bench.ts";
import { Interrupted } from "./cli/chat.ts";
import { devices } from "./cli/devices.ts";
import { UsageError } from "./cli/flags.ts";
import { generate } from "./cli/generate.ts";
import { helpText } from "./cli/help.ts";
import { inspect } from "./cli/inspect.ts";
import { kernels } from "./cli/kernels.ts";
import { type Invocation, nearestCommand, parseArguments } from "./cli/parse.ts";
import { clearStatus, interruptTaken, print, say, sayError } from "./cli/terminal.ts";
import { VERSION } from "./mod.ts";

/** Runs the command that the arguments ask for. Returns the exit status; throws nothing. */
export async function main(args: readonly string[]): Promise<number> {
  quietDrivers();
  const controller = new AbortController();
  const interrupt = () => {
    // Whoever presses it twice does not want to wait for the end of a chunk.
    if (controller.signal.aborted) Deno.exit(130);
    if (interruptTaken()) return;
    clearStatus();
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    await run(parseArguments(args), controller.signal);
    return controller.signal.aborted ? 130 : 0;
  } catch (error) {
    if (controller.signal.aborted || error instanceof Interrupted) return 130;
    // Whoever reads the output has seen enough, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    const sentence = error instanceof Error ? error.message : String(error);
    if (error instanceof UsageError) {
      sayError(`${sentence} (--help tells more)`);
      return 2;
    }
    sayError(sentence);
    if (args.includes("--verbose") && error instanceof Error && error.stack) say(error.stack);
    return 1;
  } finally {
    clearStatus();
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}

async function run(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { command, named, model, given } = invocation;
  if (given.help) return print(helpText(command, named));
  if (given.version) return print(`${VERSION}\n`);
  if (!named && model !== undefined) refuseMistypedCommand(model);
  switch (command) {
    case "bench":
      return await bench(invocation, signal);
    case "generate":
      return await generate(invocation, signal);
    case "inspect":
      return await inspect(invocation, signal);
    case "kernels":
      return await kernels(invocation, signal);
    case "devices":
      return await devices();
  }
}

/**
 * Mesa's drivers complain on standard error where this is not set, and look there for a display,
 * which nobody needs here.
 */
function quietDrivers(): void {
  try {
    if (Deno.build.os !== "linux" || Deno.env.get("XDG_RUNTIME_DIR")) return;
    Deno.env.set("XDG_RUNTIME_DIR", tmpdir());
  } catch {
    // No permission to look at the environment: then they may complain.
  }
}

/**
 * A model may stand where a command does, so that a mistyped command looks like a
 * model that is not there.
 */
function refuseMistypedCommand(word: string): void {
  const guess = nearestCommand(word);
  if (guess === undefined) return;
  try {
    Deno.statSync(word);
  } catch {
    throw new UsageError(`"${word}" is no command and no model; did you mean ${guess}?`);
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));

/**
 * The command line: measures, generates, inspects.
 *
 * ```sh
 * deno run -A cli.ts                 # the benchmark, on the bundled demo
 * deno run -A cli.ts generate        # text
 * deno run -A cli.ts inspect         # tensors and memory of a checkpoint
 * deno run -A cli.ts kernels         # the generated code
 * deno run -A cli.ts perplexity FILE # of a text
 * deno run -A cli.ts devices         # backends and their limits
 * deno run -A cli.ts append          # reports and kernel benches, to a history
 * deno run -A cli.ts compare         # two builds, by their reports
 * deno run -A cli.ts report          # reports, as one HTML page
 * deno run -A cli.ts --help          # every flag
 * ```
 *
 * Results go to standard output, everything else to standard error. Exit status: 0 done, 1 failed,
 * 2 bad usage, 3 slower than `compare --fail-below`, 130 interrupted.
 *
 * @module
 */
import { tmpdir } from "node:os";
import { append } from "./cli/append.ts";
import { bench } from "./cli/bench.ts";
import { Interrupted } from "./cli/chat.ts";
import { compare } from "./cli/compare.ts";
import { devices } from "./cli/devices.ts";
import { UsageError } from "./cli/flags.ts";
import { generate } from "./cli/generate.ts";
import { helpText } from "./cli/help.ts";
import { inspect } from "./cli/inspect.ts";
import { kernels } from "./cli/kernels.ts";
import { perplexity } from "./cli/perplexity.ts";
import { type Invocation, nearestCommand, parseArguments } from "./cli/parse.ts";
import { report } from "./cli/report.ts";
import { clearStatus, interruptTaken, print, say, sayError } from "./cli/terminal.ts";
import { VERSION } from "./mod.ts";
import { runtime } from "./engine/host/runtime.ts";

/** Runs the command that the arguments ask for. Returns the exit status; throws nothing. */
export async function main(args: readonly string[]): Promise<number> {
  quietDrivers();
  const controller = new AbortController();
  const interrupt = () => {
    // A second interrupt does not wait for the end of a chunk.
    if (controller.signal.aborted) runtime.exit(130);
    if (interruptTaken()) return;
    clearStatus();
    controller.abort();
  };
  runtime.addSignalListener("SIGINT", interrupt);
  try {
    const status = await run(parseArguments(args), controller.signal);
    return controller.signal.aborted ? 130 : status ?? 0;
  } catch (error) {
    if (controller.signal.aborted || error instanceof Interrupted) return 130;
    // The reader of the output has closed it, as `head` does.
    if (error instanceof runtime.errors.BrokenPipe) return 0;
    const sentence = error instanceof Error ? error.message : String(error);
    if (error instanceof UsageError) {
      sayError(`${sentence} (see --help)`);
      return 2;
    }
    sayError(sentence);
    if (args.includes("--verbose") && error instanceof Error && error.stack) say(error.stack);
    return 1;
  } finally {
    clearStatus();
    runtime.removeSignalListener("SIGINT", interrupt);
  }
}

/** Returns the exit status of commands that have more than one. */
async function run(invocation: Invocation, signal: AbortSignal): Promise<number | void> {
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
    case "perplexity":
      return await perplexity(invocation, signal);
    case "append":
      return await append(invocation, signal);
    case "compare":
      return await compare(invocation);
    case "report":
      return await report(invocation);
  }
}

/** Mesa's drivers print an error without this variable: the folder of a display's socket. */
function quietDrivers(): void {
  try {
    if (runtime.build.os !== "linux" || runtime.env.get("XDG_RUNTIME_DIR")) return;
    runtime.env.set("XDG_RUNTIME_DIR", tmpdir());
  } catch {
    // No permission to read the environment: the drivers print their error.
  }
}

/** A model may take the place of the command, so a mistyped command looks like a missing model. */
function refuseMistypedCommand(word: string): void {
  const guess = nearestCommand(word);
  if (guess === undefined) return;
  try {
    runtime.statSync(word);
  } catch {
    throw new UsageError(`"${word}" is no command and no model; did you mean ${guess}?`);
  }
}

if (import.meta.main) runtime.exit(await main(runtime.args));

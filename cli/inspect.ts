/**
 * `inspect`: what a checkpoint holds, and the memory that a run would take.
 *
 * @module
 */
import { describeCheckpoint } from "../mod.ts";
import { bytes, table } from "./format.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, hubOptions } from "./session.ts";
import { clearStatus, print, styled } from "./terminal.ts";

/** Names of the classes of memory, as people say them. */
const CLASSES: Readonly<Record<string, string>> = {
  weights: "weights",
  kvCache: "keys and values",
  activations: "activations",
  staging: "staging",
};

/** Runs the command. */
export async function inspect(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  using progress = new Progress();
  const { source, id } = chooseModel(invocation);
  const { architecture: a, parameters, tensors, metadata, contextLength, memory } =
    await describeCheckpoint(source as string, {
      ...given.context !== undefined && { contextLength: given.context },
      ...given.dtype !== undefined && { dtype: given.dtype },
      ...hubOptions(given),
      onProgress: progress.load,
      signal,
    });
  signal.throwIfAborted();
  clearStatus();
  const title = (text: string) => `\n${styled("bold", text)}\n`;
  let out = `${styled("bold", id)}\n`;
  out += table([
    ["family", a.family],
    ["parameters", `${parameters} (${(parameters / 1e6).toFixed(3)} M)`],
    ["layers", String(a.nLayer)],
    ["heads", a.nKvHead === a.nHead ? String(a.nHead) : `${a.nHead}, ${a.nKvHead} of keys`],
    ["width", String(a.nEmbd)],
    ["vocabulary", String(a.vocabSize)],
    ["context", `${a.blockSize}${a.slides ? ", then the window slides" : ""}`],
    ["positions", a.rope ? "rotary" : "learned"],
  ]);
  out += title(`Memory of a run with a context of ${contextLength}`);
  out += table([
    ...Object.entries(memory.classes).map(([name, count]) => [CLASSES[name] ?? name, bytes(count)]),
    ["together", bytes(memory.total)],
  ], [1]);
  if (Object.keys(metadata).length) {
    out += title("Metadata") + table(Object.entries(metadata).map((entry) => entry.map(oneLine)));
  }
  out += title(`Tensors: ${tensors.length}`);
  out += table(
    tensors.map(({ name, dtype, shape }) => [oneLine(name), dtype, `[${shape.join(", ")}]`]),
  );
  print(out);
}

/** Text of a stranger's file, without what would move a terminal's cursor. */
function oneLine(text: string): string {
  const line = text.replace(/\p{Cc}+/gu, " ");
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

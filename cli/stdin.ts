/**
 * Standard input: the prompt of `generate`, the lines of a conversation, reports from a pipe.
 *
 * @module
 */
import { runtime } from "../engine/host/runtime.ts";

/** Text of standard input in chunks, until it ends. @throws the signal's reason, if aborted. */
async function* readChunks(signal?: AbortSignal): AsyncGenerator<string> {
  const decoder = new TextDecoderStream("utf-8", { fatal: true });
  const reader = runtime.stdin.readable.pipeThrough(decoder).getReader();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {}); // handled even if no read is waiting
  signal?.addEventListener("abort", () => reject(signal.reason));
  for (;;) {
    signal?.throwIfAborted();
    const { value, done } = await Promise.race([reader.read(), aborted]);
    if (done) return;
    yield value;
  }
}

/** `readChunks`, with an error that names standard input. */
async function* readText(signal?: AbortSignal): AsyncGenerator<string> {
  try {
    yield* readChunks(signal);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Error("Cannot read standard input: expected UTF-8, got other bytes");
  }
}

/** Lines of standard input; the last one may lack its end of line. */
export async function* readLines(signal?: AbortSignal): AsyncGenerator<string> {
  let held = "";
  for await (const chunk of readText(signal)) {
    const lines = (held + chunk).split("\n");
    held = lines.pop()!;
    for (const line of lines) yield line.replace(/\r$/, "");
  }
  if (held) yield held;
}

/**
 * The prompt on standard input without its last end of line, which `echo` adds; undefined on a
 * terminal and on empty input.
 */
export async function readPrompt(signal?: AbortSignal): Promise<string | undefined> {
  return (await readInput(signal)).replace(/\r?\n$/, "") || undefined;
}

/** The text on standard input; empty on a terminal. */
export async function readInput(signal?: AbortSignal): Promise<string> {
  if (runtime.stdin.isTerminal()) return "";
  let text = "";
  for await (const chunk of readText(signal)) text += chunk;
  return text;
}

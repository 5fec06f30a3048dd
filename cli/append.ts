/**
 * `append`: adds reports, and results of `deno bench`, to a history.
 *
 * @module
 */
import type { HistoryRecord } from "../engine/measure/history.ts";
import { UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import type { Invocation } from "./parse.ts";
import { openHistory, readHistory, recordsOf } from "./report_files.ts";
import { readInput } from "./stdin.ts";
import { say } from "./terminal.ts";

/** Runs the command. Every file is read before the first record is written. */
export async function append(
  { words: [path, ...files] }: Invocation,
  signal: AbortSignal,
): Promise<void> {
  if (path === undefined) throw new UsageError("append needs a history: FILE.jsonl or FILE.sqlite");
  const history = await openHistory(path);
  const records: HistoryRecord[] = [];
  for (const file of files.length ? files : ["-"]) {
    records.push(...file === "-" ? await fromStdin(signal) : await readHistory(file));
  }
  if (!records.length) throw new Error(`Cannot append to "${path}": no bench has a result`);
  const added = await history.append(records);
  const known = records.length - added;
  say(`${path}: added ${plural(added, "record")}${known ? `; ${known} were there already` : ""}`);
}

async function fromStdin(signal: AbortSignal): Promise<HistoryRecord[]> {
  return await recordsOf(await readInput(signal), "standard input");
}

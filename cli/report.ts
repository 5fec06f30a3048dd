/**
 * `report`: draws reports as one HTML page.
 *
 * @module
 */
import type { HistoryRecord } from "../engine/measure/history.ts";
import { toHtml } from "../mod.ts";
import { UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import { prepareOutput, sameFile } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { readHistory } from "./report_files.ts";
import { say } from "./terminal.ts";

/** Runs the command. Every file is read, and the page made, before anything is written. */
export async function report({ words: paths, given }: Invocation): Promise<void> {
  const path = given["html-out"];
  if (!paths.length) throw new UsageError("report needs files: .json, .jsonl or .sqlite");
  if (path === undefined) throw new UsageError("report needs --html-out FILE.html");
  const overwritten = paths.find((input) => sameFile(input, path));
  if (overwritten !== undefined) {
    throw new UsageError(`--html-out would overwrite the report "${overwritten}"`);
  }
  const records: HistoryRecord[] = [];
  const files: string[] = [];
  for (const file of paths) {
    for (const record of await readHistory(file)) {
      records.push(record);
      files.push(file);
    }
  }
  const page = toHtml(records, { files });
  prepareOutput(path).write(page);
  say(`wrote ${path}: ${plural(records.length, "record")} of ${plural(paths.length, "file")}`);
}

/**
 * Results of `bench`: files, history, and the format on standard output.
 *
 * @module
 */
import { type Reports, toCsv, toJson, toJsonl, toMarkdown } from "../mod.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { toSql } from "../engine/measure/sql.ts";
import { type Given, UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import { type Output, prepareOutput, sameFile } from "./output.ts";
import { type HistoryFile, openHistory } from "./report_files.ts";
import { print, say } from "./terminal.ts";

/** Formats of `--output`. */
const FORMATS: Readonly<
  Record<NonNullable<Given["output"]>, (reports: Reports) => string | Promise<string>>
> = {
  md: toMarkdown,
  json: toJson,
  jsonl: toJsonl,
  csv: toCsv,
  sql: (reports) => toSql([reports].flat()),
};

/** The outputs that the flags ask for, checked to be writable. */
export interface Outputs {
  readonly files: readonly { readonly output: Output; readonly format: (r: Reports) => string }[];
  readonly history?: HistoryFile;
  readonly format: (reports: Reports) => string | Promise<string>;
}

/**
 * Checks the outputs before the work begins, and makes their folders.
 * @throws {UsageError} If two are one file.
 * @throws {OutputError} If one cannot be written.
 */
export async function prepareOutputs(given: Given): Promise<Outputs> {
  const named = (["json-out", "md-out", "append"] as const).filter((flag) => given[flag]);
  for (const [i, flag] of named.entries()) {
    const other = named.slice(0, i).find((other) => sameFile(given[other]!, given[flag]!));
    if (other) {
      throw new UsageError(`--${other} and --${flag} are the same file, "${given[other]}"`);
    }
  }
  const formats = [[given["json-out"], toJson], [given["md-out"], toMarkdown]] as const;
  return {
    files: formats.flatMap(([path, format]) =>
      path === undefined ? [] : [{ output: prepareOutput(path), format }]
    ),
    history: given.append === undefined ? undefined : await openHistory(given.append),
    format: FORMATS[given.output ?? DEFAULTS.output],
  };
}

/**
 * Writes and prints results; prints even if a file fails: they took minutes to measure.
 * @param reports one report, or a list of a sweep.
 * @throws {OutputError} If a file cannot be written.
 */
export async function deliver(
  reports: Reports,
  { files, history, format }: Outputs,
): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (act: () => void | Promise<void>) => {
    try {
      await act();
    } catch (error) {
      failures.push(error);
    }
  };
  for (const { output, format } of files) {
    await attempt(() => {
      output.write(format(reports));
      say(`wrote ${output.path}`);
    });
  }
  await attempt(async () => {
    const added = await history?.append([reports].flat());
    if (added !== undefined) say(`added ${plural(added, "record")} to ${history!.path}`);
  });
  print(await format(reports));
  if (failures.length) throw failures[0];
}

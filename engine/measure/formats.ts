/**
 * Formats of reports: JSON, JSON a line, CSV, and the community table in Markdown.
 *
 * Each takes one report or a list. The table of one report is the specification's. That of a list
 * has the further columns of a sweep, and a row with its reason for a combination that failed.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { type FailureReport, isFailure } from "./history.ts";
import { type BenchmarkReport, warnings } from "./report.ts";

/** A result of a sweep: a report, or a combination that could not run. */
export type SweepRecord = BenchmarkReport | FailureReport;

/** One report, or the results of a sweep. */
export type Reports = SweepRecord | readonly SweepRecord[];

function listOf(reports: Reports): readonly SweepRecord[] {
  return Array.isArray(reports) ? reports : [reports as SweepRecord];
}

/**
 * Formats a report, or a list, as a JSON file: indented by two spaces, with a newline at its end.
 *
 * @param reports a result of `benchmark`, or a list of them.
 * @throws {TypeError} If a report was changed so that it contains itself.
 * @example
 * ```ts
 * import { type BenchmarkReport, toJson } from "@wgslm/wgslm";
 *
 * export async function save(report: BenchmarkReport, path: string): Promise<void> {
 *   await Deno.writeTextFile(path, toJson(report));
 * }
 * ```
 */
export function toJson(reports: Reports): string {
  return JSON.stringify(reports, null, 2) + "\n";
}

/**
 * Formats reports as JSON Lines: one report a line, as a history has them.
 *
 * @param reports a result of `benchmark`, or a list of them.
 * @throws {TypeError} If a report was changed so that it contains itself.
 * @example
 * ```ts
 * import { type BenchmarkReport, toJsonl } from "@wgslm/wgslm";
 *
 * export async function append(report: BenchmarkReport, path: string): Promise<void> {
 *   await Deno.writeTextFile(path, toJsonl(report), { append: true });
 * }
 * ```
 */
export function toJsonl(reports: Reports): string {
  return listOf(reports).map((report) => `${JSON.stringify(report)}\n`).join("");
}

/**
 * Formats reports as CSV (RFC 4180): a header, then one row a report. Columns are the scalar keys,
 * joined by dots; lists are left out, and null is an empty field.
 *
 * @param reports a result of `benchmark`, or a list of them.
 * @throws {RangeError} If a report was changed so that it contains itself.
 * @example
 * ```ts
 * import { benchmark, loadModel, toCsv } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const report = await benchmark(model, { genTokens: 8, warmupTokens: 0, iters: 1 });
 * const [header] = toCsv(report).split("\r\n");
 * console.log(header.includes("results.tokens_per_sec.mean")); // true
 * ```
 */
export function toCsv(reports: Reports): string {
  const rows = listOf(reports).map((report) => new Map(scalars(report)));
  const columns = [...new Set(rows.flatMap((row) => [...row.keys()]))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row.get(column) ?? ""))];
  return lines.map((line) => line.map(field).join(",") + "\r\n").join("");
}

/** Scalar values by their keys, joined by dots. */
function scalars(record: object, path = ""): [key: string, text: string][] {
  return Object.entries(record).flatMap(([key, value]) => {
    if (isRecord(value)) return scalars(value, `${path}${key}.`);
    if (Array.isArray(value) || value === undefined) return [];
    return [[`${path}${key}`, value === null ? "" : String(value)] as [string, string]];
  });
}

function field(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A column of the table: its title, its alignment, and its cell of a report. */
interface Column {
  readonly title: string;
  readonly isNumber?: boolean;
  readonly of: (report: BenchmarkReport) => string;
  /** Cell of a combination that failed; default a dash. */
  readonly failed?: (failure: FailureReport) => string;
}

/** Columns of the community table, as in the specification. */
const COLUMNS: readonly Column[] = [
  {
    title: "Device",
    of: ({ device }) => `${device.name} (${device.type})`,
    failed: ({ engine }) => engine.backend,
  },
  { title: "Source", of: ({ model }) => model.source, failed: ({ model }) => model.source },
  {
    title: "Model size (params M)",
    isNumber: true,
    of: ({ model }) => model.params_m.toFixed(3),
  },
  {
    title: "KV-cache",
    of: ({ generation }) => onOff(generation.use_kv_cache),
    failed: ({ generation }) => onOff(generation.use_kv_cache),
  },
  {
    title: "gen_tokens",
    isNumber: true,
    of: ({ generation }) => String(generation.gen_tokens),
    failed: ({ generation }) => orDash(generation.gen_tokens),
  },
  {
    title: "mean tok/s",
    isNumber: true,
    of: ({ results }) => results.tokens_per_sec.mean.toFixed(2),
  },
  {
    title: "peak VRAM MiB",
    isNumber: true,
    of: ({ results }) => results.vram_peak_mib?.toFixed(1) ?? "N/A",
  },
];

/** Columns that follow in the table of a sweep. */
const SWEEP_COLUMNS: readonly Column[] = [
  { title: "backend", of: ({ engine }) => engine.backend, failed: ({ engine }) => engine.backend },
  {
    title: "threads",
    isNumber: true,
    of: ({ engine }) => String(engine.threads),
    failed: ({ engine }) => orDash(engine.threads),
  },
  { title: "weights", of: ({ engine }) => engine.dtype, failed: ({ engine }) => engine.dtype },
  {
    title: "prompt",
    isNumber: true,
    of: ({ generation }) => String(generation.prompt_tokens),
    failed: ({ generation }) => orDash(generation.prompt_tokens),
  },
  {
    title: "prefill tok/s",
    isNumber: true,
    of: ({ results }) => results.prefill.tokens_per_sec.toFixed(2),
  },
  {
    title: "decode tok/s",
    isNumber: true,
    of: ({ results }) => results.decode.tokens_per_sec?.toFixed(2) ?? DASH,
  },
  { title: "± %", isNumber: true, of: spreadCell },
  { title: "of limit", isNumber: true, of: limitCell },
  { title: "check", of: checkCell, failed: ({ error }) => `not run: ${error}` },
];

/** Columns of a sweep over what no other column shows. */
const VARIED_COLUMNS: readonly Column[] = [
  { title: "model", of: ({ model }) => model.id, failed: ({ model }) => model.id },
  {
    title: "context",
    isNumber: true,
    of: ({ generation }) => orDash(generation.context_length ?? null),
    failed: ({ generation }) => orDash(generation.context_length),
  },
  { title: "KV dtype", of: kvCell, failed: kvCell },
  { title: "activations", of: activationsCell, failed: activationsCell },
];

/** Dtype of the cache; reports before 0.2 lack it. */
function kvCell({ engine }: SweepRecord): string {
  return engine.kv_dtype ?? DASH;
}

function activationsCell({ engine }: SweepRecord): string {
  return engine.activations ?? DASH;
}

const DASH = "–";

function onOff(value: boolean): string {
  return value ? "on" : "off";
}

function orDash(value: number | null): string {
  return value === null ? DASH : String(value);
}

/** Half of the 95 % interval of the mean, as a share of it. */
function spreadCell(report: BenchmarkReport): string {
  const { mean, low = null, high = null } = report.results.tokens_per_sec;
  if (low === null || high === null) return DASH;
  const share = 100 * Math.max(high - mean, mean - low) / mean;
  return `${share.toFixed(1)}${warnings(report).length ? ", noisy" : ""}`;
}

/** Share of the machine's limit that decoding reached; without decoding, of the prefill. */
function limitCell({ results: { limit } }: BenchmarkReport): string {
  const share = limit?.decode_share ?? limit?.prefill_share ?? null;
  return share === null ? DASH : `${(100 * share).toFixed(0)} %`;
}

function checkCell({ results: { check } }: BenchmarkReport): string {
  if (!check || check.passed === null) return `not checked${check ? `: ${check.reason}` : ""}`;
  return check.passed ? "passed" : `FAILED: ${check.reason}`;
}

/**
 * Formats reports as the community table in Markdown: for one report, the specification's columns;
 * for a list, those of a sweep after them.
 *
 * @param reports a result of `benchmark`, or a list of them.
 * @throws {TypeError} If a report lacks a key that a cell needs.
 * @example
 * ```ts
 * import { type BenchmarkReport, toMarkdown } from "@wgslm/wgslm";
 *
 * export function rowOf(report: BenchmarkReport): string {
 *   return toMarkdown(report).split("\n")[2];
 * }
 * ```
 */
export function toMarkdown(reports: Reports): string {
  const list = listOf(reports);
  const varied = VARIED_COLUMNS.filter((column) =>
    new Set(list.map((record) => textOf(column, record)).filter((text) => text !== DASH)).size > 1
  );
  const columns = Array.isArray(reports) ? [...COLUMNS, ...SWEEP_COLUMNS, ...varied] : COLUMNS;
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |\n`;
  return row(columns.map(({ title }) => title)) +
    `|${columns.map(({ isNumber }) => isNumber ? "---:" : "---").join("|")}|\n` +
    list.map((record) => row(columns.map((column) => textOf(column, record)))).join("");
}

function textOf(column: Column, record: SweepRecord): string {
  return cell(isFailure(record) ? column.failed?.(record) ?? DASH : column.of(record));
}

/** Escapes text for one cell of a Markdown table; a driver's device name may be anything. */
function cell(text: string): string {
  return text
    .replace(/\p{Cc}+|\p{Zl}|\p{Zp}/gu, " ")
    .replace(/ {2,}/g, " ")
    .replaceAll("\\", "\\\\")
    .replaceAll("|", "\\|")
    .trim();
}

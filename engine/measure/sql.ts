/**
 * SQL of a history: its tables, and its records as rows. `docs/report.md` documents the columns.
 *
 *     wgslm_history(version)     version of the tables, one row
 *     wgslm_reports(id, …, json) a report or a failure a row, the whole record as JSON
 *     wgslm_benches(id, …, json) a result of `deno bench` a row
 *
 * The id is a hash of the JSON, so a record is kept once however often it is inserted.
 *
 * @module
 */
import { type HistoryRecord, isFailure, isReport } from "./history.ts";

/** Version of the tables. */
export const TABLES_VERSION = 1;

/** A value of a column. */
export type SqlValue = string | number | null;

/** A table: its columns in order with their types, and their values of a record. */
interface Table {
  readonly name: string;
  readonly columns: Readonly<Record<string, string>>;
}

const REPORTS: Table = {
  name: "wgslm_reports",
  columns: {
    id: "text primary key",
    timestamp: "text not null",
    model: "text not null",
    backend: "text not null",
    threads: "integer",
    dtype: "text not null",
    device: "text",
    prompt_tokens: "integer",
    gen_tokens: "integer",
    tokens_per_sec: "real",
    error: "text",
    json: "text not null",
  },
};

const BENCHES: Table = {
  name: "wgslm_benches",
  columns: {
    id: "text primary key",
    timestamp: "text not null",
    origin: "text not null",
    bench_group: "text",
    name: "text not null",
    avg_ns: "real not null",
    json: "text not null",
  },
};

/** Tables with records, in the order of reading. */
export const TABLES: readonly string[] = [REPORTS.name, BENCHES.name];

/** Statements that make the tables where they are missing. */
export const CREATE_TABLES: string = [
  "create table if not exists wgslm_history (version integer not null);",
  `insert into wgslm_history select ${TABLES_VERSION} ` +
  "where not exists (select 1 from wgslm_history);",
  ...[REPORTS, BENCHES].map(({ name, columns }) =>
    `create table if not exists ${name} (${
      Object.entries(columns).map((column) => column.join(" ")).join(", ")
    });`
  ),
].join("\n");

/** A row: its table and its values in the order of the columns. */
export interface SqlRow {
  readonly table: string;
  readonly values: readonly SqlValue[];
}

/** The row of a record. */
export async function rowOf(record: HistoryRecord): Promise<SqlRow> {
  const json = JSON.stringify(record);
  const id = await hashOf(json);
  const { timestamp } = record;
  if (!isReport(record) && !isFailure(record)) {
    const { origin, group, name, avg_ns } = record.bench;
    return { table: BENCHES.name, values: [id, timestamp, origin, group, name, avg_ns, json] };
  }
  const { model, engine: { backend, threads, dtype }, generation } = record;
  const { prompt_tokens, gen_tokens } = generation;
  const device = isReport(record) ? record.device.name : null;
  const rate = isReport(record) ? record.results.tokens_per_sec.mean : null;
  const error = isFailure(record) ? record.error : null;
  return {
    table: REPORTS.name,
    values: [
      ...[id, timestamp, model.id, backend, threads, dtype, device],
      ...[prompt_tokens, gen_tokens, rate, error, json],
    ],
  };
}

/** Statement that inserts a row unless it is there; a parameter for each column. */
export function insertInto(table: string, values: readonly string[]): string {
  return `insert or ignore into ${table} values (${values.join(", ")});`;
}

/** Statements that add records to a database, in one transaction; may run more than once. */
export async function toSql(records: readonly HistoryRecord[]): Promise<string> {
  const rows = await Promise.all(records.map(rowOf));
  const inserts = rows.map(({ table, values }) => insertInto(table, values.map(literal)));
  return ["begin;", CREATE_TABLES, ...inserts, "commit;\n"].join("\n");
}

/** A value as SQL spells it; JSON escapes NUL, which would end a text, and names have none. */
function literal(value: SqlValue): string {
  if (value === null) return "null";
  if (typeof value === "number") return String(value);
  return `'${value.replaceAll("'", "''").replaceAll("\0", "")}'`;
}

/** The first half of a text's SHA-256, in hex. */
async function hashOf(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest, 0, 16)].map((b) => b.toString(16).padStart(2, "0")).join("");
}

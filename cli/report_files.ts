/**
 * Files of reports: JSON, JSON a line, and SQLite databases; reading, and appending to a history.
 *
 * Two processes may append to one file. Lines are written under a lock of the file, in one piece;
 * rows in one transaction, which waits up to 10 s for another writer.
 *
 * @module
 */
import type { DatabaseSync } from "node:sqlite";
import { messageOf } from "../engine/errors.ts";
import { findHost } from "../engine/host/choose.ts";
import { kindOf, openFile, readText } from "../engine/host/files.ts";
import {
  checkRecord,
  type HistoryRecord,
  isLines,
  isReport,
  parseRecords,
} from "../engine/measure/history.ts";
import { CREATE_TABLES, insertInto, rowOf, TABLES, TABLES_VERSION } from "../engine/measure/sql.ts";
import type { BenchmarkReport } from "../mod.ts";
import { UsageError } from "./flags.ts";
import { OutputError, prepareOutput } from "./output.ts";
import { writeAllSync } from "./terminal.ts";
import { type OpenFile, runtime } from "../engine/host/runtime.ts";

/** Largest file of reports, in bytes: V8's texts have at most 512 MiB. */
const MAX_BYTES = 500_000_000;

/** Milliseconds that a database waits for another writer. */
const BUSY_MS = 60_000;

/**
 * Reads the reports of a file, in its order; failures and kernel benches in it are left out.
 * @param path `.json` with a report or a list, `.jsonl`, or a history in SQLite.
 * @throws {Error} If it is missing, damaged, or of another tool; names the file and the line.
 */
export async function readReports(path: string): Promise<BenchmarkReport[]> {
  return (await readHistory(path)).filter(isReport);
}

/**
 * Reads every record of a file, in its order.
 * @param path as of `readReports`, or the output of `deno bench --json`.
 * @throws {Error} If it is missing, damaged, or of another tool; names the file and the line.
 */
export async function readHistory(path: string): Promise<HistoryRecord[]> {
  if (await isDatabase(path)) return await readDatabase(path);
  return await recordsOf(await readText(path, "reports", MAX_BYTES), path);
}

/** The records of a file's text; results of `deno bench` get this checkout's commit. */
export async function recordsOf(text: string, path: string): Promise<HistoryRecord[]> {
  const platform = await (await findHost()).platform();
  return parseRecords(text, path, { base: folderUrl(), commit: platform?.commit });
}

/** How a database in SQLite begins. */
const MAGIC = "SQLite format 3\0";

async function isDatabase(path: string): Promise<boolean> {
  using source = await openFile(path);
  const head = new Uint8Array(Math.min(MAGIC.length, source.size));
  await source.read(0, head);
  return new TextDecoder().decode(head) === MAGIC;
}

/** The working directory as a URL; undefined without permission to read it. */
function folderUrl(): string | undefined {
  try {
    const path = runtime.cwd().replaceAll("\\", "/");
    return new URL(`file://${path.startsWith("/") ? "" : "/"}${encodeURI(path)}/`).href;
  } catch {
    return undefined;
  }
}

/** A file that records are appended to. */
export interface HistoryFile {
  readonly path: string;
  /**
   * Adds records at the end; in SQLite those that are not there yet.
   * @returns the number of added records.
   * @throws {OutputError} If they cannot be added; the earlier ones are still there then.
   */
  append(records: readonly HistoryRecord[]): Promise<number>;
}

/**
 * Opens a history for appending, and makes its folder. An existing file must be a history.
 * @throws {UsageError} If the name ends in neither .jsonl nor .sqlite.
 * @throws {OutputError} If it cannot be written, or is another kind of file.
 */
export async function openHistory(path: string): Promise<HistoryFile> {
  const kind = isLines(path) ? LINES : /\.(sqlite3?|db)$/i.test(path) ? DATABASE : null;
  if (!kind) throw new UsageError(`--append: expected FILE.jsonl or FILE.sqlite, got "${path}"`);
  const inSentence = async <T>(act: () => T | Promise<T>): Promise<T> => {
    try {
      return await act();
    } catch (error) {
      const sentence = messageOf(error).replace(
        /^file is not a database$/,
        "expected a database of SQLite, got another kind of file",
      );
      throw new OutputError(`Cannot append to "${path}": ${sentence}`, { cause: error });
    }
  };
  if (await kindOf(path) === null) prepareOutput(path); // makes the folder
  else await inSentence(() => kind.check(path));
  return { path, append: (records) => inSentence(() => kind.append(path, records)) };
}

interface HistoryKind {
  /** @throws {Error} If an existing file is no history, or cannot be written. */
  check(path: string): void | Promise<void>;
  append(path: string, records: readonly HistoryRecord[]): number | Promise<number>;
}

const LINES: HistoryKind = {
  check(path) {
    using file = openLines(path);
    expectLines(file);
  },
  append(path, records) {
    using file = openLines(path);
    file.lockSync(true); // closing unlocks
    expectLines(file);
    const { size } = file.statSync();
    const isTorn = size > 0 && readAt(file, size - 1, 1)[0] !== 0x0a;
    const lines = records.map((record) => `${JSON.stringify(record)}\n`).join("");
    try {
      writeAllSync(file, new TextEncoder().encode(isTorn ? `\n${lines}` : lines));
      file.syncDataSync();
    } catch (error) {
      file.truncateSync(size); // no half line stays
      throw error;
    }
    return records.length;
  },
};

function openLines(path: string): OpenFile {
  return runtime.openSync(path, { read: true, append: true, create: true });
}

/** Bytes of a first line that are looked at: a record begins with its version. */
const FIRST_LINE = `{"schema_version":`;

/**
 * Checks the beginning of a file of lines; a torn first line may be the whole file.
 * @throws {Error} If it is not a history.
 */
function expectLines(file: OpenFile): void {
  const { size, isFile } = file.statSync();
  if (!isFile) throw new Error("expected a regular file");
  const head = new TextDecoder().decode(readAt(file, 0, Math.min(size, FIRST_LINE.length)));
  if (!FIRST_LINE.startsWith(head)) {
    throw new Error("expected a history of wgslm, got a file that begins otherwise");
  }
}

function readAt(file: OpenFile, offset: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  file.seekSync(offset, runtime.SeekMode.Start);
  for (let done = 0; done < count;) {
    const read = file.readSync(bytes.subarray(done));
    if (!read) return bytes.subarray(0, done);
    done += read;
  }
  return bytes;
}

const DATABASE: HistoryKind = {
  async check(path) {
    using database = await openDatabase(path);
    expectTables(database, true);
    database.exec("begin immediate; rollback"); // throws if it cannot be written
  },
  async append(path, records) {
    const rows = await Promise.all(records.map(rowOf));
    using database = await openDatabase(path);
    database.exec("begin immediate");
    try {
      expectTables(database, true);
      database.exec(CREATE_TABLES);
      let added = 0;
      for (const { table, values } of rows) {
        const insert = database.prepare(insertInto(table, values.map(() => "?")));
        added += Number(insert.run(...values).changes);
      }
      database.exec("commit");
      return added;
    } catch (error) {
      if (database.isTransaction) database.exec("rollback");
      throw error;
    }
  },
};

async function openDatabase(path: string, readOnly = false): Promise<DatabaseSync> {
  // Loaded only here: opening SQLite takes 20 ms.
  const { DatabaseSync } = await import("node:sqlite");
  return new DatabaseSync(path, { timeout: BUSY_MS, readOnly });
}

/**
 * Checks the tables of a database.
 * @param emptyToo whether a database without a table is accepted.
 * @throws {Error} If they are not a history's.
 */
function expectTables(database: DatabaseSync, emptyToo: boolean): void {
  const names = database.prepare("select name from sqlite_schema where type = 'table'").all()
    .map(({ name }) => name);
  if (emptyToo && !names.length) return;
  if (!["wgslm_history", ...TABLES].every((table) => names.includes(table))) {
    throw new Error("expected a history of wgslm, got a database of another schema");
  }
  const version = database.prepare("select max(version) as version from wgslm_history").get()
    ?.version;
  if (version === TABLES_VERSION) return;
  throw new Error(`expected version ${TABLES_VERSION} of a history, got ${version}; update wgslm`);
}

async function readDatabase(path: string): Promise<HistoryRecord[]> {
  try {
    using database = await openDatabase(path, true);
    expectTables(database, false);
    return TABLES.flatMap((table) =>
      database.prepare(`select json from ${table} order by rowid`).all().map(({ json }, i) =>
        checkRecord(JSON.parse(String(json)), `row ${i + 1} of ${table} in "${path}"`)
      )
    );
  } catch (error) {
    const sentence = messageOf(error);
    if (sentence.startsWith("Cannot read")) throw error;
    throw new Error(`Cannot read "${path}": ${sentence}`, { cause: error });
  }
}

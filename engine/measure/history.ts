/**
 * History of measurements: records of reports, failures and kernel benches, read from JSON text.
 *
 *     report.json     one record, or a list of them
 *     history.jsonl   one record a line
 *     deno bench --json, whose benches become records
 *
 * `sql.ts` has the same records as rows of a database.
 *
 * @module
 */
import { messageOf } from "../errors.ts";
import { isRecord, parseJson } from "../json.ts";
import { type BenchmarkReport, VERSION } from "./report.ts";

/** A combination of a sweep that could not run; its keys are those of a report. */
export interface FailureReport {
  /** As of a report. */
  schema_version: 1;
  /** Time of the failure, ISO 8601, UTC. */
  timestamp: string;
  /** The reason, in a sentence. */
  error: string;
  /** Backend, threads and dtypes as asked for; null threads are the default. */
  engine: {
    name: "wgslm";
    version: string;
    backend: string;
    threads: number | null;
    dtype: string;
    /** Dtype of the KV cache; missing in older records, as the next. */
    kv_dtype?: string;
    /** Bits of activations: "exact" or "int8". */
    activations?: string;
  };
  /** The model as a report names it. */
  model: { source: "local" | "hf"; id: string };
  /** Lengths as asked for; null is the default. */
  generation: {
    prompt_tokens: number | null;
    gen_tokens: number | null;
    context_length: number | null;
    use_kv_cache: boolean;
  };
}

/** A result of `deno bench`; times are per call, in ns. */
export interface KernelBench {
  /** As of a report. */
  schema_version: 1;
  /** When it was added to the history, ISO 8601, UTC. */
  timestamp: string;
  /** Commit of the project's checkout, as in a report; older records lack it. */
  commit?: string | null;
  /** Engine that the bench measured. */
  engine: { name: "wgslm"; version: string };
  /** Runtime and processor, as `deno bench` names them. */
  platform: { runtime: string; cpu: string };
  /** The bench and its result. */
  bench: {
    /** File of the bench, relative to the working directory if it is below it. */
    origin: string;
    group: string | null;
    name: string;
    /** Number of calls. */
    n: number;
    avg_ns: number;
    min_ns: number;
    max_ns: number;
    p75_ns: number;
    p99_ns: number;
  };
}

/** A record of a history. */
export type HistoryRecord = BenchmarkReport | FailureReport | KernelBench;

/** Whether a record is a measurement of a model. */
export function isReport(record: HistoryRecord): record is BenchmarkReport {
  return "results" in record;
}

/** Whether a record is a combination that could not run. */
export function isFailure(record: HistoryRecord): record is FailureReport {
  return "error" in record;
}

/** The type of a key's value: a name as of typeof, "…?" if null is allowed. */
type Shape = string | { readonly [key: string]: Shape } | readonly [Shape];

const RATES: Shape = { mean: "number", min: "number", max: "number", stddev: "number" };

/** Keys that readers of a report rely on; more are allowed. */
const REPORT: Shape = {
  timestamp: "string",
  commit: "string?",
  platform: { os: "string", deno: "string?", v8: "string?", cpu: "string", cores: "number" },
  engine: { version: "string", backend: "string", threads: "number", dtype: "string" },
  device: { type: "string", name: "string" },
  model: { source: "string", id: "string", params_m: "number", dtype: "string" },
  generation: {
    prompt: "string?",
    prompt_tokens: "number",
    gen_tokens: "number",
    use_kv_cache: "boolean",
  },
  results: {
    iters: "number",
    tokens_per_sec: RATES,
    vram_peak_mib: "number?",
    buffer_peak_mib: "number",
    prefill: { tokens: "number", ms: "number", tokens_per_sec: "number" },
    decode: {
      tokens: "number",
      tokens_per_sec: "number?",
      ms_per_token: { p50: "number?", p90: "number?", p99: "number?" },
    },
    load_ms: "number",
    first_token_ms: "number",
    per_iter: [{ seconds: "number", tokens_per_sec: "number", token_ms: ["number"] }],
  },
};

const FAILURE: Shape = {
  timestamp: "string",
  error: "string",
  engine: { version: "string", backend: "string", threads: "number?", dtype: "string" },
  model: { source: "string", id: "string" },
  generation: { prompt_tokens: "number?", gen_tokens: "number?" },
};

const BENCH: Shape = {
  timestamp: "string",
  platform: { runtime: "string", cpu: "string" },
  bench: {
    origin: "string",
    group: "string?",
    name: "string",
    n: "number",
    avg_ns: "number",
    min_ns: "number",
    max_ns: "number",
    p75_ns: "number",
    p99_ns: "number",
  },
};

/** The first key whose value has another type, as "expected KEY to be …, got …"; else null. */
function mismatch(value: unknown, shape: Shape, path: string): string | null {
  if (typeof shape === "string") {
    const type = shape.replace("?", "");
    if (typeof value === type || shape.endsWith("?") && value === null) return null;
    return `expected ${path} to be a ${type}, got ${value === null ? "null" : typeof value}`;
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) return `expected ${path} to be a list, got ${typeof value}`;
    return first(value, (item, i) => mismatch(item, shape[0], `${path}[${i}]`));
  }
  if (!isRecord(value)) return `expected ${path} to be an object, got ${typeof value}`;
  return first(
    Object.entries(shape),
    ([key, inner]) => mismatch(value[key], inner, path ? `${path}.${key}` : key),
  );
}

function first<T>(items: readonly T[], find: (item: T, i: number) => string | null): string | null {
  for (const [i, item] of items.entries()) {
    const found = find(item, i);
    if (found !== null) return found;
  }
  return null;
}

/**
 * Checks that a value is a record of a history.
 * @param where file and line, for the message.
 * @throws {Error} If it is of another tool, of another version, or damaged.
 */
export function checkRecord(value: unknown, where: string): HistoryRecord {
  const refuse = (reason: string): never => {
    throw new Error(`Cannot read ${where}: ${reason}`);
  };
  const { engine, schema_version: version } = isRecord(value) ? value : {};
  if (!isRecord(engine) || engine.name !== "wgslm") {
    return refuse("expected a report of wgslm, got JSON of another tool");
  }
  if (version !== 1) {
    return refuse(`expected schema_version 1, got ${JSON.stringify(version)}; update wgslm`);
  }
  const record = value as Record<string, unknown>;
  const shape = "bench" in record ? BENCH : "error" in record ? FAILURE : REPORT;
  const reason = mismatch(record, shape, "");
  if (reason !== null) refuse(reason);
  return value as HistoryRecord; // as far as readers use its keys
}

/** Options of reading records. */
export interface ReadOptions {
  /** Folder of the working directory as a URL; benches below it are named relative to it. */
  readonly base?: string;
  /** Time to give to results of `deno bench`, which carry none; default now. */
  readonly timestamp?: string;
  /** Commit to give to them; default null. */
  readonly commit?: string | null;
}

/**
 * Reads records from the text of a file: JSON, JSON a line, or the output of `deno bench --json`.
 * @param path name of the file, for messages; `.jsonl` has one record a line.
 * @throws {Error} If the text is no JSON, or not of this tool; names the file, and the line.
 */
export function parseRecords(
  text: string,
  path: string,
  options: ReadOptions = {},
): HistoryRecord[] {
  if (!text.trim()) throw new Error(`Cannot read "${path}": expected a report, got an empty file`);
  if (isLines(path)) return parseLines(text, path);
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    // A list without the usual name, such as of a pipe, has a whole record in its first line.
    const [line, rest = ""] = text.split(/\n([^]*)/);
    if (rest.trim() && isJson(line)) return parseLines(text, path);
    throw new Error(`Cannot read "${path}": expected JSON, got ${messageOf(error)}`);
  }
  if (isRecord(value) && Array.isArray(value.benches)) return benchRecords(value, path, options);
  if (!Array.isArray(value)) return [checkRecord(value, `"${path}"`)];
  return value.map((item, i) => checkRecord(item, `item ${i + 1} of "${path}"`));
}

/** Whether a path has the name of a file with one record a line. */
export function isLines(path: string): boolean {
  return /\.(jsonl|ndjson)$/i.test(path);
}

function isJson(text: string): boolean {
  try {
    return isRecord(parseJson(text));
  } catch {
    return false;
  }
}

function parseLines(text: string, path: string): HistoryRecord[] {
  return text.split("\n").flatMap((line, i) => {
    if (!line.trim()) return [];
    const where = `line ${i + 1} of "${path}"`;
    let value: unknown;
    try {
      value = parseJson(line);
    } catch {
      const shown = JSON.stringify(line.trim().slice(0, 40));
      throw new Error(
        `Cannot read ${where}: expected a record in JSON, got ${shown}…; remove the line`,
      );
    }
    return [checkRecord(value, where)];
  });
}

/** Records of the benches that ran, of the output of `deno bench --json`. */
function benchRecords(
  { version, runtime, cpu, benches }: Record<string, unknown>,
  path: string,
  { base, timestamp = new Date().toISOString(), commit = null }: ReadOptions,
): KernelBench[] {
  if (version !== 1) {
    throw new Error(
      `Cannot read "${path}": expected version 1 of deno bench's JSON, got ${
        JSON.stringify(version)
      }`,
    );
  }
  return (benches as unknown[]).flatMap((item, i) => {
    const where = `bench ${i + 1} of "${path}"`;
    const { origin, group = null, name, results } = isRecord(item) ? item : {};
    const ok = Array.isArray(results) && isRecord(results[0]) ? results[0].ok : undefined;
    if (!isRecord(ok)) return []; // it failed
    const { n, avg, min, max, p75, p99 } = ok;
    const file = base && typeof origin === "string" && origin.startsWith(base)
      ? decodeURIComponent(origin.slice(base.length))
      : origin;
    const record = {
      schema_version: 1,
      timestamp,
      commit,
      engine: { name: "wgslm", version: VERSION },
      platform: { runtime, cpu },
      bench: {
        ...{ origin: file, group, name, n },
        ...{ avg_ns: avg, min_ns: min, max_ns: max, p75_ns: p75, p99_ns: p99 },
      },
    };
    return [checkRecord(record, where) as KernelBench];
  });
}

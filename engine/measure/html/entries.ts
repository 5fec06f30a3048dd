/**
 * Entries of the page: the figures of each report, checked, and a name that tells it from the
 * others. Browser compatible.
 *
 * A report may be of an earlier version and lack keys: its figures are null then.
 *
 * @module
 */
import { DEFAULTS } from "../../defaults.ts";
import { isRecord } from "../../json.ts";
import type { BenchmarkReport } from "../report.ts";

/** A report and the name of its file. */
export interface NamedReport {
  readonly report: BenchmarkReport;
  readonly file?: string;
}

/** Cost of a kind of kernel in a pass. */
export interface Kernel {
  readonly name: string;
  readonly calls: number;
  readonly ms: number;
  /** Least possible time divided by `ms`. */
  readonly limitShare: number | null;
  readonly limit: string;
}

/** Kernels of a decode step, or of a prefill chunk. */
export interface Pass {
  readonly kind: "decode" | "prefill";
  readonly rows: number;
  readonly length: number;
  readonly kernels: readonly Kernel[];
}

/** Classes of memory, as keys of a report and as names. */
export const MEMORY_CLASSES = [
  ["weights_mib", "weights"],
  ["kv_cache_mib", "KV cache"],
  ["activations_mib", "activations"],
  ["staging_mib", "staging"],
] as const;

/** Peaks of the classes of memory in a stage, in MiB, in the order of `MEMORY_CLASSES`. */
export interface MemoryStage {
  readonly name: string;
  readonly mib: readonly number[];
}

/** Settings in which reports of one model may differ. */
export interface Settings {
  readonly device: string;
  readonly backend: string;
  readonly threads: number | null;
  readonly dtype: string;
  readonly kvDtype: string;
  readonly activations: string;
  readonly context: number;
  readonly promptTokens: number | null;
  readonly genTokens: number | null;
  readonly useKvCache: boolean;
}

/** A rate in tokens/s with its 95 % interval. */
export interface Estimate {
  readonly mean: number;
  readonly low: number | null;
  readonly high: number | null;
}

/** Data of a report on the page. Times in ms, rates in tokens/s, sizes in MiB. */
export interface Entry {
  /** The report itself. */
  readonly report: BenchmarkReport;
  /** Its model, or its file where models coincide. */
  readonly name: string;
  /** The settings that differ among the reports; with `name`, unique in the page. */
  readonly details: string;
  /** Of the details, those without a column in the overview. */
  readonly rest: string;
  readonly model: string;
  /** Millions of parameters, which distinguishes models of one id. */
  readonly paramsM: number | null;
  readonly settings: Settings;
  /** In ms since 1970. */
  readonly timestamp: number | null;
  readonly rate: Estimate;
  readonly prefill: number | null;
  readonly decode: number | null;
  readonly firstTokenMs: number | null;
  readonly peakMiB: number | null;
  /** Share of the device's limit that a decode step reaches. */
  readonly limitShare: number | null;
  readonly check: Check;
  /** Times of the tokens of each iteration. */
  readonly tokenMs: readonly (readonly number[])[];
  readonly passes: readonly Pass[];
  readonly memory: readonly MemoryStage[];
}

/** Comparison with the plain backend. */
export interface Check {
  readonly passed: boolean | null;
  /** Why it did not run, or its outcome. */
  readonly text: string;
}

/** The value at a path of keys, or undefined. */
export function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>(
    (inner, key) => {
      if (Array.isArray(inner)) return inner[Number(key)];
      return isRecord(inner) && Object.hasOwn(inner, key) ? inner[key] : undefined;
    },
    value,
  );
}

/** Largest figure that is drawn, and smallest above 0; beyond them, scales lose their digits. */
const [LARGEST, SMALLEST] = [1e15, 1e-15];

/** A figure as it is drawn; null if it is no number, negative, or not finite. */
export function figureOf(value: unknown): number | null {
  if (typeof value !== "number" || !(value >= 0 && value <= LARGEST)) return null;
  return value < SMALLEST ? 0 : value;
}

/** The figure at a path of keys. */
export function figureAt(value: unknown, path: string): number | null {
  return figureOf(at(value, path));
}

function textAt(value: unknown, path: string): string {
  const found = at(value, path);
  return typeof found === "string" ? found : "";
}

function listAt(value: unknown, path: string): readonly unknown[] {
  const found = at(value, path);
  return Array.isArray(found) ? found : [];
}

/** Entries of reports, in their order. */
export function entriesOf(named: readonly NamedReport[]): Entry[] {
  const read = named.map(({ report }) => readReport(report));
  const names = nameAll(read, named.map(({ file }) => file));
  return read.map((figures, i) => ({ ...figures, ...names[i] }));
}

type Figures = Omit<Entry, "name" | "details" | "rest">;

function readReport(report: BenchmarkReport): Figures {
  const raw = report.results.tokens_per_sec.mean;
  const mean = figureOf(raw);
  if (mean === null) {
    throw new RangeError(
      `Cannot draw a report: expected its mean rate to be at least 0, got ${raw}`,
    );
  }
  const time = Date.parse(textAt(report, "timestamp"));
  return {
    report,
    model: textAt(report, "model.id") || "unnamed model",
    paramsM: figureAt(report, "model.params_m"),
    settings: readSettings(report),
    timestamp: Number.isNaN(time) ? null : time,
    rate: {
      mean,
      low: figureAt(report, "results.tokens_per_sec.low"),
      high: figureAt(report, "results.tokens_per_sec.high"),
    },
    prefill: figureAt(report, "results.prefill.tokens_per_sec"),
    decode: figureAt(report, "results.decode.tokens_per_sec"),
    firstTokenMs: figureAt(report, "results.first_token_ms"),
    peakMiB: figureAt(report, "results.buffer_peak_mib") ??
      figureAt(report, "results.vram_peak_mib"),
    limitShare: figureAt(report, "results.limit.decode_share"),
    check: readCheck(report),
    tokenMs: listAt(report, "results.per_iter").map((iteration) =>
      listAt(iteration, "token_ms").flatMap((ms) => figureOf(ms) ?? [])
    ).filter((times) => times.length > 0),
    passes: (["decode", "prefill"] as const).flatMap((kind) => readPass(report, kind)),
    memory: readMemory(report),
  };
}

/** Settings of earlier versions, whose reports do not name them. */
const EARLIER = { kvDtype: "F32", activations: "exact" };

function readSettings(report: unknown): Settings {
  const contextLength = figureAt(report, "model.block_size") ?? DEFAULTS.contextLength;
  return {
    device: textAt(report, "device.name"),
    backend: textAt(report, "engine.backend") || textAt(report, "device.type"),
    threads: figureAt(report, "engine.threads"),
    dtype: textAt(report, "engine.dtype") || textAt(report, "model.dtype"),
    kvDtype: textAt(report, "engine.kv_dtype") || EARLIER.kvDtype,
    activations: textAt(report, "engine.activations") || EARLIER.activations,
    context: figureAt(report, "generation.context_length") ??
      Math.min(contextLength, DEFAULTS.contextLength),
    promptTokens: figureAt(report, "generation.prompt_tokens"),
    genTokens: figureAt(report, "generation.gen_tokens"),
    useKvCache: at(report, "generation.use_kv_cache") !== false,
  };
}

function readCheck(report: unknown): Check {
  const passed = at(report, "results.check.passed");
  const reason = textAt(report, "results.check.reason");
  if (passed === true) return { passed, text: reason || "passed" };
  if (passed === false) return { passed, text: reason || "failed" };
  return { passed: null, text: reason };
}

function readPass(report: unknown, kind: Pass["kind"]): Pass[] {
  const path = `results.profile.${kind}`;
  const kernels = listAt(report, `${path}.kernels`).flatMap((kernel) => {
    const ms = figureAt(kernel, "ms");
    if (ms === null) return [];
    return [{
      name: textAt(kernel, "name"),
      calls: figureAt(kernel, "calls") ?? 1,
      ms,
      limitShare: figureAt(kernel, "limit_share"),
      limit: textAt(kernel, "limit"),
    }];
  });
  if (!kernels.length) return [];
  const [rows, length] = [figureAt(report, `${path}.rows`), figureAt(report, `${path}.length`)];
  return [{ kind, rows: rows ?? 1, length: length ?? 1, kernels }];
}

function readMemory(report: unknown): MemoryStage[] {
  return listAt(report, "results.memory").map((stage) => ({
    name: textAt(stage, "stage"),
    mib: MEMORY_CLASSES.map(([key]) => figureAt(stage, key) ?? 0),
  }));
}

type SettingText = (settings: Settings) => string;

/** How the settings with a column in the overview read in a name. */
const COLUMN_TEXTS: readonly SettingText[] = [
  ({ backend }) => backend,
  ({ threads }) => threads === null ? "" : threads === 1 ? "1 thread" : `${threads} threads`,
  ({ dtype }) => dtype,
  ({ promptTokens }) => promptTokens === null ? "" : `prompt ${promptTokens}`,
  ({ genTokens }) => genTokens === null ? "" : `${genTokens} generated`,
];

/** How the other settings read in a name. */
const OTHER_TEXTS: readonly SettingText[] = [
  ({ kvDtype }) => `KV ${kvDtype}`,
  ({ activations }) => `activations ${activations}`,
  ({ context }) => `context ${context}`,
  ({ useKvCache }) => useKvCache ? "KV cache on" : "KV cache off",
  ({ device }) => device,
];

const SETTING_TEXTS = [...COLUMN_TEXTS, ...OTHER_TEXTS];

/** Texts of the settings in which the members of a list differ, for each member. */
export function differingSettings(
  all: readonly Settings[],
  texts: readonly SettingText[] = SETTING_TEXTS,
): string[] {
  const differing = texts.filter((text) => new Set(all.map(text)).size > 1);
  return all.map((settings) => differing.map((text) => text(settings)).filter(Boolean).join(" · "));
}

/** A name and details for each report: unique together. */
function nameAll(
  figures: readonly Figures[],
  files: readonly (string | undefined)[],
): Pick<Entry, "name" | "details" | "rest">[] {
  const short = shortPaths(files);
  const settings = figures.map(({ settings }) => settings);
  const details = differingSettings(settings);
  const rest = differingSettings(settings, OTHER_TEXTS);
  const names = figures.map(({ model }, i) => {
    const same = figures.flatMap((other, j) => other.model === model ? [short[j]] : []);
    return new Set(same).size > 1 ? short[i] ?? model : model;
  });
  const dates = figures.map(({ timestamp }) => timestamp === null ? "" : dateAndTime(timestamp));
  const suffixes = uniqueSuffixes(
    names.map((name, i) => JSON.stringify([name, details[i]])),
    dates,
  );
  const join = (...texts: string[]) => texts.filter(Boolean).join(" · ");
  return names.map((name, i) => ({
    name,
    details: join(details[i], suffixes[i]),
    rest: join(rest[i], suffixes[i]),
  }));
}

/** Suffixes that make equal keys unique: dates, and a number where dates are equal too. */
function uniqueSuffixes(keys: readonly string[], dates: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  const seen = new Map<string, number>();
  return keys.map((key, i) => {
    if (counts.get(key) === 1) return "";
    const dated = key + dates[i];
    const nth = (seen.get(dated) ?? 0) + 1;
    seen.set(dated, nth);
    return nth === 1 ? dates[i] : `${dates[i]} #${nth}`.trim();
  });
}

/** Date and time of a timestamp, in UTC, to the minute. */
export function dateAndTime(timestamp: number): string {
  return new Date(timestamp).toISOString().slice(0, 16).replace("T", " ");
}

/** The shortest ends of paths, in whole names, that tell different paths apart. */
function shortPaths(paths: readonly (string | undefined)[]): (string | undefined)[] {
  const parts = paths.map((path) => path?.split(/[/\\]/));
  const different = new Set(paths).size;
  const longest = Math.max(0, ...parts.map((names) => names?.length ?? 0));
  for (let count = 1; count <= longest; count++) {
    const short = parts.map((names) => names?.slice(-count).join("/"));
    if (new Set(short).size === different) return short;
  }
  return [...paths];
}

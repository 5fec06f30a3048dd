/**
 * Comparison of benchmark reports: ratio of each metric with its 95 % interval, and what differs.
 *
 *     base ─┐                 ┌─▶ metrics       ratio, interval, verdict
 *           ├─ raw samples ───┤
 *     next ─┘                 ├─▶ obstacles     other work: another model or length, wrong results
 *                             └─▶ differences   another machine, version or setting
 *
 * A side is one report or several of the same settings; several processes give a truer interval
 * (`statistics.ts`). A ratio is one of rates: times are inverted, so that above 1 is faster.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { show } from "../options.ts";
import type { BenchmarkReport } from "./report.ts";
import { type Interval, meanOf, ratioInterval, type Runs } from "./statistics.ts";

/** What a ratio and its interval say. */
export type Verdict = "faster" | "slower" | "no difference seen" | "not known";

/** Comparison of one metric. */
export interface MetricComparison {
  /** Path of its key under `results`. */
  metric: string;
  /** Mean of the base's reports, in the key's unit. */
  base: number;
  /** Mean of the next one's. */
  next: number;
  /** next / base of a rate, base / next of a time: above 1 is faster. */
  ratio: number;
  /** Lower end of the ratio's 95 % interval; null if a side has a single sample. */
  low: number | null;
  /** Upper end of that interval. */
  high: number | null;
  /** Raw samples of the side that has fewer. */
  samples: number;
  /** "faster" or "slower" if the interval excludes 1; "not known" without an interval. */
  verdict: Verdict;
}

/** A key that the sides differ in. */
export interface Difference {
  /** Path of the key in the report. */
  key: string;
  /** Value of the base's reports; several are joined by ", ", a missing one is a dash. */
  base: string;
  /** Value of the next one's. */
  next: string;
}

/** Comparison of two builds, machines or settings. */
export interface Comparison {
  /** Metrics that both sides have. */
  metrics: MetricComparison[];
  /** Reasons why the sides did other work; a ratio means little if there are any. */
  obstacles: Difference[];
  /** Machine, versions and settings that differ. */
  differences: Difference[];
}

/** One report, or several of the same settings. */
export type Side = BenchmarkReport | readonly BenchmarkReport[];

/**
 * Compares benchmark reports. The interval is the same in every run for the same reports.
 *
 * @param base a report, or several of one build and setting.
 * @param next the same of the other build or setting.
 * @throws {TypeError} If a side is no report or has none.
 * @example
 * ```ts
 * import { type BenchmarkReport, compareReports } from "@wgslm/wgslm";
 *
 * export function isSlower(base: BenchmarkReport, next: BenchmarkReport): boolean {
 *   const { metrics } = compareReports(base, next);
 *   return metrics.some(({ metric, high }) =>
 *     metric === "tokens_per_sec" && high !== null && high < 0.95
 *   );
 * }
 * ```
 */
export function compareReports(base: Side, next: Side): Comparison {
  const [from, to] = [reportsOf(base, "base"), reportsOf(next, "next")];
  const metrics = METRICS.flatMap((metric) => compareMetric(metric, from, to) ?? []);
  return {
    metrics,
    obstacles: [...differencesIn(WORK, from, to), ...failedChecks(from, to)],
    differences: differencesIn(SETTINGS, from, to),
  };
}

function reportsOf(side: Side, name: string): readonly BenchmarkReport[] {
  const reports: readonly unknown[] = Array.isArray(side) ? side : [side];
  const isReport = (report: unknown) =>
    isRecord(report) && isRecord(report.results) && Array.isArray(report.results.per_iter) &&
    report.results.per_iter.length > 0;
  const stranger = reports.find((report) => !isReport(report));
  if (reports.length && stranger === undefined) return reports as readonly BenchmarkReport[];
  throw new TypeError(
    `Cannot compare: expected ${name} to be a report with iterations, got ${
      reports.length ? show(stranger) : "an empty list"
    }`,
  );
}

/** A metric: its raw samples in a report, and whether they are times. */
interface Metric {
  readonly name: string;
  readonly isTime?: boolean;
  readonly samples: (results: BenchmarkReport["results"]) => number[];
}

const METRICS: readonly Metric[] = [
  {
    name: "tokens_per_sec",
    samples: ({ per_iter }) => per_iter.map(({ tokens_per_sec }) => tokens_per_sec),
  },
  {
    name: "prefill.tokens_per_sec",
    // Reports of earlier versions have the median alone.
    samples: ({ prefill: { tokens, ms, passes_ms } }) =>
      (passes_ms ?? [ms]).map((pass) => 1000 * tokens / pass),
  },
  {
    name: "decode.tokens_per_sec",
    samples: ({ per_iter }) =>
      per_iter.filter(({ token_ms }) => token_ms.length > 1).map((
        { token_ms: [, ...later] },
      ) => 1000 * later.length / later.reduce((sum, ms) => sum + ms, 0)),
  },
  {
    name: "first_token_ms",
    isTime: true,
    samples: ({ per_iter }) => per_iter.flatMap(({ token_ms }) => token_ms.slice(0, 1)),
  },
  { name: "load_ms", isTime: true, samples: ({ load_ms }) => [load_ms] },
];

/** null if a report has no sample of the metric. */
function compareMetric(
  { name, isTime, samples }: Metric,
  from: readonly BenchmarkReport[],
  to: readonly BenchmarkReport[],
): MetricComparison | null {
  const runsOf = (reports: readonly BenchmarkReport[]): Runs =>
    reports.map(({ results }) => samples(results).filter((value) => value > 0 && isFinite(value)));
  const [base, next] = [runsOf(from), runsOf(to)];
  if ([...base, ...next].some((run) => !run.length)) return null;
  const [slow, fast] = isTime ? [next, base] : [base, next];
  const interval = ratioInterval(slow, fast);
  return {
    metric: name,
    base: meanOf(base),
    next: meanOf(next),
    ratio: meanOf(fast) / meanOf(slow),
    low: interval?.low ?? null,
    high: interval?.high ?? null,
    samples: Math.min(base.flat().length, next.flat().length),
    verdict: verdictOf(interval),
  };
}

function verdictOf(interval: Interval | null): Verdict {
  if (!interval) return "not known";
  return interval.low > 1 ? "faster" : interval.high < 1 ? "slower" : "no difference seen";
}

type Keys = Readonly<Record<string, (report: BenchmarkReport) => unknown>>;

/** Keys that make the work another one. */
const WORK: Keys = {
  // The same model may have another path on another machine.
  "model.id": ({ model }) => model.id.replace(/[/\\]+$/, "").replace(/^.*[/\\]/, ""),
  "model.params_m": ({ model }) => model.params_m,
  "model.vocab_size": ({ model }) => model.vocab_size,
  "model.n_layer": ({ model }) => model.n_layer,
  "model.n_head": ({ model }) => model.n_head,
  "model.n_embd": ({ model }) => model.n_embd,
  "generation.prompt_tokens": ({ generation }) => generation.prompt_tokens,
  "generation.gen_tokens": ({ generation }) => generation.gen_tokens,
  "generation.use_kv_cache": ({ generation }) => generation.use_kv_cache,
  "generation.temperature": ({ generation }) => generation.temperature,
  "generation.top_k": ({ generation }) => generation.top_k,
  "generation.top_p": ({ generation }) => generation.top_p,
  "generation.repetition_penalty": ({ generation }) => generation.repetition_penalty,
};

/** Keys of machine, versions and settings, whose effect a comparison may be about. */
const SETTINGS: Keys = {
  "commit": ({ commit }) => commit,
  "engine.version": ({ engine }) => engine.version,
  "engine.backend": ({ engine }) => engine.backend,
  "engine.threads": ({ engine }) => engine.threads,
  "engine.dtype": ({ engine }) => engine.dtype,
  "engine.kv_dtype": ({ engine }) => engine.kv_dtype,
  "engine.simd": ({ engine }) => engine.simd,
  "engine.v8_flags": ({ engine }) => engine.v8_flags && (engine.v8_flags.join(" ") || "none"),
  "device.name": ({ device }) => device.name,
  "platform.os": ({ platform }) => platform.os,
  "platform.deno": ({ platform }) => platform.deno,
  "platform.node": ({ platform }) => platform.node,
  "platform.bun": ({ platform }) => platform.bun,
  "platform.v8": ({ platform }) => platform.v8,
  "platform.cpu": ({ platform }) => platform.cpu,
  "platform.cores": ({ platform }) => platform.cores,
  "model.block_size": ({ model }) => model.block_size,
  "generation.context_length": ({ generation }) => generation.context_length,
  "generation.prompt": ({ generation }) => generation.prompt,
  "generation.deterministic": ({ generation }) => generation.deterministic,
  "generation.warmup_tokens": ({ generation }) => generation.warmup_tokens,
};

/** The keys in which the reports of both sides have other values. */
function differencesIn(
  keys: Keys,
  from: readonly BenchmarkReport[],
  to: readonly BenchmarkReport[],
): Difference[] {
  const valuesOf = (reports: readonly BenchmarkReport[], of: Keys[string]) =>
    [...new Set(reports.map((report) => String(of(report) ?? "–")))].sort().join(", ");
  return Object.entries(keys).flatMap(([key, of]) => {
    const [base, next] = [valuesOf(from, of), valuesOf(to, of)];
    return base === next ? [] : [{ key, base, next }];
  });
}

/** An obstacle if a report of either side has wrong results. */
function failedChecks(...sides: (readonly BenchmarkReport[])[]): Difference[] {
  const failed = sides.map((reports) =>
    reports.some(({ results }) => results.check?.passed === false)
  );
  if (!failed.some(Boolean)) return [];
  const [base, next] = failed.map((isFailed) => isFailed ? "failed" : "not failed");
  return [{ key: "results.check", base, next }];
}

/** Keys that a sweep varies: its reports are compared combination by combination. */
const VARIED = [
  "engine.backend",
  "engine.threads",
  "engine.dtype",
  "engine.kv_dtype",
  "generation.context_length",
  "generation.deterministic",
];

/** A combination's reports of both sides. */
export interface Pair {
  /** Its values, for a heading. */
  readonly title: string;
  readonly base: readonly BenchmarkReport[];
  readonly next: readonly BenchmarkReport[];
}

/**
 * Pairs the reports of two sides by combination. Sides of one combination each are a pair, whatever
 * they differ in.
 * @returns pairs in the order of the base, and the titles of combinations that one side lacks.
 */
export function pairReports(
  base: readonly BenchmarkReport[],
  next: readonly BenchmarkReport[],
): { pairs: Pair[]; alone: { title: string; side: "base" | "next" }[] } {
  const [from, to] = [groupsOf(base), groupsOf(next)];
  if (from.size === 1 && to.size === 1) {
    return { pairs: [{ title: titleOf(next[0]), base, next }], alone: [] };
  }
  const pairs = [...from].flatMap(([key, base]) => {
    const next = to.get(key);
    return next ? [{ title: titleOf(base[0]), base, next }] : [];
  });
  const lacking = (groups: Groups, others: Groups, side: "base" | "next") =>
    [...groups].filter(([key]) => !others.has(key))
      .map(([, [report]]) => ({ title: titleOf(report), side }));
  return { pairs, alone: [...lacking(from, to, "base"), ...lacking(to, from, "next")] };
}

type Groups = ReadonlyMap<string, readonly BenchmarkReport[]>;

/** Reports by the keys that make a combination. */
function groupsOf(reports: readonly BenchmarkReport[]): Groups {
  const keys = [...Object.values(WORK), ...VARIED.map((key) => SETTINGS[key])];
  return Map.groupBy(reports, (report) => JSON.stringify(keys.map((of) => of(report) ?? null)));
}

function titleOf({ model, engine, generation }: BenchmarkReport): string {
  const threads = `${engine.threads} thread${engine.threads === 1 ? "" : "s"}`;
  return `${model.id} in ${engine.dtype} on ${engine.backend}, ${threads}, ` +
    `prompt ${generation.prompt_tokens}, ${generation.gen_tokens} tokens`;
}

/**
 * `compare`: ratios of two builds, machines or settings, with intervals and verdicts.
 *
 * @module
 */
import { type Pair, pairReports } from "../engine/measure/compare.ts";
import {
  type BenchmarkReport,
  compareReports,
  type Comparison,
  type Difference,
  type MetricComparison,
} from "../mod.ts";
import { UsageError } from "./flags.ts";
import { plural } from "./format.ts";
import { prepareOutput, sameFile } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { readReports } from "./report_files.ts";
import { note, print, say, sayError } from "./terminal.ts";

/** Exit status of a comparison below `--fail-below`. */
const BELOW = 3;

/** Runs the command. Returns the exit status; every file is read before anything is written. */
export async function compare(invocation: Invocation): Promise<number> {
  const { given } = invocation;
  const sides = sidesOf(invocation);
  const jsonPath = given["json-out"];
  const overwritten = [...sides.base, ...sides.next]
    .find((path) => jsonPath !== undefined && sameFile(path, jsonPath));
  if (overwritten !== undefined) {
    throw new UsageError(`--json-out would overwrite the report "${overwritten}"`);
  }
  const json = jsonPath === undefined ? undefined : prepareOutput(jsonPath);
  const [base, next] = [await readSide(sides.base), await readSide(sides.next)];
  const { pairs, alone } = pairReports(base, next);
  const names = `${nameOf(sides.base)} with ${nameOf(sides.next)}`;
  if (!pairs.length) {
    throw new Error(`Cannot compare ${names}: expected a combination that both have, got none`);
  }
  const compared = pairs.map((pair) => ({
    pair,
    comparison: compareReports(pair.base, pair.next),
  }));
  for (const { comparison: { obstacles } } of compared) {
    if (obstacles.length && !given.force) {
      throw new Error(
        `Cannot compare ${names}: expected the same work, got ${
          obstacles.map(differenceText).join("; ")
        }; --force compares them all the same`,
      );
    }
  }
  for (const { title, side } of alone) note(`only in ${side === "next" ? "new" : side}: ${title}`);
  print(compared.map(({ pair, comparison }) => section(pair, comparison)).join("\n"));
  json?.write(`${JSON.stringify(compared.map(toRecord), null, 2)}\n`);
  if (json) say(`wrote ${json.path}`);
  const below = compared.filter(({ pair, comparison }) =>
    isBelow(pair, comparison, given["fail-below"])
  );
  return below.length ? BELOW : 0;
}

/** The files of both sides: divided by `--`, or one each. */
function sidesOf({ words, divider }: Invocation): { base: string[]; next: string[] } {
  const at = divider ?? (words.length === 2 ? 1 : 0);
  const [base, next] = [words.slice(0, at), words.slice(at)];
  if (base.length && next.length) return { base, next };
  throw new UsageError(
    `compare needs two files, or BASE… -- NEW…, got ${plural(words.length, "file")}` +
      (divider === undefined ? "" : ` and none on one side of --`),
  );
}

async function readSide(paths: readonly string[]): Promise<BenchmarkReport[]> {
  const reports: BenchmarkReport[] = [];
  for (const path of paths) {
    const read = await readReports(path);
    if (!read.length) throw new Error(`Cannot compare "${path}": expected a report, got none`);
    reports.push(...read);
  }
  return reports;
}

function nameOf(paths: readonly string[]): string {
  return paths.length > 1 ? `"${paths[0]}" and ${paths.length - 1} more` : `"${paths[0]}"`;
}

function differenceText({ key, base, next }: Difference): string {
  return `${key} ${base} and ${next}`;
}

const HEAD = `\
| metric | base | new | ratio | 95 % interval | verdict |
|---|---:|---:|---:|---:|---|
`;

/** The comparison of a pair in Markdown. */
function section({ title, base, next }: Pair, comparison: Comparison): string {
  const { metrics, obstacles, differences } = comparison;
  const runs = [base, next].map((reports) => {
    const iters = reports.reduce((sum, { results }) => sum + results.per_iter.length, 0);
    return `${plural(iters, "iteration")} in ${plural(reports.length, "run")}`;
  });
  const list = [...obstacles, ...differences].map(({ key, base, next }) =>
    `- ${key}: ${cell(base)} → ${cell(next)}\n`
  ).join("");
  return `### ${cell(title)}\n\n${HEAD}${metrics.map(row).join("")}\n` +
    `base: ${runs[0]}, new: ${runs[1]}; above 1 is faster\n${list && `\nDifferences:\n\n${list}`}`;
}

function row({ metric, base, next, ratio, low, high, verdict }: MetricComparison): string {
  const interval = low === null || high === null ? "–" : `${low.toFixed(3)} to ${high.toFixed(3)}`;
  const cells = [metric, base.toFixed(2), next.toFixed(2), ratio.toFixed(3), interval, verdict];
  return `| ${cells.join(" | ")} |\n`;
}

/** Text that keeps its place in Markdown; a model may be called anything. */
function cell(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").replace(/[\\|<*_`#]/g, "\\$&");
}

function toRecord({ pair: { title }, comparison }: { pair: Pair; comparison: Comparison }) {
  return { title, ...comparison };
}

/** Whether the rate is below a limit, by the upper end of its interval; says so. */
function isBelow(
  { title }: Pair,
  { metrics }: Comparison,
  limit: number | undefined,
): boolean {
  const rate = metrics.find(({ metric }) => metric === "tokens_per_sec");
  if (limit === undefined || !rate) return false;
  if (rate.high === null) {
    note(`${title}: one iteration has no interval; --fail-below looks at the ratio alone`);
  }
  const most = rate.high ?? rate.ratio;
  if (most >= limit) return false;
  sayError(`${title}: tokens_per_sec is ${most.toFixed(3)} of the base at most, below ${limit}`);
  return true;
}

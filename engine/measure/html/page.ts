/**
 * Page of reports: one self-contained HTML file with tables and plots. Browser compatible.
 *
 *     overview · rates · time per token · context · threads · kernels · memory · history
 *     · benches · environment
 *
 * It makes no request; a policy forbids them, and every script but its own.
 *
 * @module
 */
import {
  checkRecord,
  type FailureReport,
  type HistoryRecord,
  isFailure,
  isReport,
} from "../history.ts";
import { kernelBenches } from "./benches.ts";
import { dateAndTime, entriesOf, type Entry } from "./entries.ts";
import { doubtful, environment, failures, overview } from "./environment.ts";
import { type Figure, section } from "./figure.ts";
import { plural } from "./format.ts";
import { contextLines, historyLines, threadLines } from "./lines.ts";
import { Markup, markup } from "./markup.ts";
import { memoryColumns } from "./memory.ts";
import { rateBars } from "./rates.ts";
import { MARKERS } from "./plot.ts";
import { SCRIPT, SCRIPT_HASH } from "./script.ts";
import { STYLE } from "./style.ts";
import { kernelTimes, tokenTimes } from "./times.ts";

/** Options of a page. */
export interface HtmlOptions {
  /** The file of each report; it names reports of one model. */
  readonly files?: readonly (string | undefined)[];
}

/**
 * Formats reports as one self-contained HTML page: an overview, plots with their data as tables,
 * and the environment. Keys that a report lacks are shown as not measured.
 *
 * @param records a result of `benchmark`, or a list; also of earlier versions. Combinations of a
 *   sweep that could not run, and kernel benches of a history, are drawn too.
 * @param options names of files.
 * @throws {TypeError} If there is no report.
 * @throws {Error} If a report is of another tool, or damaged.
 * @example
 * ```ts
 * import { benchmark, loadModel, toHtml } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const report = await benchmark(model, { genTokens: 8, warmupTokens: 0, iters: 1 });
 * console.log(toHtml([report]).length);
 * ```
 */
export function toHtml(
  records: HistoryRecord | readonly HistoryRecord[],
  { files = [] }: HtmlOptions = {},
): string {
  const list: readonly HistoryRecord[] = Array.isArray(records) ? records : [records];
  const all = list.map((record, i) =>
    checkRecord(record, files[i] === undefined ? `report ${i + 1}` : `"${files[i]}"`)
  );
  const named = all.flatMap((report, i) => isReport(report) ? [{ report, file: files[i] }] : []);
  const benches = kernelBenches(all.filter((record) => "bench" in record));
  if (!named.length && !benches) {
    throw new TypeError("Cannot draw reports: expected at least one report, got none");
  }
  const entries = entriesOf(named);
  const figures = [...named.length ? figuresOf(entries) : [], ...benches ? [benches] : []];
  return page(entries, all.filter(isFailure), figures).text;
}

function figuresOf(entries: readonly Entry[]): Figure[] {
  return [
    rateBars(entries),
    tokenTimes(entries),
    contextLines(entries),
    threadLines(entries),
    kernelTimes(entries),
    memoryColumns(entries),
    historyLines(entries),
  ];
}

function page(
  entries: readonly Entry[],
  failed: readonly FailureReport[],
  figures: readonly Figure[],
): Markup {
  const models = [...new Set(entries.map(({ model }) => model))];
  const subject = models.length === 1
    ? models[0]
    : models.length
    ? plural(models.length, "model")
    : "kernels";
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src '${SCRIPT_HASH}'; ` +
    "img-src data:; base-uri 'none'; form-action 'none'";
  const links = [
    ...entries.length ? [["overview", "Overview"]] : [],
    ...figures.map(({ id, short }) => [id, short]),
    ...entries.length ? [["environment", "Environment"]] : [],
  ];
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="wgslm">
<link rel="icon" href="data:,">
<title>Benchmark of ${subject} · wgslm</title>
<style>${new Markup(STYLE)}</style>
</head>
<body>
${MARKERS}
<a class="skip" href="#main">Skip the links</a>
<header>
<h1>Benchmark of <bdi>${subject}</bdi></h1>
<p class="lead">${summary(entries)}</p>
<nav aria-label="Sections"><ul>${
    links.map(([id, name]) => markup`<li><a href="#${id}">${name}</a></li>`)
  }</ul></nav>
</header>
<main id="main">${entries.length > 0 && overviewSection(entries, failed)}
${figures.map(section)}
${entries.length > 0 && environment(entries)}
</main>
<footer><p>Made by wgslm. docs/report.md explains every key of a report.</p></footer>
<script>${new Markup(SCRIPT)}</script>
</body>
</html>
`;
}

function overviewSection(entries: readonly Entry[], failed: readonly FailureReport[]): Markup {
  return markup`
<section id="overview" aria-labelledby="overview-h">
<h2 id="overview-h">Overview</h2>
<p class="about">Mean: generated tokens divided by wall time, prompt included, of all iterations; \
± is the longer side of its 95 % interval. Of limit: least time of a decode step by the \
machine's measured limits, divided by its time. Check: logits and greedy tokens equal those of the \
plain backend. A dash was not measured.</p>
${overview(entries)}${doubtful(entries)}${failed.length > 0 && failures(failed)}</section>`;
}

function summary(entries: readonly Entry[]): string {
  const devices = new Set(entries.map(({ settings }) => settings.device));
  const times = entries.flatMap(({ timestamp }) => timestamp ?? []);
  const [first, last] = [Math.min(...times), Math.max(...times)].map((time) =>
    Number.isFinite(time) ? dateAndTime(time).slice(0, 10) : ""
  );
  const days = first === last ? first : `${first} to ${last}`;
  const device = devices.size === 1 ? [...devices][0] : plural(devices.size, "device");
  const reports = plural(entries.length, "report");
  return entries.length ? [reports, device, days].filter(Boolean).join(" · ") : "";
}

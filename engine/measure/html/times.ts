/**
 * Figures of times: distribution of token times, and time by kernel. Browser compatible.
 *
 * @module
 */
import type { Entry, Kernel, Pass } from "./entries.ts";
import {
  type Column,
  type Figure,
  limitPanels,
  NAME_COLUMN,
  numeric,
  panels,
  selectEntries,
  shorten,
  table,
} from "./figure.ts";
import { figure, ms, plural, share, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import {
  area,
  bar,
  fromZero,
  hint,
  linear,
  logarithmic,
  type PlotRow,
  rowPlot,
  type Scale,
  stroke,
} from "./plot.ts";
import { scrolling } from "./rates.ts";

/** Quantiles that the figure shows and its table lists. */
const SHARES = [0.01, 0.1, 0.5, 0.9, 0.95, 0.99] as const;

/** Sorted times of an entry and their quantiles. */
interface Times {
  readonly entry: Entry;
  readonly sorted: Float64Array;
  /** In the order of `SHARES`. */
  readonly quantiles: readonly number[];
}

/** Shortest time that a logarithmic scale shows, in ms: the resolution of clocks. */
const SHORTEST_MS = 0.001;
/** Ratio of the longest to the shortest time above which the scale is logarithmic. */
const LINEAR_RATIO = 8;
/** Bins of a histogram, and its height in pixels. */
const [BINS, SIZE] = [40, 26];

function timesOf(entry: Entry): Times[] {
  const sorted = Float64Array.from(entry.tokenMs.flatMap((times) => times.slice(1))).sort();
  if (!sorted.length) return [];
  return [{ entry, sorted, quantiles: SHARES.map((p) => quantile(sorted, p)) }];
}

function quantile(sorted: ArrayLike<number>, p: number): number {
  const at = p * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at % 1);
}

/** Histograms of the times between two tokens, over one scale. */
export function tokenTimes(entries: readonly Entry[]): Figure {
  const all = entries.flatMap(timesOf).sort((a, b) => a.quantiles[2] - b.quantiles[2]);
  const head = { id: "times", heading: "Time per token", short: "Token times" };
  if (!all.length) return { ...head, about: "The reports have no times of tokens.", plots: null };
  const scale = timeScale(all);
  const title = "Distribution of the time per token";
  const description = `${plural(all.length, "histogram")} over one axis in milliseconds, the ` +
    `shortest median first: from ${ms(all[0].quantiles[2])} to ${ms(all.at(-1)!.quantiles[2])}.`;
  const rows = all.map((times) => histogramRow(times, scale));
  const column = (i: number): Column<Times> =>
    numeric(`p${100 * SHARES[i]}`, "ms", ({ quantiles }) => quantiles[i], figure);
  return {
    ...head,
    about: "Milliseconds from one token to the next, without the first; tokens read together " +
      "share their time. Area: histogram from the 1st to the 95th percentile; strokes: median " +
      "and 99th percentile; numbers: medians.",
    plots: scrolling(rowPlot({ id: "times-plot", title, description }, scale, rows, SIZE), title),
    table: table("Percentiles of the time per token", [
      { head: "Report", cell: ({ entry }) => NAME_COLUMN.cell(entry) },
      numeric("Tokens", "", ({ sorted }: Times) => sorted.length, tick),
      ...SHARES.map((_, i) => column(i)),
    ], all),
  };
}

function timeScale(all: readonly Times[]): Scale {
  const low = Math.max(SHORTEST_MS, Math.min(...all.map(({ quantiles }) => quantiles[0])));
  const high = Math.max(low * 1.01, ...all.map(({ quantiles }) => quantiles[5]));
  const label = (value: number) => `${tick(value)} ms`;
  return high / low > LINEAR_RATIO
    ? logarithmic(low * 0.9, high * 1.1, label)
    : linear(low - (high - low) * 0.05, high + (high - low) * 0.05, label);
}

function histogramRow({ entry, sorted, quantiles }: Times, scale: Scale): PlotRow {
  const [p1, p10, p50, p90, p95, p99] = quantiles.map((value) => Math.max(value, SHORTEST_MS));
  const place = (value: number) => scale.at(Math.max(value, SHORTEST_MS));
  const [from, to] = [place(p1), Math.max(place(p1) + 0.5, place(p95))];
  const counts = new Array<number>(BINS).fill(0);
  for (const value of sorted) {
    const bin = Math.floor(BINS * (place(value) - from) / (to - from));
    if (bin >= 0 && bin < BINS) counts[bin]++;
  }
  const text = `${entry.name} ${entry.details}: median ${ms(p50)}, 80 % from ${ms(p10)} to ` +
    `${ms(p90)}, 99th percentile ${ms(p99)}`;
  return {
    label: shorten(entry.name),
    details: entry.details,
    value: figure(p50),
    marks: markup`<g>${hint(text)}${area(counts, { from, to, end: place(p99), size: SIZE })}${
      stroke(scale, p99, "tail", SIZE, 8)
    }${stroke(scale, p50, "median", SIZE)}</g>`,
  };
}

/** Profiles at most: each is two panels. */
const MOST_PROFILES = 12;

/** Time of each kind of kernel, with the least time that the device's limits allow. */
export function kernelTimes(entries: readonly Entry[]): Figure {
  const profiled = entries.filter(({ passes }) => passes.length > 0);
  const { drawn, note } = selectEntries(profiled, MOST_PROFILES);
  const { chosen, note: limited } = limitPanels(drawn, "profile", MOST_PROFILES);
  const head = { id: "kernels", heading: "Time by kernel", short: "Kernels" };
  if (!chosen.length) {
    return { ...head, plots: null, about: "No report has a profile; --profile measures it." };
  }
  const all = chosen.flatMap((entry) => entry.passes.map((pass) => ({ entry, pass })));
  const parts = all.map(({ entry, pass }, i) => ({
    title: [entry.name, entry.details, passName(pass)].filter(Boolean).join(" · "),
    plot: kernelPlot(pass, i),
  }));
  const isCached = all.some(({ pass }) => pass.kernels.some((k) => (k.limitShare ?? 0) > 1));
  const rows = all.flatMap(({ entry, pass }) =>
    pass.kernels.map((kernel) => ({ entry, pass, kernel }))
  );
  type Row = typeof rows[number];
  return {
    ...head,
    about: "Milliseconds in each kind of kernel, all its calls together; the stroke is the least " +
      "time that the device's measured limits of memory and arithmetic allow" +
      `${isCached ? ". Beyond the bar, the data came from caches" : ""}.${note}${limited}`,
    plots: panels(parts),
    table: table("Time by kernel", [
      { head: "Report", cell: ({ entry }: Row) => NAME_COLUMN.cell(entry) },
      { head: "Pass", cell: ({ pass }) => passName(pass) },
      { head: "Kernel", cell: ({ kernel }) => kernel.name },
      numeric("Calls", "", ({ kernel }: Row) => kernel.calls, tick),
      numeric("Time", "ms", ({ kernel }: Row) => kernel.ms, figure),
      numeric("Of its limit", "", ({ kernel }: Row) => kernel.limitShare, share),
      { head: "Limit", cell: ({ kernel }) => kernel.limit },
    ], rows),
  };
}

function passName({ kind, rows, length }: Pass): string {
  return kind === "decode"
    ? `one token after ${length - 1}`
    : `prefill of ${plural(rows, "token")}`;
}

function kernelPlot(pass: Pass, i: number): Markup {
  const kernels = [...pass.kernels].sort((a, b) => b.ms - a.ms);
  const total = kernels.reduce((sum, kernel) => sum + kernel.ms, 0);
  const least = ({ ms, limitShare }: Kernel) => limitShare === null ? null : ms * limitShare;
  const longest = Math.max(...kernels.map((kernel) => Math.max(kernel.ms, least(kernel) ?? 0)));
  const scale = fromZero(longest, (value) => `${tick(value)} ms`, 4);
  const rows = kernels.map((kernel): PlotRow => {
    const { name, calls, limitShare, limit } = kernel;
    const bound = least(kernel);
    const ofLimit = limitShare === null ? "" : `${share(limitShare)} of ${limit}`;
    const ofTotal = total > 0 ? `, ${share(kernel.ms / total)} of the pass` : "";
    const text = `${name}, ${plural(calls, "call")}: ${ms(kernel.ms)}${ofTotal}` +
      `${ofLimit && `, ${ofLimit}'s limit`}`;
    return {
      label: shorten(name, 22),
      details: ofLimit,
      value: figure(kernel.ms),
      marks: markup`<g>${hint(text)}${bar(scale, kernel.ms)}${
        bound !== null && stroke(scale, bound, "bound")
      }</g>`,
    };
  });
  const description = `Horizontal bars in milliseconds, the longest first: ${kernels[0].name} ` +
    `with ${ms(kernels[0].ms)} of ${ms(total)}.`;
  const title = `Time by kernel, ${passName(pass)}`;
  return rowPlot({ id: `kernels-${i}`, title, description }, scale, rows);
}

/**
 * Figures of lines: rates over context length and over threads, a panel for each model; over time,
 * a panel for each setup. Browser compatible.
 *
 * @module
 */
import { dateAndTime, type Entry, type Estimate, type Settings } from "./entries.ts";
import {
  byModel,
  colour,
  type Column,
  type Figure,
  type Group,
  groupEntries,
  legend,
  limitPanels,
  NAME_COLUMN,
  newestOfEach,
  numeric,
  panels,
  selectEntries,
  table,
} from "./figure.ts";
import { figure, NONE, plural, rate, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import { doublings, fromZero, line, linear, type Point, type Scale, time, xyPlot } from "./plot.ts";
import { sayEstimate } from "./rates.ts";

/** Height of a plot in pixels: alone, beside others. */
const [TALL, MEDIUM] = [280, 200];
/** Height of a plot over time, in pixels. */
export const LOW = 130;

/** A plot with room for its ticks, units and the name of its horizontal axis. */
export function framed(plot: Markup, xName: string, yName = "tok/s"): Markup {
  return markup`<div class="frame"><span class="unit">${yName}</span>${plot}\
<span class="unit x">${xName}</span></div>`;
}

/** Lines with a dot for each point, and of one setup, at most. */
const MOST_LINES = 12;

/** A line to draw: its place in the plot's legend, and its points in units of the scales. */
interface Line {
  readonly group: number;
  readonly points: readonly { x: number; rate: Estimate; hint: string }[];
}

/** Lines of a panel, with their names. */
interface Panel {
  readonly title: string;
  readonly names: readonly string[];
  readonly lines: readonly Line[];
}

/** Lines in a panel for each model, or in one large plot of one model; rates from 0. */
function linePanels(
  id: string,
  title: string,
  xName: string,
  all: readonly Panel[],
  xScale: (values: readonly number[]) => Scale,
): Markup {
  const parts = all.map((panel, i) => {
    const points = panel.lines.flatMap(({ points }) => points);
    const x = xScale(points.map(({ x }) => x));
    const y = fromZero(Math.max(...points.map(({ rate }) => rate.high ?? rate.mean)), tick);
    const isCrowded = panel.lines.length > MOST_LINES;
    const marks = panel.lines.map(({ group, points }) =>
      line(
        points.map((point) => place(point, x, y)),
        colour(group),
        !isCrowded || points.length < 2,
      )
    );
    const description = `${plural(panel.lines.length, "line")}. The horizontal axis is the ` +
      `number of ${xName}, the vertical axis tokens per second from 0.`;
    const options = { id: `${id}-${i}`, title: `${title}, ${panel.title}`, description };
    const height = all.length > 1 ? MEDIUM : TALL;
    const plot = framed(xyPlot(options, { x, y, height, marks: marks.reverse() }), xName);
    return { title: panel.title, plot: markup`${legend(panel.names)}${plot}` };
  });
  return all.length > 1 ? panels(parts) : parts[0].plot;
}

function place({ x: at, rate, hint }: Line["points"][number], x: Scale, y: Scale): Point {
  const { mean, low, high } = rate;
  const interval = low !== null && high !== null && { low: y.at(low), high: y.at(high) };
  return { x: x.at(at), y: y.at(mean), hint, ...interval };
}

/** The rate while the tokens before are about `length`. */
interface Stretch {
  readonly length: number;
  readonly rate: number;
}

/** Points of a line at most, and tokens of a point at least. */
const [MOST_STRETCHES, LEAST_TOKENS] = [16, 8];

/** Decode rates along a generation: for each stretch, of the median time of its tokens. */
function stretchesOf({ tokenMs, settings }: Entry): Stretch[] {
  const later = tokenMs.map((times) => times.slice(1));
  const tokens = Math.min(...later.map((times) => times.length));
  if (!later.length || tokens < 1) return [];
  const count = Math.max(1, Math.min(MOST_STRETCHES, Math.floor(tokens / LEAST_TOKENS)));
  return Array.from({ length: count }, (_, i) => {
    const [from, to] = [i, i + 1].map((edge) => Math.floor(tokens * edge / count));
    const times = later.flatMap((times) => times.slice(from, to)).sort((a, b) => a - b);
    const length = (settings.promptTokens ?? 0) + 1 + (from + to) / 2;
    return { length, rate: 1000 / times[times.length >> 1] };
  }).filter(({ rate }) => Number.isFinite(rate));
}

/** Settings that change along a line over context length. */
const LENGTHS: readonly (keyof Settings)[] = ["promptTokens", "genTokens", "context"];

/** Decode rate over the number of tokens before. */
export function contextLines(entries: readonly Entry[]): Figure {
  const head = { id: "context", heading: "Decode rate over context length", short: "Context" };
  const measured = entries.filter((entry) => stretchesOf(entry).length > 0);
  if (!measured.length) {
    return { ...head, plots: null, about: "The reports have no times of tokens." };
  }
  const { drawn, note } = selectEntries(measured, MOST_LINES);
  const { chosen, note: limited } = limitPanels(byModel(drawn), "model");
  const all = chosen.map(({ model, entries }): Panel => {
    const groups = groupEntries(entries, LENGTHS);
    return {
      title: model,
      names: groups.map(({ name }) => name),
      lines: groups.flatMap((group, i) =>
        group.entries.map((entry) => ({ group: i, points: stretchPoints(group, entry) }))
      ),
    };
  });
  const rows = chosen.flatMap(({ entries }) => entries)
    .map((entry) => ({ entry, stretches: stretchesOf(entry) }));
  return {
    ...head,
    about: "Tokens per second while a generation grows: each point is the median of a stretch of " +
      `tokens in all iterations; the prompt counts as context.${note}${limited}`,
    plots: linePanels(
      "context",
      head.heading,
      "tokens before",
      all,
      (lengths) => linear(Math.min(...lengths), Math.max(...lengths), tick),
    ),
    table: table("Decode rate at the start, in the middle and at the end of a generation", [
      { head: "Report", cell: ({ entry }) => NAME_COLUMN.cell(entry) },
      ...[0, 0.5, 1].flatMap(stretchColumns),
    ], rows),
  };
}

function stretchPoints(group: Group, entry: Entry): Line["points"] {
  return stretchesOf(entry).map(({ length, rate: mean }) => ({
    x: length,
    rate: { mean, low: null, high: null },
    hint: `${group.name}: ${rate(mean)} after ${plural(Math.round(length), "token")}`,
  }));
}

type StretchRow = { readonly entry: Entry; readonly stretches: readonly Stretch[] };

/** Columns of the stretch at a share of the generation. */
function stretchColumns(where: number): Column<StretchRow>[] {
  const pick = ({ stretches }: StretchRow) => stretches[Math.round(where * (stretches.length - 1))];
  return [
    numeric("After", "tokens", (row) => Math.round(pick(row).length), tick),
    numeric("Rate", "tok/s", (row) => pick(row).rate, figure),
  ];
}

/** Groups whose members differ in a value. */
function varying(groups: readonly Group[], valueOf: (entry: Entry) => number | null): Group[] {
  return groups.filter(({ entries }) =>
    new Set(entries.map(valueOf).filter((value) => value !== null)).size > 1
  );
}

/** Points of a group's entries, in order of a value. */
function pointsOf(
  { name, entries }: Group,
  valueOf: (entry: Entry) => number | null,
  say: (value: number) => string,
): Line["points"] {
  return entries.flatMap((entry) => {
    const x = valueOf(entry);
    if (x === null) return [];
    return [{ x, rate: entry.rate, hint: `${name}, ${say(x)}: ${sayEstimate(entry.rate)}` }];
  }).sort((a, b) => a.x - b.x);
}

/** Number of threads; null for none, which a logarithmic scale cannot show. */
const threadsOf = ({ settings }: Entry) => settings.threads || null;
const timeOf = ({ timestamp }: Entry) => timestamp;

/** Rate over the number of threads: a line for each setup with several. */
export function threadLines(entries: readonly Entry[]): Figure {
  const head = { id: "threads", heading: "Rate over threads", short: "Threads" };
  const newest = newestOfEach(entries, "name");
  const models = byModel(newest).map(({ model, entries }) => ({
    model,
    groups: varying(groupEntries(entries, ["threads"]), threadsOf),
  })).filter(({ groups }) => groups.length > 0);
  if (!models.length) {
    const about = "No model was measured with several numbers of threads; " +
      "bench --threads 1,2,4 does it.";
    return { ...head, about, plots: null };
  }
  const { chosen, note } = limitPanels(models, "model");
  const all = chosen.map(({ model, groups }): Panel => ({
    title: model,
    names: groups.map(({ name }) => name),
    lines: groups.map((group, i) => ({
      group: i,
      points: pointsOf(group, threadsOf, (count) => plural(count, "thread")),
    })),
  }));
  return {
    ...head,
    about: "Mean tokens per second with its 95 % interval, a line for each setup, of its newest " +
      `reports.${note}`,
    plots: linePanels(
      "threads",
      "Tokens per second over threads",
      "threads",
      all,
      (counts) => doublings(counts, tick),
    ),
    table: table("Tokens per second over threads", [
      NAME_COLUMN,
      numeric("Threads", "", threadsOf, tick),
      numeric("Mean", "tok/s", ({ rate }: Entry) => rate.mean, figure),
    ], chosen.flatMap(({ groups }) => groups.flatMap(({ entries }) => entries))),
  };
}

/** Rate over time: a line for each setup that was measured more than once. */
export function historyLines(entries: readonly Entry[]): Figure {
  const head = { id: "history", heading: "History", short: "History" };
  const all = varying(groupEntries(entries, [], "model"), timeOf)
    .sort((a, b) => b.entries.length - a.entries.length);
  if (!all.length) {
    const about =
      "No setup was measured more than once; bench --append FILE.jsonl keeps a history.";
    return { ...head, about, plots: null };
  }
  const { chosen, note } = limitPanels(all, "setup");
  const times = chosen.flatMap(({ entries }) => entries.flatMap((entry) => timeOf(entry) ?? []));
  const x = time(Math.min(...times), Math.max(...times), 3);
  return {
    ...head,
    about:
      "Mean tokens per second with its 95 % interval over time (UTC), a line for each setup. " +
      `The vertical axes do not begin at 0; each spans at least ± 5 %.${note}`,
    plots: panels(
      chosen.map((group, i) => ({ title: group.name, plot: historyPlot(group, x, i) })),
      "small",
    ),
    table: table("Tokens per second over time", [
      NAME_COLUMN,
      {
        head: "Time (UTC)",
        value: timeOf,
        cell: ({ timestamp }) => timestamp === null ? NONE : dateAndTime(timestamp),
      },
      numeric("Mean", "tok/s", ({ rate }: Entry) => rate.mean, figure),
    ], chosen.flatMap(({ entries }) => entries)),
  };
}

function historyPlot(group: Group, x: Scale, i: number): Markup {
  const y = around(group.entries.map(({ rate }) => rate));
  const points = pointsOf(group, timeOf, dateAndTime).map((point) => place(point, x, y));
  const description = `A line of ${plural(group.entries.length, "run")} over time, in tokens ` +
    "per second; the vertical axis does not begin at 0.";
  const options = { id: `history-${i}`, title: `${group.name} over time`, description };
  return framed(xyPlot(options, { x, y, height: LOW, marks: [line(points, "c0", true)] }), "");
}

/** A scale around estimates, at least 5 % of the middle to each side. */
export function around(estimates: readonly Estimate[]): Scale {
  const low = Math.min(...estimates.map(({ mean, low }) => low ?? mean));
  const high = Math.max(...estimates.map(({ mean, high }) => high ?? mean));
  const middle = (low + high) / 2;
  const half = Math.max((high - low) * 0.6, Math.abs(middle) * 0.05);
  return linear(Math.max(0, middle - half), middle + half, tick, 4);
}

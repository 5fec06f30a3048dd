/**
 * Plots as SVG: scales with round ticks, rows of bars, lines, stacked columns. Browser compatible.
 *
 * A plot is as wide as its place, without a script: positions are percentages, and text keeps its
 * size. Only a line cannot have percentages; it is stretched in an <svg> of its own, with strokes
 * that do not scale.
 *
 *     ┌ svg, width 100 %, overflow visible ──────┐
 *     │ grid lines      x1="25%" y1="0" y2="100%" │ tick labels are outside, in the padding of
 *     │ marks           cx="31.4%" cy="60%"       │   the frame around it
 *     │ ┌ svg viewBox 0 0 100 100, stretched ───┐ │
 *     │ │ polyline                              │ │
 *     └─┴───────────────────────────────────────┴─┘
 *
 * @module
 */
import { type Markup, markup } from "./markup.ts";

/** A tick: its position in percent of the axis, and its label. */
export interface Tick {
  readonly at: number;
  readonly label: string;
}

/** Maps values to positions, in percent of the axis. */
export interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly Tick[];
}

type Label = (value: number) => string;

/** The round step (1, 2 or 5 times a power of ten) that cuts a range into at most `count` parts. */
function roundStep(range: number, count: number): number {
  const power = 10 ** Math.floor(Math.log10(range / count));
  const step = [1, 2, 5, 10].find((step) => step * power * count >= range * (1 - 1e-9)) ?? 10;
  return step * power;
}

function multiples(low: number, high: number, step: number): number[] {
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/** A linear scale from `low` to `high`; without a range, it has `low` in its middle. */
export function linear(low: number, high: number, label: Label, count = 5): Scale {
  if (!(high > low)) [low, high] = [low - (Math.abs(low) || 1), high + (Math.abs(high) || 1)];
  const at = (value: number) => 100 * (value - low) / (high - low);
  const values = multiples(low, high, roundStep(high - low, count));
  return { at, ticks: values.map((value) => ({ at: at(value), label: label(value) })) };
}

/** A linear scale from 0 to a round number that is at least `high`. */
export function fromZero(high: number, label: Label, count = 5): Scale {
  if (!(high > 0)) return linear(0, 1, label, count);
  const step = roundStep(high, count);
  return linear(0, Math.ceil(high / step - 1e-9) * step, label, count);
}

/** A logarithmic scale of base 10, between positive numbers. */
export function logarithmic(low: number, high: number, label: Label): Scale {
  const at = (value: number) => 100 * Math.log(value / low) / Math.log(high / low);
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of [1, 2, 5]) all.push({ digit, value: digit * 10 ** power });
  }
  const inside = all.filter(({ value }) => value >= low * 0.999 && value <= high * 1.001);
  const powers = inside.filter(({ digit }) => digit === 1);
  const shown = powers.length > 2 ? powers : inside;
  return { at, ticks: shown.map(({ value }) => ({ at: at(value), label: label(value) })) };
}

/** A logarithmic scale of base 2 with a tick for each value; the values are above 0 and differ. */
export function doublings(values: readonly number[], label: Label): Scale {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const at = (value: number) => 100 * Math.log(value / low) / Math.log(high / low);
  const ticks = [...new Set(values)].sort((a, b) => a - b)
    .map((value) => ({ at: at(value), label: label(value) }));
  return { at, ticks: spaced(ticks, 7) };
}

/** The ticks that are at least `least` percent apart. */
function spaced(ticks: readonly Tick[], least: number): Tick[] {
  const kept: Tick[] = [];
  for (const tick of ticks) if (!kept.length || tick.at - kept.at(-1)!.at >= least) kept.push(tick);
  return kept;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Steps of a time axis in ms; beyond them, round numbers of days. */
const TIME_STEPS = [1, 2, 5, 10, 30].map((n) => n * MINUTE)
  .concat([1, 2, 6, 12].map((n) => n * HOUR), [1, 2, 4, 7, 14, 30, 91, 182].map((n) => n * DAY));

/** A scale of times in ms since 1970, in UTC; labels are dates, or clock times within a day. */
export function time(low: number, high: number, count = 4): Scale {
  if (!(high > low)) [low, high] = [low - HOUR, high + HOUR];
  const range = high - low;
  const step = TIME_STEPS.find((step) => range / step <= count) ??
    roundStep(range / DAY, count) * DAY;
  const iso = (value: number) => new Date(value).toISOString();
  const label = (value: number) =>
    range > 3 * DAY || value % DAY === 0 ? iso(value).slice(0, 10) : iso(value).slice(11, 16);
  const at = (value: number) => 100 * (value - low) / range;
  return { at, ticks: multiples(low, high, step).map((v) => ({ at: at(v), label: label(v) })) };
}

/** A percentage of the plot, with two decimals. */
export function percent(at: number): string {
  return `${+at.toFixed(2)}%`;
}

/** Tooltip of a mark; the table has the same for readers without a pointer. */
export function hint(text: string): Markup {
  return markup`<title>${text}</title>`;
}

/** Identity and texts of a plot. */
export interface PlotOptions {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  /** Text alternative: marks, axes, extremes. */
  readonly description: string;
}

function svg({ id, title, description }: PlotOptions, height: number, content: Markup): Markup {
  return markup`<svg class="plot" role="img" width="100%" height="${height}" \
aria-labelledby="${id}-t" aria-describedby="${id}-d"><title id="${id}-t">${title}</title>\
<desc id="${id}-d">${description}</desc>${content}</svg>`;
}

/** A row of a plot of rows: a label, marks below it, and a value at the right. */
export interface PlotRow {
  readonly label: string;
  /** More of the label, less prominent. */
  readonly details?: string;
  readonly value: string;
  /** Marks with y from 0 to the height of a row's marks; x in percent of the scale. */
  readonly marks: Markup;
}

/** Pixels: the label of a row, the space below its marks, and the ticks above all rows. */
const [LABEL, SPACE, TICKS] = [20, 10, 26];
/** Height of the bars of a row, in pixels. */
const BAR = 14;
/** Width of the marks in percent; the values have the rest. */
const MARK_WIDTH = 80;

/** A plot of rows over one horizontal scale; `size` is the height of a row's marks in pixels. */
export function rowPlot(
  options: PlotOptions,
  scale: Scale,
  rows: readonly PlotRow[],
  size = BAR,
): Markup {
  const row = LABEL + size + SPACE;
  const height = TICKS + rows.length * row;
  const ticks = scale.ticks.map(({ at, label }) =>
    markup`<line class="grid" x1="${percent(at)}" x2="${percent(at)}" y1="${TICKS - 6}" \
y2="${height}"/><text class="tick" x="${percent(at)}" y="10" \
text-anchor="${at < 3 ? "start" : "middle"}">${label}</text>`
  );
  const texts = rows.map(({ label, details, value }, i) => {
    const y = TICKS + i * row;
    const more = details ? markup`<tspan class="more" dx="8">${details}</tspan>` : null;
    return markup`<text y="${y + 13}">${label}${more}</text>\
<text class="value" x="100%" y="${y + LABEL + size - 2}">${value}</text>`;
  });
  const marks = rows.map(({ marks }, i) =>
    markup`<g class="row" transform="translate(0 ${TICKS + i * row + LABEL})">${marks}</g>`
  );
  return svg(
    options,
    height,
    markup`<svg class="in" width="${MARK_WIDTH}%" height="${height}">${ticks}${marks}</svg>\
${texts}`,
  );
}

/** A bar from the beginning of a scale, in a row. */
export function bar(scale: Scale, value: number, className = "bar"): Markup {
  return markup`<rect class="${className}" width="${percent(Math.max(0, scale.at(value)))}" \
height="${BAR}" rx="2"/>`;
}

/** An interval in a row: a line with a stroke at each end, which is the marker of the page. */
export function whisker(scale: Scale, low: number, high: number): Markup {
  const [a, b] = [percent(scale.at(low)), percent(scale.at(high))];
  return markup`<line class="whisker" x1="${a}" x2="${b}" y1="${BAR / 2}" y2="${BAR / 2}"/>`;
}

/** Shared definitions that the marks of all plots refer to; once in a page. */
export const MARKERS: Markup = markup`<svg width="0" height="0" aria-hidden="true">\
<marker id="end" viewBox="0 0 2 8" refX="1" refY="4" markerWidth="2" markerHeight="8" \
markerUnits="userSpaceOnUse"><path d="M1 0V8"/></marker></svg>`;

/** A vertical stroke in a row, from its bottom up. */
export function stroke(
  scale: Scale,
  value: number,
  className: string,
  size = BAR,
  length = size,
): Markup {
  const x = percent(scale.at(value));
  return markup`<line class="${className}" x1="${x}" x2="${x}" y1="${size - length - 2}" \
y2="${size + 2}"/>`;
}

/**
 * A histogram in a row, as an area; bins are equally wide from `from` to `to`, in percent. A line
 * at the bottom reaches from there to `end`.
 */
export function area(
  counts: readonly number[],
  { from, to, end, size }: { from: number; to: number; end: number; size: number },
): Markup {
  const most = Math.max(...counts, 1);
  const y = (count: number) => +(100 - 100 * count / most).toFixed(1);
  const steps = counts.map((count) => `V${y(count)}h1`).join("");
  return markup`<svg class="area" x="${percent(from)}" width="${percent(to - from)}" \
height="${size}" viewBox="0 0 ${counts.length} 100" preserveAspectRatio="none">\
<path d="M0 100${steps}V100z"/></svg>\
<line class="reach" x1="${percent(to)}" x2="${percent(end)}" y1="${size - 1}" y2="${size - 1}"/>`;
}

/** A point of a line: its position in percent, from the left and from the bottom. */
export interface Point {
  readonly x: number;
  readonly y: number;
  /** Interval of y. */
  readonly low?: number;
  readonly high?: number;
  readonly hint: string;
}

/** Points joined by a line; `dots` marks each point. */
export function line(points: readonly Point[], className: string, dots: boolean): Markup {
  const path = points.map(({ x, y }) => `${+x.toFixed(2)},${+(100 - y).toFixed(2)}`).join(" ");
  const intervals = points.filter(({ low, high }) => low !== undefined && high !== undefined);
  return markup`<g class="line ${className}"><svg class="stretch" width="100%" height="100%" \
viewBox="0 0 100 100" preserveAspectRatio="none"><polyline points="${path}"/></svg>\
${
    intervals.map(({ x, low, high }) =>
      markup`<line x1="${percent(x)}" x2="${percent(x)}" y1="${percent(100 - low!)}" \
y2="${percent(100 - high!)}"/>`
    )
  }${
    dots && points.map(({ x, y, hint: text }) =>
      markup`<circle cx="${percent(x)}" cy="${percent(100 - y)}" r="3.5">${hint(text)}</circle>`
    )
  }</g>`;
}

/** A plot over two scales. */
export function xyPlot(
  options: PlotOptions,
  { x, y, height, marks }: { x: Scale; y: Scale; height: number; marks: readonly Markup[] },
): Markup {
  const vertical = x.ticks.map(({ at, label }) =>
    markup`<text class="tick" x="${percent(at)}" y="${height + 18}" text-anchor="middle">${label}\
</text>`
  );
  const horizontal = y.ticks.map(({ at, label }) =>
    markup`<line class="grid" x2="100%" y1="${percent(100 - at)}" y2="${percent(100 - at)}"/>\
<text class="tick" x="-8" dy="4" y="${percent(100 - at)}" text-anchor="end">${label}</text>`
  );
  return svg(options, height, markup`${horizontal}${vertical}${marks}`);
}

/** A part of a column. */
export interface Slice {
  readonly value: number;
  readonly className: string;
  readonly hint: string;
}

/** A column of slices, the first at the bottom; `at` and `width` are in percent. */
export function column(y: Scale, at: number, width: number, slices: readonly Slice[]): Markup {
  let sum = 0;
  return markup`${
    slices.filter(({ value }) => value > 0).map(({ value, className, hint: text }) => {
      const bottom = y.at(sum);
      sum += value;
      const top = y.at(sum);
      return markup`<rect class="${className}" x="${percent(at)}" width="${percent(width)}" \
y="${percent(100 - top)}" height="${percent(top - bottom)}">${hint(text)}</rect>`;
    })
  }`;
}

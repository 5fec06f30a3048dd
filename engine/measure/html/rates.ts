/**
 * Figure of rates: a bar for each report, with its interval. Browser compatible.
 *
 * @module
 */
import type { Entry, Estimate } from "./entries.ts";
import { type Figure, NAME_COLUMN, numeric, shorten, table } from "./figure.ts";
import { figure, rate, share, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import { bar, fromZero, hint, type PlotRow, rowPlot, whisker } from "./plot.ts";

/** The longer side of an interval, as a share of the mean. */
export function spreadOf({ mean, low, high }: Estimate): number | null {
  return low === null || high === null || !(mean > 0)
    ? null
    : Math.max(high - mean, mean - low) / mean;
}

/** A mean and its interval, in words. */
export function sayEstimate({ mean, low, high }: Estimate): string {
  if (low === null || high === null) return `${rate(mean)}, no interval`;
  return `${rate(mean)}, 95 % interval ${figure(low)} to ${figure(high)}`;
}

/** Bars of the mean rates, the fastest first. */
export function rateBars(entries: readonly Entry[]): Figure {
  const sorted = [...entries].sort((a, b) => b.rate.mean - a.rate.mean);
  const scale = fromZero(Math.max(...sorted.map(({ rate }) => rate.high ?? rate.mean)), tick);
  const rows = sorted.map((entry): PlotRow => {
    const { name, details, rate: estimate } = entry;
    const { mean, low, high } = estimate;
    const spread = spreadOf(estimate);
    const text = `${name} ${details}: ${sayEstimate(estimate)}`;
    return {
      label: shorten(name),
      details: [details, spread !== null && `± ${share(spread)}`].filter(Boolean).join(" · "),
      value: figure(mean),
      marks: markup`<g>${hint(text)}${bar(scale, mean)}${
        low !== null && high !== null && whisker(scale, low, high)
      }</g>`,
    };
  });
  const title = "Tokens per second of each report, with 95 % intervals";
  const [first, last] = [sorted[0], sorted[sorted.length - 1]];
  const description = `Horizontal bars, the fastest first: from ${first.name} ${first.details} ` +
    `with ${rate(first.rate.mean)} to ${last.name} ${last.details} with ${rate(last.rate.mean)}.`;
  return {
    id: "rates",
    heading: "Tokens per second",
    short: "Rates",
    about: "Mean of the iterations: generated tokens divided by wall time, prompt included. " +
      "Longer is faster; the whisker is the 95 % interval of the mean.",
    plots: scrolling(rowPlot({ id: "rates-plot", title, description }, scale, rows), title),
    table: table("Tokens per second", [
      NAME_COLUMN,
      numeric("Mean", "tok/s", ({ rate }: Entry) => rate.mean, figure),
      numeric("From", "95 %", ({ rate }: Entry) => rate.low, figure),
      numeric("To", "95 %", ({ rate }: Entry) => rate.high, figure),
    ], sorted),
  };
}

/** A tall plot in a frame that scrolls beyond the height of a screen. */
export function scrolling(plot: Markup, label: string): Markup {
  return markup`<div class="tall" role="region" aria-label="${label}" tabindex="0">${plot}</div>`;
}

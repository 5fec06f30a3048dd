/**
 * Figure of kernel benches: the newest times of each, and a line for each that was measured more
 * than once. Browser compatible.
 *
 * @module
 */
import type { KernelBench } from "../history.ts";
import { dateAndTime, figureOf } from "./entries.ts";
import { type Figure, limitPanels, numeric, panels, table } from "./figure.ts";
import { figure, plural, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import { around, framed, LOW } from "./lines.ts";
import { line, type Point, type Scale, time, xyPlot } from "./plot.ts";

/** Runs of one bench, in order of time; times are per call, in µs. */
interface Bench {
  readonly name: string;
  readonly origin: string;
  readonly runs: readonly {
    readonly at: number;
    readonly us: number;
    readonly bench: KernelBench;
  }[];
}

function benchesOf(records: readonly KernelBench[]): Bench[] {
  const benches = new Map<string, KernelBench[]>();
  for (const record of records) {
    const { origin, group, name } = record.bench;
    const key = JSON.stringify([origin, group, name, record.platform.cpu]);
    benches.set(key, [...benches.get(key) ?? [], record]);
  }
  return [...benches.values()].map((records) => {
    const { origin, group, name } = records[0].bench;
    const runs = records.map((bench) => ({
      at: Date.parse(bench.timestamp) || 0,
      us: (figureOf(bench.bench.avg_ns) ?? 0) / 1000,
      bench,
    })).sort((a, b) => a.at - b.at);
    return { name: group === null ? name : `${group}: ${name}`, origin, runs };
  });
}

/** Table of the newest times, and lines over time; null without a bench. */
export function kernelBenches(records: readonly KernelBench[]): Figure | null {
  if (!records.length) return null;
  const benches = benchesOf(records);
  const repeated = benches.filter(({ runs }) => runs[0].at < runs[runs.length - 1].at);
  const { chosen, note } = limitPanels(repeated, "bench");
  const times = chosen.flatMap(({ runs }) => runs.map(({ at }) => at));
  const x = time(Math.min(...times), Math.max(...times), 3);
  const newest = ({ runs }: Bench) => runs[runs.length - 1].bench.bench;
  const us = (head: string, key: "avg_ns" | "min_ns" | "p99_ns") =>
    numeric(head, "µs", (bench: Bench) => (figureOf(newest(bench)[key]) ?? 0) / 1000, figure);
  const lines = chosen.length
    ? " Lines: mean over time (UTC), of benches that were measured more than once; the vertical " +
      `axes do not begin at 0.${note}`
    : "";
  return {
    ...{ id: "benches", heading: "Kernel benches", short: "Benches" },
    about: `Time of a call in deno bench, of the newest run of each.${lines}`,
    plots: markup`${
      table(
        "Time of a call",
        [
          { head: "Bench", cell: ({ name }) => name },
          {
            head: "File",
            cell: ({ origin }) => origin,
          },
          numeric("Runs", "", ({ runs }: Bench) => runs.length, tick),
          us("Mean", "avg_ns"),
          us("Least", "min_ns"),
          us("p99", "p99_ns"),
        ],
        benches,
        "sortable",
      )
    }${chosen.length > 0 && panels(chosen.map((bench, i) => panelOf(bench, x, i)), "small")}`,
  };
}

function panelOf({ name, runs }: Bench, x: Scale, i: number): { title: string; plot: Markup } {
  const y = around(runs.map(({ us }) => ({ mean: us, low: null, high: null })));
  const points = runs.map(({ at, us }): Point => ({
    ...{ x: x.at(at), y: y.at(us) },
    hint: `${name}, ${dateAndTime(at)}: ${figure(us)} µs`,
  }));
  const description = `A line of ${plural(runs.length, "run")} over time, in µs a call; the ` +
    "vertical axis does not begin at 0.";
  const options = { id: `benches-${i}`, title: `${name} over time`, description };
  const marks = [line(points, "c0", true)];
  return { title: name, plot: framed(xyPlot(options, { x, y, height: LOW, marks }), "", "µs") };
}

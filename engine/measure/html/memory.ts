/**
 * Figure of memory: peaks of each class in the stages of a run. Browser compatible.
 *
 * @module
 */
import { type Entry, MEMORY_CLASSES, type MemoryStage } from "./entries.ts";
import {
  type Figure,
  limitPanels,
  MOST_PANELS,
  NAME_COLUMN,
  numeric,
  panels,
  selectEntries,
  table,
} from "./figure.ts";
import { figure, plural, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import { column, fromZero, type PlotOptions, type Scale, xyPlot } from "./plot.ts";
import { framed } from "./lines.ts";

/** Height of a plot, in pixels. */
const HEIGHT = 150;
/** Width of a column, as a share of its place. */
const COLUMN = 0.62;

/** Columns of each report, a stage each, of slices by class. */
export function memoryColumns(entries: readonly Entry[]): Figure {
  const measured = entries.filter(({ memory }) => memory.length > 0);
  const { drawn, note } = selectEntries(measured, MOST_PANELS);
  const { chosen, note: limited } = limitPanels(drawn, "report");
  const head = { id: "memory", heading: "Memory by class", short: "Memory" };
  if (!chosen.length) {
    const about = "The reports have no memory by class; reports of this version do.";
    return { ...head, about, plots: null };
  }
  const parts = chosen.map((entry, i) => ({
    title: [entry.name, entry.details].filter(Boolean).join(" · "),
    plot: framed(memoryPlot(entry.memory, i), "", "MiB"),
  }));
  const rows = chosen.flatMap((entry) => entry.memory.map((stage) => ({ entry, stage })));
  type Row = typeof rows[number];
  return {
    ...head,
    about: "MiB of the buffers of the backend: the peak of each class in each stage of the run." +
      note + limited,
    plots: markup`<ul class="legend">${
      MEMORY_CLASSES.map(([, name], i) => markup`<li class="m${i}">${name}</li>`)
    }</ul>${panels(parts, "small")}`,
    table: table("Memory by class", [
      { head: "Report", cell: ({ entry }: Row) => NAME_COLUMN.cell(entry) },
      { head: "Stage", cell: ({ stage }) => stage.name },
      ...MEMORY_CLASSES.map(([, name], i) =>
        numeric(name, "MiB", ({ stage }: Row) => stage.mib[i], figure)
      ),
    ], rows),
  };
}

function memoryPlot(stages: readonly MemoryStage[], i: number): Markup {
  const sums = stages.map(({ mib }) => mib.reduce((a, b) => a + b, 0));
  const y = fromZero(Math.max(...sums), tick, 4);
  const place = 100 / stages.length;
  const marks = stages.map(({ name, mib }, k) => {
    const slices = mib.map((value, j) => ({
      value,
      className: `m${j}`,
      hint: `${name}, ${MEMORY_CLASSES[j][1]}: ${figure(value)} MiB`,
    }));
    return column(y, (k + (1 - COLUMN) / 2) * place, COLUMN * place, slices);
  });
  const x: Scale = {
    at: (k) => (k + 0.5) * place,
    ticks: stages.map(({ name }, k) => ({ at: (k + 0.5) * place, label: name })),
  };
  const options: PlotOptions = {
    id: `memory-${i}`,
    title: "Memory by class in each stage",
    description: `${plural(stages.length, "column")} of slices: at most ` +
      `${figure(Math.max(...sums))} MiB.`,
  };
  return xyPlot(options, { x, y, height: HEIGHT, marks });
}

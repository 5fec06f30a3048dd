/**
 * Frame of a figure on the page: heading, sentence, plots, and the same data as a table; groups of
 * entries that make up a line. Browser compatible.
 *
 * @module
 */
import { differingSettings, type Entry, type Settings } from "./entries.ts";
import { NONE, plural } from "./format.ts";
import { type Markup, markup, type Part } from "./markup.ts";

/** A figure of the page. */
export interface Figure {
  /** Unique in the page; the address of the section. */
  readonly id: string;
  readonly heading: string;
  /** The heading in a word, for links. */
  readonly short: string;
  /** Unit, method, and how to read the marks. */
  readonly about: string;
  /** Plots, or null if the reports lack the data; `about` says then how to measure them. */
  readonly plots: Markup | null;
  readonly table?: Markup;
}

/** A figure as a section of the page. */
export function section({ id, heading, about, plots, table }: Figure): Markup {
  return markup`
<section id="${id}" aria-labelledby="${id}-h"><h2 id="${id}-h">${heading}</h2>
<p class="about">${about}</p>${plots}${
    table && markup`<details><summary>Data of this figure</summary>${table}</details>`
  }</section>`;
}

/** A column of a table. */
export interface Column<T> {
  readonly head: string;
  /** Unit, shown below the head. */
  readonly unit?: string;
  readonly cell: (row: T) => Part;
  /** Makes the column numeric: the value to sort by, null if it was not measured. */
  readonly value?: (row: T) => number | null;
}

/** A table in a frame that scrolls; the first column names the rows. */
export function table<T>(
  caption: string,
  columns: readonly Column<T>[],
  rows: readonly T[],
  className = "",
): Markup {
  const heads = columns.map(({ head, unit, value }) =>
    markup`<th scope="col"${value && markup` class="n"`}><span>${head}</span>${
      unit && markup` <small>${unit}</small>`
    }</th>`
  );
  const body = rows.map((row) =>
    markup`<tr>${columns.map((column, i) => cell(column, row, i))}</tr>\n`
  );
  return markup`<div class="scroll" role="region" aria-label="${caption}, table" tabindex="0">\
<table class="${className}"><caption>${caption}</caption>\
<thead><tr>${heads}</tr></thead>\n<tbody>${body}</tbody></table></div>`;
}

function cell<T>({ cell, value }: Column<T>, row: T, i: number): Markup {
  if (i === 0) return markup`<th scope="row">${cell(row)}</th>`;
  if (!value) return markup`<td>${cell(row)}</td>`;
  const number = value(row);
  // Sorting needs six digits; more would weigh more than the text.
  return markup`<td data-v="${number === null ? "" : +number.toPrecision(6)}">${cell(row)}</td>`;
}

/** A column of numbers. */
export function numeric<T>(
  head: string,
  unit: string,
  value: (row: T) => number | null,
  text: (value: number) => string,
): Column<T> {
  return {
    ...{ head, unit, value },
    cell: (row) => {
      const number = value(row);
      return number === null ? NONE : text(number);
    },
  };
}

/** The column that names an entry. */
export const NAME_COLUMN: Column<Entry> = { head: "Report", cell: nameOf };

/** The name of an entry, with its details. */
export function nameOf({ name, details }: Pick<Entry, "name" | "details">): Markup {
  return markup`${name}${details && markup` <small>${details}</small>`}`;
}

/** Longest label of a plot, in characters. */
const LONGEST_LABEL = 32;

/** A label that fits a plot: a long one loses its beginning, of a path the folders. */
export function shorten(label: string, longest = LONGEST_LABEL): string {
  const characters = [...label];
  if (characters.length <= longest) return label;
  const tail = characters.slice(1 - longest).join("");
  const slash = tail.search(/[/\\](?=.{12})/u);
  return `…${slash < 0 ? tail : tail.slice(slash)}`;
}

/** Entries that make up a line: one setup of a model, or of a file with equal models. */
export interface Group {
  readonly name: string;
  readonly entries: readonly Entry[];
}

/**
 * Groups entries by name, or by model, and by settings, but for those along the line. A comparison
 * of files groups by name; a history, whose every file is a run, by model.
 */
export function groupEntries(
  entries: readonly Entry[],
  along: readonly (keyof Settings)[],
  by: "name" | "model" = "name",
): Group[] {
  const groups = new Map<string, Entry[]>();
  for (const entry of entries) {
    const kept = Object.entries(entry.settings).filter(([key]) =>
      !along.includes(key as keyof Settings)
    );
    const key = JSON.stringify([entry[by], entry.paramsM, kept]);
    const group = groups.get(key);
    if (group) group.push(entry);
    else groups.set(key, [entry]);
  }
  const all = [...groups.values()];
  const isNamed = new Set(entries.map((entry) => entry[by])).size > 1;
  const nothing = Object.fromEntries(along.map((key) => [key, null]));
  const details = differingSettings(all.map(([{ settings }]) => ({ ...settings, ...nothing })));
  return all.map((entries, i) => {
    const name = entries[0][by];
    return { name: [isNamed && name, details[i]].filter(Boolean).join(" · ") || name, entries };
  });
}

/** Lines that have a colour of their own; the others are grey. */
const COLOURS = 6;

/** Class of a line's colour. */
export function colour(i: number): string {
  return i < COLOURS ? `c${i}` : "cx";
}

/** The key of a plot's colours. */
export function legend(names: readonly string[]): Markup | null {
  if (names.length < 2) return null;
  const shown = names.slice(0, COLOURS);
  const others = names.length - shown.length;
  return markup`<ul class="legend">${
    shown.map((name, i) => markup`<li class="${colour(i)}">${name}</li>`)
  }${others > 0 && markup`<li class="cx">${plural(others, "other")}</li>`}</ul>`;
}

/** Panels of one plot each; small ones make more columns. */
export function panels(
  parts: readonly { readonly title: string; readonly plot: Markup }[],
  size: "large" | "small" = "large",
): Markup {
  return markup`<div class="panels ${size}">${
    parts.map(({ title, plot }) =>
      markup`<figure><figcaption>${title}</figcaption>${plot}</figure>`
    )
  }</div>`;
}

/** Panels of a figure at most; 200 profiles would weigh 1 MB. */
export const MOST_PANELS = 24;

/** The newest report of each setup, in their order. */
export function newestOfEach(entries: readonly Entry[], by: "name" | "model"): Entry[] {
  return groupEntries(entries, [], by).map(({ entries }) =>
    entries.reduce((a, b) => (b.timestamp ?? 0) >= (a.timestamp ?? 0) ? b : a)
  );
}

/** All entries; of more than `most`, the newest of each setup, and a sentence that says so. */
export function selectEntries(
  entries: readonly Entry[],
  most: number,
): { drawn: readonly Entry[]; note: string } {
  if (entries.length <= most) return { drawn: entries, note: "" };
  return {
    drawn: newestOfEach(entries, "model"),
    note: " Drawn: the newest report of each setup.",
  };
}

/** The first of a list for panels, and a sentence that says so if there are more. */
export function limitPanels<T>(
  all: readonly T[],
  noun: string,
  most = MOST_PANELS,
): { chosen: readonly T[]; note: string } {
  const chosen = all.slice(0, most);
  const note = chosen.length < all.length
    ? ` The first ${chosen.length} of ${plural(all.length, noun)}.`
    : "";
  return { chosen, note };
}

/** The entries of each model, in their order. */
export function byModel(entries: readonly Entry[]): { model: string; entries: Entry[] }[] {
  const models = new Map<string, Entry[]>();
  for (const entry of entries) {
    const same = models.get(entry.model);
    if (same) same.push(entry);
    else models.set(entry.model, [entry]);
  }
  return [...models].map(([model, entries]) => ({ model, entries }));
}

/**
 * Tables of the page: the overview, the environments and the settings. Browser compatible.
 *
 * @module
 */
import type { FailureReport } from "../history.ts";
import { warnings } from "../report.ts";
import { at, type Entry, figureAt } from "./entries.ts";
import { type Column, nameOf, numeric, table } from "./figure.ts";
import { figure, NONE, plural, share, tick } from "./format.ts";
import { type Markup, markup } from "./markup.ts";
import { spreadOf } from "./rates.ts";

/** Columns of settings; one is shown if the reports differ in it. */
const SETTING_COLUMNS: readonly Column<Entry>[] = [
  { head: "Backend", cell: ({ settings }) => settings.backend || NONE },
  numeric("Threads", "", ({ settings }) => settings.threads, tick),
  { head: "Weights", cell: ({ settings }) => settings.dtype || NONE },
  numeric("Prompt", "tokens", ({ settings }) => settings.promptTokens, tick),
  numeric("Generated", "tokens", ({ settings }) => settings.genTokens, tick),
];

/** Overview: a row for each report, and the settings that all have in common. */
export function overview(entries: readonly Entry[]): Markup {
  const isShared = ({ cell }: Column<Entry>) => new Set(entries.map(cell)).size === 1;
  const shared = SETTING_COLUMNS.filter(isShared).map(({ head, unit, cell }) =>
    markup`<div><dt>${head}</dt> <dd>${cell(entries[0])} ${unit}</dd></div>`
  );
  const columns: Column<Entry>[] = [
    { head: "Report", cell: ({ name, rest }) => nameOf({ name, details: rest }) },
    ...SETTING_COLUMNS.filter((column) => !isShared(column)),
    {
      ...numeric("Mean", "tok/s", ({ rate }) => rate.mean, figure),
      cell: ({ rate }) => markup`<b>${figure(rate.mean)}</b>`,
    },
    { ...numeric("±", "95 %", ({ rate }) => spreadOf(rate), share), cell: spreadCell },
    numeric("Prefill", "tok/s", ({ prefill }) => prefill, figure),
    numeric("Decode", "tok/s", ({ decode }) => decode, figure),
    numeric("First token", "ms", ({ firstTokenMs }) => firstTokenMs, figure),
    numeric("Peak", "MiB", ({ peakMiB }) => peakMiB, figure),
    numeric("Of limit", "decode", ({ limitShare }) => limitShare, share),
    { head: "Check", cell: checkCell },
  ];
  return markup`${shared.length > 0 && markup`<dl class="shared">${shared}</dl>`}${
    table("Overview of the reports", columns, entries, "sortable")
  }`;
}

function spreadCell({ rate, report }: Entry): Markup | string {
  const spread = share(spreadOf(rate));
  return warnings(report).length ? markup`<span class="bad">${spread}, noisy</span>` : spread;
}

function checkCell({ check: { passed, text } }: Entry): Markup | string {
  if (passed) return markup`<span class="good" title="${text}">✓ passed</span>`;
  if (passed === false) return markup`<span class="bad" title="${text}">✗ failed</span>`;
  return text ? markup`<span title="${text}">not run</span>` : NONE;
}

/** Warnings about the figures of reports. */
export function doubtful(entries: readonly Entry[]): Markup | null {
  const items = entries.flatMap((entry) =>
    warnings(entry.report).map((sentence) =>
      markup`<li><b>${entry.name}</b> ${entry.details}: ${sentence}</li>`
    )
  );
  if (!items.length) return null;
  return markup`<details class="doubts"><summary>${plural(items.length, "warning")}</summary>\
<ul>${items}</ul></details>`;
}

/** Combinations of a sweep that could not run, with their reasons. */
export function failures(failed: readonly FailureReport[]): Markup {
  const columns: Column<FailureReport>[] = [
    { head: "Model", cell: ({ model }) => model.id },
    { head: "Backend", cell: ({ engine }) => engine.backend },
    numeric("Threads", "", ({ engine }) => engine.threads, tick),
    { head: "Weights", cell: ({ engine }) => engine.dtype },
    numeric("Prompt", "tokens", ({ generation }) => generation.prompt_tokens, tick),
    numeric("Generated", "tokens", ({ generation }) => generation.gen_tokens, tick),
    { head: "Reason", cell: ({ error }) => error },
  ];
  return markup`<h3 class="after">Not run</h3>${
    table("Combinations that could not run", columns, failed)
  }`;
}

/** A property: its name and its path in a report. */
type Property = readonly [name: string, path: string];

const ENVIRONMENT: readonly Property[] = [
  ["Device", "device.name"],
  ["Processor", "platform.cpu"],
  ["Logical processors", "platform.cores"],
  ["Operating system", "platform.os"],
  ["Browser", "platform.browser"],
  ["Deno", "platform.deno"],
  ["Node", "platform.node"],
  ["Bun", "platform.bun"],
  ["V8", "platform.v8"],
  ["V8 flags", "engine.v8_flags"],
  ["Vectors (bits)", "engine.simd"],
  ["TypeScript", "platform.typescript"],
  ["wgslm", "engine.version"],
  ["Commit", "commit"],
];

/** Properties that differ in every run: their range is shown. */
const MACHINE: readonly (readonly [...Property, text: (value: number) => string])[] = [
  ["Load average (1 min)", "results.machine.load_average.0", figure],
  ["Clock (MHz)", "results.machine.cpu_mhz", tick],
  ["CPU time of other processes", "results.machine.other_cpu_share", share],
  ["CPU time of other machines", "results.machine.stolen_cpu_share", share],
];

const SETTINGS: readonly Property[] = [
  ["Model", "model.id"],
  ["Parameters (millions)", "model.params_m"],
  ["Weights (MiB)", "model.weights_mib"],
  ["Layers", "model.n_layer"],
  ["Heads", "model.n_head"],
  ["Width", "model.n_embd"],
  ["Vocabulary", "model.vocab_size"],
  ["Prompt", "generation.prompt"],
  ["Iterations", "results.iters"],
  ["Warm-up tokens", "generation.warmup_tokens"],
  ["KV cache", "generation.use_kv_cache"],
  ["KV cache's type", "engine.kv_dtype"],
  ["Activations", "engine.activations"],
  ["Temperature", "generation.temperature"],
  ["Top-k", "generation.top_k"],
  ["Top-p", "generation.top_p"],
  ["Repetition penalty", "generation.repetition_penalty"],
  ["Seed", "generation.seed"],
  ["Deterministic", "generation.deterministic"],
];

/** Values of a property that are listed; more are counted. */
const MOST_VALUES = 6;
/** Characters of a value that are shown. */
const LONGEST = 160;

/** The values of each property, with the number of reports that have them if they differ. */
function properties(entries: readonly Entry[], list: readonly Property[]): Markup {
  const rows = list.map(([name, path]) => {
    const counts = new Map<string, number>();
    for (const { report } of entries) {
      const value = show(at(report, path));
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    if (counts.size === 1 && counts.has(NONE)) return null;
    const values = [...counts].slice(0, MOST_VALUES).map(([value, count]) =>
      markup`<dd><bdi>${value}</bdi>${
        counts.size > 1 && markup` <small>${plural(count, "report")}</small>`
      }</dd>`
    );
    const more = counts.size - values.length;
    return markup`<div><dt>${name}</dt>${values}${
      more > 0 && markup`<dd><small>and ${plural(more, "more value")}</small></dd>`
    }</div>`;
  });
  return markup`<dl>${rows}</dl>`;
}

/** The range of each property over the reports. */
function ranges(entries: readonly Entry[]): Markup {
  const rows = MACHINE.map(([name, path, text]) => {
    const values = entries.flatMap(({ report }) => figureAt(report, path) ?? []);
    if (!values.length) return null;
    const [low, high] = [text(Math.min(...values)), text(Math.max(...values))];
    return markup`<div><dt>${name}</dt><dd>${low === high ? low : `${low} to ${high}`}</dd></div>`;
  });
  return markup`<dl>${rows}</dl>`;
}

function show(value: unknown): string {
  if (value === undefined || value === null || value === "") return NONE;
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "number") {
    return tick(Number.isInteger(value) ? value : +value.toPrecision(4));
  }
  if (Array.isArray(value)) return value.map(show).join(" ") || NONE;
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const characters = [...text.slice(0, 2 * LONGEST)];
  if (characters.length <= LONGEST) return text;
  return `${characters.slice(0, LONGEST).join("")}…`;
}

/** The section of machines, versions and settings. */
export function environment(entries: readonly Entry[]): Markup {
  return markup`
<section id="environment" aria-labelledby="environment-h">
<h2 id="environment-h">Environment and settings</h2>
<p class="about">Where reports differ, each value has the number of its reports.</p>
<div class="panels"><div><h3>Machine and versions</h3>${properties(entries, ENVIRONMENT)}${
    ranges(entries)
  }</div>
<div><h3>Model and settings</h3>${properties(entries, SETTINGS)}</div></div></section>`;
}

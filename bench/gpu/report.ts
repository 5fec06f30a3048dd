/**
 * Markdown of `gpu.json`: one table per stage, kernels sorted by the time they lose.
 *
 * @module
 */
import { markdownTable } from "../markdown.ts";

interface Product {
  readonly what: string;
  readonly rows: number;
  readonly us?: number;
  readonly gbs?: number;
  readonly gigaFmas?: number;
  readonly share?: number;
  readonly times?: readonly { readonly length: number; readonly us: number }[];
}

interface Timed {
  readonly what: string;
  readonly error?: string;
  readonly loadMs?: number;
  readonly decodes?: readonly (Rate & {
    readonly draw: string;
    readonly prediction?: { readonly tokensPerSec: number };
  })[];
  readonly prefills?: readonly (Rate & { readonly rows: number })[];
  readonly profiles?: readonly {
    readonly pass: string;
    readonly length: number;
    readonly kernels: readonly {
      readonly name: string;
      readonly calls: number;
      readonly ms: number;
      readonly bytes: number;
    }[];
  }[];
}

interface Rate {
  readonly length: number;
  readonly tokensPerSec: number;
  readonly ms: number;
  readonly hostMs: number;
}

/** A table of texts. */
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  markdownTable(head, rows, head.length);

const three = (value?: number) => value === undefined ? "–" : `${Number(value.toPrecision(3))}`;

function flat(value: unknown, path: string): string[][] {
  if (typeof value !== "object" || value === null) return [[path, `${value}`]];
  if (Array.isArray(value)) return [[path, value.map((each) => JSON.stringify(each)).join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) =>
    flat(inner, path ? `${path}.${key}` : key)
  );
}

/** Time that a kernel loses against the limit, in microseconds; unknown counts as all of it. */
function lost({ us = 0, share = 0 }: Product): number {
  return us * (1 - Math.min(1, share));
}

function kernelRows(results: readonly Product[]): string[][] {
  const products = results.filter(({ us }) => us !== undefined).sort((a, b) => lost(b) - lost(a));
  const attention = results.flatMap(({ what, rows, times = [] }) =>
    times.map(({ length, us }) => [`${what}, ${length} keys`, `${rows}`, three(us), "–", "–", "–"])
  );
  return [
    ...products.map((p) => [
      p.what,
      `${p.rows}`,
      three(p.us),
      three(p.gbs),
      three(p.gigaFmas),
      p.share === undefined ? "–" : `${(100 * p.share).toFixed(0)} %`,
    ]),
    ...attention,
  ];
}

function modelRows(results: readonly Timed[]): string[][] {
  return results.flatMap(({ what, error, decodes = [], prefills = [] }) => [
    ...error ? [[what, error, "–", "–", "–", "–", "–"]] : [],
    ...decodes.map((d) => [
      what,
      `decode, ${d.draw}`,
      `${d.length}`,
      three(d.tokensPerSec),
      three(d.prediction?.tokensPerSec),
      three(d.ms),
      three(d.hostMs),
    ]),
    ...prefills.map((p) => [
      what,
      `prefill of ${p.rows}`,
      `${p.length}`,
      three(p.tokensPerSec),
      "–",
      three(p.ms),
      three(p.hostMs),
    ]),
  ]);
}

const PROFILE = ["model", "pass", "keys", "kernel", "calls", "µs", "GB/s"];

/** Kernels of a pass, the slowest first. */
function profileRows(results: readonly Timed[]): string[][] {
  return results.flatMap(({ what, profiles = [] }) =>
    profiles.flatMap(({ pass, length, kernels }) =>
      kernels.toSorted((a, b) => b.ms - a.ms).map(({ name, calls, ms, bytes }) => [
        what,
        pass,
        `${length}`,
        name,
        `${calls}`,
        three(1000 * ms),
        three(bytes / ms / 1e6),
      ])
    )
  );
}

/** The report of the stages that are done. */
export function markdown(report: Readonly<Record<string, unknown>>): string {
  const parts = report as Record<string, { error?: string; results?: unknown[] } | undefined>;
  const sections = [`# GPU: ${report.adapter}${report.tiny ? " (rehearsal, tiny shapes)" : ""}`];
  for (const name of ["facts", "limits", "tests"]) {
    if (parts[name]) sections.push(`## ${name}`, table(["what", "value"], flat(parts[name], "")));
  }
  const header = ["what", "rows", "µs", "GB/s", "10⁹ FMA/s", "of the limit"];
  const { kernels, models } = parts;
  if (kernels) {
    const rows = kernelRows((kernels.results ?? []) as Product[]);
    sections.push("## kernels", table(header, rows), kernels.error ?? "");
  }
  if (models) {
    const rows = modelRows((models.results ?? []) as Timed[]);
    const header = ["model", "pass", "keys", "tok/s", "predicted", "ms", "host ms"];
    sections.push("## models", table(header, rows), models.error ?? "");
    sections.push("## profiles", table(PROFILE, profileRows((models.results ?? []) as Timed[])));
  }
  return sections.join("\n\n") + "\n";
}

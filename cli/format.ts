/**
 * Formats of numbers, durations and tables for people.
 *
 * @module
 */

/** Bytes in the unit that fits. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

/** Milliseconds in the unit that fits. */
export function duration(ms: number): string {
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Tokens a second. */
export function rate(tokensPerSec: number): string {
  return `${tokensPerSec.toFixed(tokensPerSec < 100 ? 2 : 1)} tok/s`;
}

/** A number and what it counts. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Rows with their columns in line; columns named in `right` are flush right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((text, i) => widths[i] = Math.max(widths[i] ?? 0, text.length));
  }
  return rows.map((row) =>
    "  " + row.map((text, i) =>
      right.includes(i) ? text.padStart(widths[i]) : text.padEnd(widths[i])
    ).join("  ").trimEnd() + "\n"
  ).join("");
}

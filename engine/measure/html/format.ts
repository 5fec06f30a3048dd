/**
 * Numbers as text for the page, with units named by their function. Browser compatible.
 *
 * @module
 */

/** Placeholder of a figure that was not measured. */
export const NONE = "–";

/** Formats with 0 to 3 decimals, made once: `toLocaleString` makes one for each number. */
const FORMATS = [0, 1, 2, 3].map((decimals) =>
  new Intl.NumberFormat("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  })
);
const TICKS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });

function digits(value: number, decimals: number): string {
  return FORMATS[decimals].format(value);
}

/** A number with about four significant digits; NONE for null. */
export function figure(value: number | null): string {
  if (value === null) return NONE;
  const size = Math.abs(value);
  if (size >= 1e9) return value.toExponential(2);
  return digits(value, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size === 0 ? 0 : 3);
}

/** A number for a tick: without digits that say nothing. */
export function tick(value: number): string {
  return Math.abs(value) >= 1e9 ? value.toExponential(2) : TICKS.format(value);
}

/** Tokens per second, with the unit. */
export function rate(value: number): string {
  return `${figure(value)}\u00a0tok/s`;
}

/** Milliseconds, with the unit. */
export function ms(value: number): string {
  return `${figure(value)}\u00a0ms`;
}

/** A share of 1 in percent, with one decimal below 10 %; NONE for null. */
export function share(value: number | null): string {
  if (value === null) return NONE;
  return `${digits(100 * value, Math.abs(value) < 0.1 ? 1 : 0)}\u00a0%`;
}

/** A count and its noun. */
export function plural(count: number, noun: string): string {
  return `${digits(count, 0)} ${noun}${count === 1 ? "" : "s"}`;
}

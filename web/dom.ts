/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
/**
 * Elements of the page: find, make, fill.
 *
 * @module
 */

/** The element with an id; its absence is an error of the page. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`Cannot find "#${id}": expected it in index.html`);
  return found as T;
}

/** Attributes and children of an element. */
type Child = Node | string;

/** Makes an element. */
export function make(
  tag: string,
  attributes: Readonly<Record<string, string>> = {},
  ...children: Child[]
): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Shows or hides an element. */
export function show(element: HTMLElement, isShown: boolean): void {
  element.hidden = !isShown;
}

/** Hands a text to the visitor as a file. */
export function download(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A number of bytes: "9.3 MiB". */
export function bytes(count: number): string {
  if (!Number.isFinite(count)) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit++;
  }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

/** A number with its thousands apart. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** The sentence of an error. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

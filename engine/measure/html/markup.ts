/**
 * Escaped markup: a template tag that escapes every value in HTML and SVG. Browser compatible.
 *
 * Text of a report is untrusted: a model's id is a path that others chose, a prompt is any text.
 *
 * @module
 */

/** Markup whose values are escaped already. */
export class Markup {
  /** @param text HTML or SVG. */
  constructor(readonly text: string) {}
}

/** A value in a template: text is escaped, markup is not, null and false are nothing. */
export type Part = Markup | string | number | null | undefined | false | readonly Part[];

/** Builds markup from a template; every text among its values is escaped. */
export function markup(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  let text = strings[0];
  parts.forEach((part, i) => text += textOf(part) + strings[i + 1]);
  return new Markup(text);
}

function textOf(part: Part): string {
  if (part instanceof Markup) return part.text;
  if (part === null || part === undefined || part === false) return "";
  if (typeof part === "object") return part.map(textOf).join("");
  return escape(String(part));
}

/** Characters with a meaning in markup, in text and in quoted attributes. */
const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Control characters but tabs and ends of line, and characters that reorder text. */
const HIDDEN = /(?![\n\t])[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;

/** Text for an element or a quoted attribute, with its hidden characters as <U+202E>. */
export function escape(text: string): string {
  return text.toWellFormed()
    .replace(HIDDEN, (character) => {
      const code = character.charCodeAt(0).toString(16).toUpperCase();
      return `<U+${code.padStart(4, "0")}>`;
    })
    .replace(/[&<>"']/g, (character) => ENTITIES[character]);
}

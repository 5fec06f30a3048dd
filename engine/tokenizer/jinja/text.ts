/**
 * Python's text: code points, white space and case where JavaScript's strings differ.
 *
 * @module
 */
import { TemplateError } from "./errors.ts";

/**
 * Character class of Python's str.isspace(). JavaScript's `\s` has U+FEFF and lacks five of these
 * characters.
 */
export const SPACE =
  "[\\t-\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

const IS_SPACE = new RegExp(`^${SPACE}+$`);

/** UTF-16 units of a text. */
export const MAX_TEXT = 10_000_000;

/** Items of a list, as in Jinja's sandbox. */
export const MAX_ITEMS = 100_000;

/** Refuses a text before memory is taken for it. */
export function checkText(length: number): void {
  if (length > MAX_TEXT) throw new TemplateError(`it makes a text of ${length} characters`);
}

/** Refuses a list before memory is taken for it. */
export function checkItems(length: number): void {
  if (length > MAX_ITEMS) throw new TemplateError(`it makes a list of ${length} items`);
}

/** Whether a text has characters beyond U+FFFF, which are two units. */
const hasPairs = (text: string): boolean => /[\ud800-\udbff]/.test(text);

/** Number of code points. */
export function lengthOf(text: string): number {
  if (!hasPairs(text)) return text.length;
  let length = 0;
  for (const _ of text) length++;
  return length;
}

/** Code points as texts, for access by index; a text without pairs is its own. */
export function characters(text: string): string | readonly string[] {
  return hasPairs(text) ? [...text] : text;
}

/** A place in UTF-16 units as a number of code points. */
export function toCodePoints(text: string, units: number): number {
  return lengthOf(text.slice(0, units));
}

/** Compares by code points: negative, 0 or positive. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  if (!hasPairs(a) && !hasPairs(b)) return a < b ? -1 : 1;
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  // Back to the start of a pair, of which only the second unit differs.
  if (i > 0 && /[\ud800-\udbff]/.test(a[i - 1])) i--;
  return (a.codePointAt(i) ?? -1) - (b.codePointAt(i) ?? -1);
}

/** Whether a text is white space alone, and some. */
export const isSpace = (text: string): boolean => IS_SPACE.test(text);

/** `strip`, `lstrip` and `rstrip`; without characters, white space. */
export function stripText(
  text: string,
  side: "left" | "right" | "both",
  among?: string,
): string {
  const letters = among !== undefined && hasPairs(text + among) ? [...text] : text;
  const set = among === undefined ? null : new Set(among);
  const goes = set ? (letter: string) => set.has(letter) : isSpace;
  let [from, to] = [0, letters.length];
  if (side !== "right") { while (from < to && goes(letters[from])) from++; }
  if (side !== "left") { while (to > from && goes(letters[to - 1])) to--; }
  return typeof letters === "string" ? text.slice(from, to) : letters.slice(from, to).join("");
}

/** Letters whose title case is one character of its own; in threes: upper, title, lower. */
const DIGRAPHS = /[\u01c4-\u01cc\u01f1-\u01f3]/;

/** The title case of a character. */
export function titleCase(letter: string): string {
  if (DIGRAPHS.test(letter)) {
    const code = letter.charCodeAt(0);
    const base = code < 0x1f1 ? 0x1c4 : 0x1f1;
    return String.fromCharCode(base + 3 * Math.floor((code - base) / 3) + 1);
  }
  const [first = "", ...rest] = letter.toUpperCase();
  return first + rest.join("").toLowerCase();
}

/** The lower case of each code point; that of a sigma depends on the letters around it. */
function lowerLetters(text: string): readonly string[] {
  const [letters, lower] = [[...text], [...text.toLowerCase()]];
  return letters.length === lower.length ? lower : letters.map((letter) => letter.toLowerCase());
}

/** `str.capitalize()`. */
export function capitalize(text: string): string {
  const [first = ""] = text;
  return titleCase(first) + lowerLetters(text).slice(1).join("");
}

/** `str.swapcase()`. */
export function swapCase(text: string): string {
  const lower = lowerLetters(text);
  return [...text].map((letter, i) =>
    /\p{Uppercase}/u.test(letter)
      ? lower[i]
      : /\p{Lowercase}/u.test(letter)
      ? letter.toUpperCase()
      : letter
  ).join("");
}

const CASED = /[\p{Lowercase}\p{Uppercase}\p{Lt}]/u;

/** `str.title()`: runs of letters with case are words. */
export function titleWords(text: string): string {
  let inWord = false;
  const lower = lowerLetters(text);
  return [...text].map((letter, i) => {
    const titled = inWord ? lower[i] : titleCase(letter);
    inWord = CASED.test(letter);
    return titled;
  }).join("");
}

/** `str.istitle()`. */
export function isTitle(text: string): boolean {
  let [inWord, any] = [false, false];
  for (const letter of text) {
    const isUpper = /[\p{Uppercase}\p{Lt}]/u.test(letter);
    if (isUpper ? inWord : !inWord && /\p{Lowercase}/u.test(letter)) return false;
    inWord = CASED.test(letter);
    any ||= inWord;
  }
  return any;
}

/** `str.isupper()` or `str.islower()`: some letters with case, and none of the other. */
export function hasCase(text: string, isUpper: boolean): boolean {
  const other = isUpper ? /[\p{Lowercase}\p{Lt}]/u : /[\p{Uppercase}\p{Lt}]/u;
  return !other.test(text) && (isUpper ? /\p{Uppercase}/u : /\p{Lowercase}/u).test(text);
}

// deno-lint-ignore no-control-regex
const LINE_END = /\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]/g;

/** `str.splitlines()`. */
export function splitLines(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let from = 0;
  for (const { 0: end, index } of text.matchAll(LINE_END)) {
    lines.push(text.slice(from, keepEnds ? index + end.length : index));
    from = index + end.length;
  }
  if (from < text.length) lines.push(text.slice(from));
  return lines;
}

/**
 * `str.split()` and `str.rsplit()`, at most `limit` times where it is not negative; without a
 * separator, at white space.
 */
export function splitText(
  text: string,
  separator: string | null,
  limit: number,
  fromRight: boolean,
): string[] {
  if (separator === "") throw new TemplateError("empty separator");
  if (separator === null) return splitWords(text, limit, fromRight);
  if (!fromRight || limit < 0) {
    const parts = text.split(separator);
    checkItems(parts.length);
    if (limit < 0 || parts.length <= limit + 1) return parts;
    return [...parts.slice(0, limit), parts.slice(limit).join(separator)];
  }
  const parts: string[] = [];
  let end = text.length;
  while (parts.length < limit) {
    const at = end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length);
    if (at < 0) break;
    parts.unshift(text.slice(at + separator.length, end));
    end = at;
  }
  return [text.slice(0, end), ...parts];
}

/** The words of a text; where the limit leaves a rest, it keeps the white space on its far side. */
function splitWords(text: string, limit: number, fromRight: boolean): string[] {
  const trimmed = stripText(text, "both");
  if (trimmed === "") return [];
  const gaps = [...trimmed.matchAll(new RegExp(`${SPACE}+`, "g"))];
  checkItems(gaps.length);
  const cuts = limit < 0
    ? gaps
    : fromRight
    ? gaps.slice(Math.max(0, gaps.length - limit))
    : gaps.slice(0, limit);
  const parts: string[] = [];
  let from = 0;
  for (const { 0: gap, index } of cuts) {
    parts.push(trimmed.slice(from, index));
    from = index + gap.length;
  }
  parts.push(trimmed.slice(from));
  if (cuts.length !== limit) return parts;
  if (!fromRight) parts[parts.length - 1] += text.slice(stripText(text, "right").length);
  else parts[0] = text.slice(0, text.length - stripText(text, "left").length) + parts[0];
  return parts;
}

/** `str.replace()`, at most `limit` times where it is not negative. */
export function replaceText(text: string, old: string, by: string, limit: number): string {
  const letters = old === "" ? [...text] : null;
  const found = letters ? letters.length + 1 : text.split(old).length - 1;
  const count = limit < 0 ? found : Math.min(found, limit);
  checkText(text.length + count * Math.max(0, by.length - old.length));
  if (letters) {
    return letters.map((letter, i) => (i < count ? by : "") + letter).join("") +
      (count > letters.length ? by : "");
  }
  if (count === found) return text.replaceAll(old, () => by);
  const parts = text.split(old);
  return parts.slice(0, count).map((part) => part + by).join("") + parts.slice(count).join(old);
}

/** `str.expandtabs()`. */
export function expandTabs(text: string, size: number): string {
  let column = 0;
  let expanded = "";
  for (const letter of text) {
    if (letter === "\t") {
      const blanks = size > 0 ? size - column % size : 0;
      checkText(expanded.length + blanks);
      expanded += " ".repeat(blanks);
      column += blanks;
    } else {
      expanded += letter;
      column = letter === "\n" || letter === "\r" ? 0 : column + 1;
    }
  }
  return expanded;
}

/** `str.center()` with "^", `ljust` with "<", `rjust` with ">". */
export function justify(text: string, width: number, fill: string, to: "<" | ">" | "^"): string {
  checkText(width);
  const missing = Math.max(0, width - lengthOf(text));
  // Python puts an unpaired space on the left if the width is odd.
  const left = to === "<" ? 0 : to === ">" ? missing : (missing >> 1) + (missing & width & 1);
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

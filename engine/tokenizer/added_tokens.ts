/**
 * Added-token search, as `AddedVocabulary` of Hugging Face's tokenizers. Method: split the raw text
 * at added tokens with `normalized: false`, normalize each section between them, and split it at
 * added tokens with `normalized: true`. At one position, the longest token wins.
 *
 * @module
 */
import type { AddedToken } from "./vocabulary.ts";

/** The id of an added token, or normalized text between two; isFirst: nothing precedes it. */
export type Piece = number | { readonly text: string; readonly isFirst: boolean };

/** `\s` and `\w` of Rust's regular expressions. */
const SPACE = /\p{White_Space}/u;
const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Splits text at added tokens. */
export class AddedTokens {
  readonly #raw: Finder;
  readonly #normalized: Finder;

  constructor(tokens: readonly AddedToken[], readonly normalize: (text: string) => string) {
    const select = (normalized: boolean) =>
      tokens.filter((token) => token.normalized === normalized);
    this.#raw = new Finder(select(false), (content) => content);
    this.#normalized = new Finder(select(true), normalize);
  }

  /** Yields the pieces of a text in order; none is empty. */
  *split(text: string): Generator<Piece> {
    let isFirst = true;
    for (const section of this.#raw.split(text)) {
      if (typeof section === "number") yield section;
      else {
        for (const piece of this.#normalized.split(this.normalize(section))) {
          yield typeof piece === "number" ? piece : { text: piece, isFirst };
          isFirst = false;
        }
      }
      isFirst = false;
    }
  }
}

/** A pattern that matches exactly the text; Node 22 has no `RegExp.escape`. */
function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

/** Finds a set of tokens in text. */
class Finder {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #pattern: RegExp | null;

  constructor(tokens: readonly AddedToken[], normalize: (content: string) => string) {
    for (const token of tokens) {
      const content = normalize(token.content);
      if (content !== "") this.#tokens.set(content, token);
    }
    // A regular expression tries alternatives from left to right: put the longest first.
    const longestFirst = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = longestFirst.length
      ? new RegExp(longestFirst.map(escaped).join("|"), "gu")
      : null;
  }

  /** Yields the ids of tokens and the text between them, in order. */
  *split(text: string): Generator<string | number> {
    let from = 0; // end of the text yielded so far
    for (const { 0: match, index } of this.#pattern ? text.matchAll(this.#pattern) : []) {
      const token = this.#tokens.get(match)!;
      let start = index;
      let end = index + match.length;
      if (token.singleWord && !isSeparateWord(text, start, end)) continue;
      if (token.lstrip) { while (start > from && SPACE.test(text[start - 1])) start--; }
      if (token.rstrip) { while (end < text.length && SPACE.test(text[end])) end++; }
      if (from < start) yield text.slice(from, start);
      yield token.id;
      from = end;
    }
    if (from < text.length) yield text.slice(from);
  }
}

/** Whether text[start, end) has no letter, digit or underscore on either side. */
function isSeparateWord(text: string, start: number, end: number): boolean {
  const before = [...text.slice(Math.max(0, start - 2), start)].at(-1) ?? "";
  return !WORD.test(before) && !WORD.test(String.fromCodePoint(text.codePointAt(end) ?? 0));
}

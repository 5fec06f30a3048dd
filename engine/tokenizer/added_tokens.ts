/**
 * Finds added tokens in a text: first those that are found in the text as given, then, between
 * them, those that are found in the normalized text. The longest at a place wins. As
 * AddedVocabulary of Hugging Face's tokenizers.
 *
 * @module
 */
import type { AddedToken } from "./vocabulary.ts";

/** Text between added tokens, normalized; an added token is its id. */
export type Piece = number | { readonly text: string; readonly isFirst: boolean };

/** As `\s` and `\w` of Rust's regular expressions. */
const SPACE = /\p{White_Space}/u;
const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Cuts texts at added tokens. */
export class AddedTokens {
  readonly #asGiven: Finder;
  readonly #normalized: Finder;

  constructor(tokens: readonly AddedToken[], readonly normalize: (text: string) => string) {
    const pairs = (normalized: boolean) =>
      tokens.filter((token) => token.normalized === normalized);
    this.#asGiven = new Finder(pairs(false), (content) => content);
    this.#normalized = new Finder(pairs(true), normalize);
  }

  /** The pieces of a text, in order; none is empty. */
  *split(text: string): Generator<Piece> {
    let isFirst = true;
    for (const section of this.#asGiven.split(text)) {
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

/** Finds some of the tokens. */
class Finder {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #pattern: RegExp | null;

  constructor(tokens: readonly AddedToken[], spelling: (content: string) => string) {
    for (const token of tokens) {
      const spelled = spelling(token.content);
      if (spelled !== "") this.#tokens.set(spelled, token);
    }
    // Alternatives are tried from left to right: the longest first.
    const longestFirst = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = longestFirst.length
      ? new RegExp(longestFirst.map((token) => RegExp.escape(token)).join("|"), "gu")
      : null;
  }

  /** Texts and ids in order. */
  *split(text: string): Generator<string | number> {
    let from = 0; // what comes before is given away
    for (const { 0: match, index } of this.#pattern ? text.matchAll(this.#pattern) : []) {
      const token = this.#tokens.get(match)!;
      let start = index;
      let end = index + match.length;
      if (token.singleWord && !standsAlone(text, start, end)) continue;
      if (token.lstrip) { while (start > from && SPACE.test(text[start - 1])) start--; }
      if (token.rstrip) { while (end < text.length && SPACE.test(text[end])) end++; }
      if (from < start) yield text.slice(from, start);
      yield token.id;
      from = end;
    }
    if (from < text.length) yield text.slice(from);
  }
}

/** Whether no letter, digit or underscore stands on either side. */
function standsAlone(text: string, start: number, end: number): boolean {
  const before = [...text.slice(Math.max(0, start - 2), start)].at(-1) ?? "";
  return !WORD.test(before) && !WORD.test(String.fromCodePoint(text.codePointAt(end) ?? 0));
}

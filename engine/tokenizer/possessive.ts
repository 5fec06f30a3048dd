/**
 * Possessive quantifiers and atomic groups of Oniguruma, for JavaScript, which has neither.
 *
 *     \s++$      →  (?:(?=(?<_0>\s+))\k<_0>)$
 *     (?>a|ab)c  →  (?:(?=(?<_0>a|ab))\k<_0>)c
 *
 * A lookahead is not re-entered after it has matched, so its capture never gives characters back.
 * `{2,3}+` is no possessive quantifier in Oniguruma's Ruby syntax and is left alone.
 *
 * @module
 */
import { Unread } from "./vocabulary.ts";

/** An escape: \p{…}, \x{…}, \x41, \u0041, \cA, \k<…>, or one character. */
const ESCAPE = /\\(?:[pPxu]\{[^}]*\}|x[\dA-Fa-f]{2}|u[\dA-Fa-f]{4}|c[A-Za-z]|k<[^>]*>|[^])/uy;

/** A group's beginning. */
const GROUP = /\((?:\?(?:<[=!]|<[A-Za-z_]\w*>|[:=!>]|[a-z]*(?:-[a-z]+)?[:)]))?/y;

const QUANTIFIER = /(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\})/y;

/** Quantified atoms that match nothing as well, up to the end of an alternative. */
const OPTIONAL_REST =
  /^(?:(?:\\p\{[^}]*\}|\\[^pPxuk]|\[(?:\\[^]|[^\]\\[])*\]|[^\\[\](){}*+?|^$])[*?]\+?)*(?:\||$)/i;

/**
 * Rewrites a pattern; one without possessive quantifiers and atomic groups stays as it is.
 * @throws {Unread} If it has numbered references, which further groups would shift.
 */
export function withoutPossessive(pattern: string): string {
  if (!/[*+?]\+|\(\?>/.test(pattern)) return pattern;
  const rewritten = new Rewriter(pattern).run();
  if (rewritten !== pattern && /\\[1-9]/.test(pattern)) {
    throw new Unread("a pattern with possessive quantifiers and numbered references");
  }
  return rewritten;
}

class Rewriter {
  #out = "";
  #at = 0;
  #count = 0;
  /** Start of the last atom in the output, or -1. */
  #atom = -1;
  /** Open groups: where each begins, and the name of an atomic one. */
  readonly #groups: { start: number; name: string | null }[] = [];

  constructor(readonly pattern: string) {}

  run(): string {
    while (this.#at < this.pattern.length) this.#step();
    return this.#out;
  }

  #step(): void {
    const letter = this.pattern[this.#at];
    if (letter === "(") return this.#open();
    if (letter === ")") return this.#close();
    const quantifier = this.#atom < 0 ? undefined : this.#match(QUANTIFIER);
    if (quantifier !== undefined) return this.#quantify(quantifier);
    this.#atom = letter === "|" ? -1 : this.#out.length;
    if (letter === "\\") this.#out += this.#match(ESCAPE) ?? this.#take(1);
    else if (letter === "[") this.#out += this.#take(this.#classLength());
    else this.#out += this.#take(String.fromCodePoint(this.pattern.codePointAt(this.#at)!).length);
  }

  #open(): void {
    const prefix = this.#match(GROUP)!;
    const isAtomic = prefix === "(?>";
    const name = isAtomic ? this.#newName() : null;
    this.#groups.push({ start: this.#out.length, name });
    this.#out += isAtomic ? `(?:(?=(?<${name}>` : prefix;
    this.#atom = -1;
    if (prefix.endsWith(")")) this.#groups.pop(); // (?i) has no end
  }

  #close(): void {
    this.#at++;
    const { start, name } = this.#groups.pop() ?? { start: -1, name: null };
    this.#out += name === null ? ")" : `))\\k<${name}>)`;
    this.#atom = start;
  }

  #quantify(quantifier: string): void {
    const isSimple = quantifier.length === 1;
    if (isSimple && this.pattern[this.#at] === "+") {
      this.#at++;
      // Where nothing after it can fail, it never gives back.
      const isLast = this.#groups.length === 0 && OPTIONAL_REST.test(this.pattern.slice(this.#at));
      const atom = this.#out.slice(this.#atom) + quantifier;
      const name = isLast ? "" : this.#newName();
      const wrapped = isLast ? atom : `(?:(?=(?<${name}>${atom}))\\k<${name}>)`;
      this.#out = this.#out.slice(0, this.#atom) + wrapped;
      return;
    }
    this.#out += quantifier;
    if (isSimple && this.pattern[this.#at] === "?") this.#out += this.#take(1); // lazy
  }

  /** No letters: the library writes those of a group without case as classes. */
  #newName(): string {
    return `_${this.#count++}`;
  }

  /** Length of a class, with classes within. */
  #classLength(): number {
    let depth = 0;
    for (let at = this.#at; at < this.pattern.length; at++) {
      const letter = this.pattern[at];
      if (letter === "\\") at++;
      else if (letter === "[") depth++;
      else if (letter === "]" && --depth === 0) return at + 1 - this.#at;
    }
    return this.pattern.length - this.#at;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.pattern)?.[0];
    if (match !== undefined) this.#at += match.length;
    return match;
  }

  #take(length: number): string {
    const taken = this.pattern.slice(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }
}

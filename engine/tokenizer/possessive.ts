/**
 * Possessive quantifiers and atomic groups of Oniguruma, rewritten as JavaScript lookaheads.
 *
 *     \s++$      →  (?:(?=(?<_0>\s+))\k<_0>)$
 *     (?>a|ab)c  →  (?:(?=(?<_0>a|ab))\k<_0>)c
 *
 * JavaScript never backtracks into a lookahead that has matched, so its capture keeps all its
 * characters. `{2,3}+` is not possessive in Oniguruma's Ruby syntax and stays unchanged.
 *
 * @module
 */
import { Unsupported } from "./vocabulary.ts";

/** An escape: \p{…}, \x{…}, \x41, \u0041, \cA, \k<…>, or any other single character. */
const ESCAPE = /\\(?:[pPxu]\{[^}]*\}|x[\dA-Fa-f]{2}|u[\dA-Fa-f]{4}|c[A-Za-z]|k<[^>]*>|[^])/uy;

/** The opening of a group. */
const GROUP = /\((?:\?(?:<[=!]|<[A-Za-z_]\w*>|[:=!>]|[a-z]*(?:-[a-z]+)?[:)]))?/y;

const QUANTIFIER = /(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\})/y;

/** A sequence of atoms with * or ?, which can match the empty string, up to `|` or the end. */
const OPTIONAL_REST =
  /^(?:(?:\\p\{[^}]*\}|\\[^pPxuk]|\[(?:\\[^]|[^\]\\[])*\]|[^\\[\](){}*+?|^$])[*?]\+?)*(?:\||$)/i;

/**
 * Rewrites a pattern. One without possessive quantifiers and atomic groups stays unchanged.
 * @throws {Unsupported} If it has numbered references, because added groups would shift them.
 */
export function withoutPossessive(pattern: string): string {
  if (!/[*+?]\+|\(\?>/.test(pattern)) return pattern;
  const rewritten = new Rewriter(pattern).run();
  if (rewritten !== pattern && /\\[1-9]/.test(pattern)) {
    throw new Unsupported("a pattern with possessive quantifiers and numbered references");
  }
  return rewritten;
}

class Rewriter {
  #out = "";
  #at = 0;
  #count = 0;
  /** Start of the last atom in the output; -1 without one. */
  #atom = -1;
  /** Open groups: start in the output, and the capture's name of an atomic one. */
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
    if (prefix.endsWith(")")) this.#groups.pop(); // (?i) is already closed
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
      // If the rest of the pattern cannot fail, the quantifier never backtracks anyway.
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

  /** A name without letters, which the library turns into classes in a case-insensitive group. */
  #newName(): string {
    return `_${this.#count++}`;
  }

  /** Length of a character class, nested classes included. */
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

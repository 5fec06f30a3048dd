/**
 * Jinja lexer: template text → tokens, as jinja2.lexer with trim_blocks and lstrip_blocks, the
 * options that transformers sets.
 *
 *     text {%- if a %}more {{ b }}
 *     →  data "text" · block_begin · name "if" · name "a" · block_end · data "more " · …
 *
 * trim_blocks drops the first newline after a block or a comment; lstrip_blocks drops the blanks
 * between the start of a line and a block or a comment; `-` strips all white space on its side, `+`
 * keeps it.
 *
 * @module
 */
import { TemplateError } from "./errors.ts";
import { SPACE, stripText } from "./text.ts";

/** A token's kind; an operator is a type of its own, such as "+" or "==". */
export interface Token {
  readonly type: string;
  /** Text of a name, of a string (unescaped) or of template data; a number as it is written. */
  readonly value: string;
  /** Counts from 1. */
  readonly line: number;
}

const OPERATORS = /\*\*|\/\/|==|!=|>=|<=|[-+*/%~[\](){}><=.:|,;]/y;
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const NAME = /[\p{L}\p{M}\p{N}_]+/uy;
const IDENTIFIER = /^[\p{XIDS}_]\p{XIDC}*$/u;
const STRING = /'[^'\\]*(?:\\[^][^'\\]*)*'|"[^"\\]*(?:\\[^][^"\\]*)*"/y;
const BLANKS = new RegExp(`${SPACE}+`, "y");

/** Ends of the three kinds of tags; the newline and the white space after them belong to them. */
const ENDS = {
  block: new RegExp(`\\+%\\}|-%\\}${SPACE}*|%\\}\\n?`, "y"),
  variable: new RegExp(`-\\}\\}${SPACE}*|\\}\\}`, "y"),
  comment: new RegExp(`\\+#\\}|-#\\}${SPACE}*|#\\}\\n?`, "g"),
};

/** Starts of tags: raw is looked for first. The group of the sign is the last one that matched. */
const START = new RegExp(
  `\\{%([-+]?)${SPACE}*raw${SPACE}*(?:-%\\}${SPACE}*|%\\})|\\{([#%{])([-+]?)`,
  "g",
);
const RAW_END = new RegExp(
  `\\{%([-+]?)${SPACE}*endraw${SPACE}*(?:\\+%\\}|-%\\}${SPACE}*|%\\}\\n?)`,
  "g",
);

const CLOSING: Readonly<Record<string, string>> = { "{": "}", "(": ")", "[": "]" };

/**
 * Cuts a template into tokens.
 * @throws {TemplateError} If a tag, a string or a bracket is not closed.
 */
export function tokenize(template: string): Token[] {
  return new Lexer(template).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  /** Lines up to here are counted in #line. */
  #counted = 0;
  #startsLine = true;

  constructor(template: string) {
    // A newline at the very end is dropped.
    this.#source = template.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  }

  run(): Token[] {
    const source = this.#source;
    while (this.#at < source.length) {
      START.lastIndex = this.#at;
      const start = START.exec(source);
      if (!start) {
        this.#push("data", source.slice(this.#at));
        break;
      }
      const [tag, rawSign, kind, sign] = start;
      this.#data(source.slice(this.#at, start.index), rawSign ?? sign, kind === "{");
      this.#advance(start.index + tag.length);
      if (kind === undefined) this.#raw();
      else if (kind === "#") this.#comment();
      else this.#tag(kind === "%" ? "block" : "variable");
    }
    return this.#tokens;
  }

  #push(type: string, value: string): void {
    for (; this.#counted < this.#at; this.#counted++) {
      if (this.#source[this.#counted] === "\n") this.#line++;
    }
    this.#tokens.push({ type, value, line: this.#line });
  }

  #advance(to: number): void {
    this.#at = to;
    this.#startsLine = this.#source[to - 1] === "\n";
  }

  /** Text before a tag. */
  #data(text: string, sign: string, isVariable: boolean): void {
    let kept = text;
    if (sign === "-") kept = stripText(text, "right");
    else if (sign !== "+" && !isVariable) {
      const lineStart = text.lastIndexOf("\n") + 1;
      const blanks = text.slice(lineStart);
      const isBlank = blanks !== "" && stripText(blanks, "both") === "";
      if ((lineStart > 0 || this.#startsLine) && isBlank) kept = text.slice(0, lineStart);
    }
    if (kept !== "") this.#push("data", kept);
  }

  #comment(): void {
    ENDS.comment.lastIndex = this.#at;
    if (!ENDS.comment.test(this.#source)) this.#fail("a comment is not closed");
    this.#advance(ENDS.comment.lastIndex);
  }

  #raw(): void {
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.#source);
    if (!end) return this.#fail("a raw block is not closed");
    this.#data(this.#source.slice(this.#at, end.index), end[1], false);
    this.#advance(RAW_END.lastIndex);
  }

  /** Everything between the ends of a tag. */
  #tag(kind: "block" | "variable"): void {
    this.#push(`${kind}_begin`, "");
    const open: string[] = [];
    for (;;) {
      // Within brackets `}}` and `%}` are operators.
      if (open.length === 0 && this.#match(ENDS[kind]) !== undefined) break;
      if (this.#match(BLANKS) !== undefined) continue;
      const token = this.#token();
      if (Object.hasOwn(CLOSING, token)) open.push(CLOSING[token]);
      else if (/^[})\]]$/.test(token) && open.pop() !== token) this.#fail(`unexpected "${token}"`);
    }
    this.#push(`${kind}_end`, "");
  }

  /** One token of an expression; gives an operator's text, and "" for others. */
  #token(): string {
    let text: string | undefined;
    if ((text = this.#match(FLOAT)) !== undefined) this.#push("float", text.replaceAll("_", ""));
    else if ((text = this.#match(INTEGER)) !== undefined) {
      this.#push("integer", text.replaceAll("_", ""));
    } else if ((text = this.#match(NAME)) !== undefined) {
      if (!IDENTIFIER.test(text)) this.#fail("invalid character in an identifier");
      this.#push("name", text);
    } else if ((text = this.#match(STRING)) !== undefined) {
      this.#push("string", unescape(text.slice(1, -1), (why) => this.#fail(why)));
    } else if ((text = this.#match(OPERATORS)) !== undefined) {
      this.#push(text, text);
      return text;
    } else {
      const next = this.#source[this.#at];
      this.#fail(
        next === undefined ? "unexpected end of template" : `unexpected ${JSON.stringify(next)}`,
      );
    }
    return "";
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source)?.[0];
    if (match !== undefined) this.#advance(this.#at + match.length);
    return match;
  }

  #fail(why: string): never {
    this.#push("eof", "");
    throw new TemplateError(`${why} (line ${this.#line})`);
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: "\n",
  t: "\t",
  r: "\r",
  a: "\x07",
  b: "\b",
  f: "\f",
  v: "\v",
  "\\": "\\",
  "'": "'",
  '"': '"',
  "\n": "",
};

/** A string's text, by the escapes of Python; one that is not known stays as it is written. */
function unescape(text: string, fail: (why: string) => never): string {
  const escape = /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([^]))/g;
  return text.replace(escape, (written, octal, x, u, U, letter) => {
    if (octal !== undefined) return String.fromCharCode(parseInt(octal, 8));
    const hex = x ?? u ?? U;
    if (hex !== undefined) {
      const code = parseInt(hex, 16);
      return code > 0x10ffff ? fail("illegal Unicode character") : String.fromCodePoint(code);
    }
    if ("xuUN".includes(letter)) fail(`an escape ${JSON.stringify(written)} that is not complete`);
    return ESCAPES[letter] ?? written;
  });
}

/**
 * Parser of the WGSL that the engine generates: functions, `let`, `var`, assignments, `if`, `for`.
 *
 * @module
 */

/** An expression; `at` is the token that names an array access or a call. */
export type Expr =
  | { readonly kind: "integer"; readonly value: number }
  | { readonly kind: "float" }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expr[]; at: number }
  | { readonly kind: "index"; readonly of: Expr; readonly index: Expr; readonly at: number }
  | { readonly kind: "member"; readonly of: Expr; readonly name: string }
  | { readonly kind: "unary"; readonly op: string; readonly of: Expr }
  | { readonly kind: "binary"; readonly op: string; readonly left: Expr; readonly right: Expr };

export type Statement =
  | { readonly kind: "declare"; readonly name: string; readonly value?: Expr }
  | { readonly kind: "assign"; readonly to: Expr; readonly op: string; readonly value: Expr }
  | { readonly kind: "call"; readonly call: Expr }
  | {
    readonly kind: "if";
    readonly condition: Expr;
    readonly then: readonly Statement[];
    readonly otherwise: readonly Statement[];
  }
  | {
    readonly kind: "for";
    readonly before?: Statement;
    readonly condition?: Expr;
    readonly after?: Statement;
    readonly body: readonly Statement[];
  }
  | { readonly kind: "block"; readonly body: readonly Statement[] }
  | { readonly kind: "leave"; readonly how: "break" | "continue" }
  | { readonly kind: "return"; readonly value?: Expr };

export interface WgslFunction {
  readonly parameters: readonly string[];
  readonly body: readonly Statement[];
}

/** A binding, an array of a struct that is one (by "name.member"), or one in workgroup memory. */
export interface WgslArray {
  readonly space: "storage" | "workgroup";
  /** Bytes of an element; 0 for a struct. */
  readonly bytes: number;
}

/** A shader. */
export interface WgslModule {
  readonly functions: ReadonlyMap<string, WgslFunction>;
  readonly constants: ReadonlyMap<string, Expr>;
  readonly arrays: ReadonlyMap<string, WgslArray>;
  /** Lanes of a workgroup. */
  readonly lanes: number;
}

/** Binary operators, loosest first. */
const LEVELS = [
  ["||"],
  ["&&"],
  ["|"],
  ["^"],
  ["&"],
  ["==", "!="],
  ["<", ">", "<=", ">="],
  ["<<", ">>"],
  ["+", "-"],
  ["*", "/", "%"],
] as const;

/** Names that take a template in angle brackets. */
const TEMPLATED = /^(vec[234]|array|bitcast|atomic|ptr|mat\dx\d)$/;

const BYTES: Readonly<Record<string, number>> = { f32: 4, u32: 4, i32: 4, f16: 2 };

function bytesOfType(type: string): number {
  const inner = /^(?:array|atomic)<([^,]+)/.exec(type)?.[1] ?? type;
  const [, count, letter] = /^vec([234])([fuih])?/.exec(inner) ?? [];
  if (count) return (letter === "h" ? 2 : 4) * (count === "3" ? 4 : Number(count));
  return BYTES[inner.replace(/^atomic<|>$/g, "")] ?? 0;
}

/**
 * Parses a shader.
 * @throws {SyntaxError} If it uses what the engine does not generate.
 */
export function parseWgsl(text: string): WgslModule {
  return new Parser(text).module();
}

class Parser {
  readonly #tokens: string[];
  #at = 0;

  constructor(text: string) {
    const plain = text.replace(/\/\/[^\n]*/g, "").replace(/^enable [^;]*;/gm, "");
    this.#tokens = plain.match(
      /0x[\da-f]+(?:p[+-]?\d+f?|[ui])?|(?:\d+\.\d*|\.\d+|\d+)(?:e[+-]?\d+)?[uifh]?|\w+|->|\+\+|--|<<|>>|&&|\|\||[-+*/%&|^<>=!]=|\S/gi,
    ) ?? [];
  }

  module(): WgslModule {
    const functions = new Map<string, WgslFunction>();
    const constants = new Map<string, Expr>();
    const arrays = new Map<string, WgslArray>();
    const structs = new Map<string, ReadonlyMap<string, string>>();
    let lanes = 0;
    while (this.#at < this.#tokens.length) {
      const token = this.#next();
      if (token === "@") {
        const name = this.#next();
        const start = this.#at;
        if (this.#peek() === "(") this.#skip("(", ")");
        if (name === "workgroup_size") lanes = Number(this.#tokens[start + 1]);
      } else if (token === "struct") {
        structs.set(this.#next(), this.#members());
      } else if (token === "const") {
        const declared = this.#declaration();
        constants.set(declared.name, declared.value!);
      } else if (token === "var") {
        const space = this.#template().startsWith("storage") ? "storage" : "workgroup";
        const name = this.#next();
        this.#expect(":");
        const type = this.#type();
        arrays.set(name, { space, bytes: bytesOfType(type) });
        for (const [member, of] of structs.get(type) ?? []) {
          if (!of.startsWith("array")) continue;
          arrays.set(`${name}.${member}`, { space, bytes: bytesOfType(of) });
        }
        this.#expect(";");
      } else if (token === "fn") {
        functions.set(this.#next(), this.#function());
      } else if (token !== ";") throw this.#unknown(token);
    }
    return { functions, constants, arrays, lanes };
  }

  /** Types of a struct's members. */
  #members(): Map<string, string> {
    const members = new Map<string, string>();
    this.#expect("{");
    while (!this.#take("}")) {
      const name = this.#next();
      this.#expect(":");
      members.set(name, this.#type());
      this.#take(",");
    }
    return members;
  }

  #function(): WgslFunction {
    const parameters: string[] = [];
    this.#expect("(");
    while (this.#peek() !== ")") {
      while (this.#take("@")) {
        this.#next();
        if (this.#peek() === "(") this.#skip("(", ")");
      }
      parameters.push(this.#next());
      this.#expect(":");
      this.#type();
      this.#take(",");
    }
    this.#expect(")");
    if (this.#take("->")) this.#type();
    return { parameters, body: this.#block() };
  }

  #block(): Statement[] {
    const body: Statement[] = [];
    this.#expect("{");
    while (!this.#take("}")) if (!this.#take(";")) body.push(this.#statement());
    return body;
  }

  #statement(): Statement {
    switch (this.#peek()) {
      case "{":
        return { kind: "block", body: this.#block() };
      case "let":
      case "var":
      case "const":
        this.#next();
        return this.#declaration();
      case "if":
        return this.#if();
      case "for":
        return this.#for();
      case "while": {
        this.#next();
        const condition = this.#expression();
        return { kind: "for", condition, body: this.#block() };
      }
      case "loop":
        this.#next();
        return { kind: "for", body: this.#block() };
      case "return": {
        this.#next();
        return { kind: "return", value: this.#peek() === ";" ? undefined : this.#expression() };
      }
      case "break":
      case "continue":
        return { kind: "leave", how: this.#next() as "break" | "continue" };
      default:
        return this.#simple();
    }
  }

  #declaration(): Statement & { kind: "declare" } {
    if (this.#peek() === "<") this.#template();
    const name = this.#next();
    if (this.#take(":")) this.#type();
    return { kind: "declare", name, value: this.#take("=") ? this.#expression() : undefined };
  }

  #if(): Statement {
    this.#expect("if");
    const condition = this.#expression();
    const then = this.#block();
    if (!this.#take("else")) return { kind: "if", condition, then, otherwise: [] };
    return {
      kind: "if",
      condition,
      then,
      otherwise: this.#peek() === "if" ? [this.#if()] : this.#block(),
    };
  }

  #for(): Statement {
    this.#expect("for");
    this.#expect("(");
    const before = this.#peek() === ";" ? undefined : this.#statement();
    this.#expect(";");
    const condition = this.#peek() === ";" ? undefined : this.#expression();
    this.#expect(";");
    const after = this.#peek() === ")" ? undefined : this.#statement();
    this.#expect(")");
    return { kind: "for", before, condition, after, body: this.#block() };
  }

  /** An assignment, an increment or a call. */
  #simple(): Statement {
    const to = this.#unary();
    if (to.kind === "call" && [";", ")"].includes(this.#peek())) return { kind: "call", call: to };
    const op = this.#next();
    if (op === "++" || op === "--") {
      return { kind: "assign", to, op: op[0], value: { kind: "integer", value: 1 } };
    }
    if (!/^[-+*/%&|^]?=$/.test(op)) throw this.#unknown(op);
    return { kind: "assign", to, op: op.slice(0, -1), value: this.#expression() };
  }

  #expression(level = 0): Expr {
    if (level === LEVELS.length) return this.#unary();
    let left = this.#expression(level + 1);
    while ((LEVELS[level] as readonly string[]).includes(this.#peek())) {
      const op = this.#next();
      left = { kind: "binary", op, left, right: this.#expression(level + 1) };
    }
    return left;
  }

  #unary(): Expr {
    if (["-", "!", "~", "&", "*"].includes(this.#peek())) {
      const op = this.#next();
      return { kind: "unary", op, of: this.#unary() };
    }
    let value = this.#primary();
    for (;;) {
      const at = this.#at;
      if (this.#take(".")) value = { kind: "member", of: value, name: this.#next() };
      else if (this.#take("[")) {
        value = { kind: "index", of: value, index: this.#expression(), at };
        this.#expect("]");
      } else return value;
    }
  }

  #primary(): Expr {
    const at = this.#at;
    const token = this.#next();
    if (token === "(") {
      const inner = this.#expression();
      this.#expect(")");
      return inner;
    }
    if (/^\d|^\./.test(token)) {
      const isInteger = /^(0x[\da-f]+|\d+)[ui]?$/i.test(token);
      return isInteger
        ? { kind: "integer", value: Number(token.replace(/[ui]$/, "")) }
        : { kind: "float" };
    }
    if (TEMPLATED.test(token) && this.#peek() === "<") this.#template();
    if (this.#take("(")) {
      const args: Expr[] = [];
      while (!this.#take(")")) {
        args.push(this.#expression());
        this.#take(",");
      }
      return { kind: "call", name: token, args, at };
    }
    return { kind: "name", name: token };
  }

  #type(): string {
    const name = this.#next();
    return this.#peek() === "<" ? `${name}<${this.#template()}>` : name;
  }

  /** Text between angle brackets; `>>` closes two. */
  #template(): string {
    let [depth, text] = [0, ""];
    do {
      const token = this.#next();
      for (const char of token === ">>" ? [">", ">"] : [token]) {
        if (char === "<") depth++;
        if (char === ">") depth--;
        text += char;
      }
    } while (depth > 0);
    return text.slice(1, -1);
  }

  #skip(open: string, close: string): void {
    let depth = 0;
    do {
      const token = this.#next();
      if (token === open) depth++;
      if (token === close) depth--;
    } while (depth > 0);
  }

  #peek(): string {
    return this.#tokens[this.#at] ?? "";
  }

  #next(): string {
    return this.#tokens[this.#at++] ?? "";
  }

  #take(token: string): boolean {
    if (this.#peek() !== token) return false;
    this.#at++;
    return true;
  }

  #expect(token: string): void {
    const got = this.#next();
    if (got !== token) throw this.#unknown(got, token);
  }

  #unknown(token: string, expected = "a declaration or statement"): SyntaxError {
    const near = this.#tokens.slice(Math.max(0, this.#at - 12), this.#at + 3).join(" ");
    return new SyntaxError(`Cannot parse WGSL: expected ${expected}, got "${token}" in: ${near}`);
  }
}

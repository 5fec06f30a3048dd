/**
 * Parser of expressions, as jinja2.parser: the same precedence, so that `-1 | abs` is `-(1 | abs)`
 * and `a ~ b * c` is `a ~ (b * c)`.
 *
 * @module
 */
import { TemplateError } from "./errors.ts";
import type { Token } from "./lexer.ts";
import type { Arguments, Expression, FilterNode, Target } from "./nodes.ts";
import { parseInteger } from "./numbers.ts";

const CONSTANTS: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};

const COMPARISONS = new Set(["==", "!=", "<", "<=", ">", ">="]);

/** First tokens of a test's argument without parentheses: `x is divisibleby 3`. */
const ARGUMENT_STARTS = new Set(["name", "string", "integer", "float", "[", "{"]);

/** Reads expressions from tokens. */
export class ExpressionParser {
  #at = 0;

  constructor(readonly tokens: readonly Token[]) {}

  protected get current(): Token {
    return this.look(0);
  }

  protected look(ahead: number): Token {
    const line = this.tokens.at(-1)?.line ?? 1;
    return this.tokens[this.#at + ahead] ?? { type: "eof", value: "", line };
  }

  protected next(): Token {
    const token = this.current;
    this.#at++;
    return token;
  }

  /** Whether the current token is of a type, or a name that reads so. */
  protected is(type: string, name?: string): boolean {
    return this.current.type === type && (name === undefined || this.current.value === name);
  }

  protected skip(type: string, name?: string): boolean {
    const found = this.is(type, name);
    if (found) this.next();
    return found;
  }

  protected expect(type: string, name?: string): Token {
    if (!this.is(type, name)) this.fail(`expected ${describe({ type, value: name ?? "" })}`);
    return this.next();
  }

  protected fail(expected: string): never {
    const { line } = this.current;
    throw new TemplateError(`${expected}, got ${describe(this.current)} (line ${line})`);
  }

  protected expression(hasCondition = true): Expression {
    return hasCondition ? this.#conditional() : this.#or();
  }

  /** Expressions with commas between are a tuple. */
  protected tuple(
    isEnd: () => boolean = () => false,
    { hasCondition = true, isParenthesized = false } = {},
  ): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (this.is("variable_end") || this.is("block_end") || this.is(")") || isEnd()) break;
      items.push(this.expression(hasCondition));
      if (!this.skip(",")) break;
      isTuple = true;
    }
    if (!isTuple && items.length === 1) return items[0];
    if (items.length === 0 && !isParenthesized) this.fail("expected an expression");
    return { type: "Tuple", items };
  }

  /** A name, names with commas between, or `namespace.attribute`. */
  protected target(isEnd: () => boolean = () => false, withNamespace = false): Target {
    const items: Target[] = [];
    let isTuple = false;
    for (;;) {
      if (this.is("block_end") || this.is(")") || isEnd()) break;
      items.push(this.#oneTarget(withNamespace));
      if (!this.skip(",")) break;
      isTuple = true;
    }
    if (!isTuple && items.length === 1) return items[0];
    if (items.length === 0) this.fail("expected a name");
    return { type: "Tuple", items };
  }

  #oneTarget(withNamespace: boolean): Target {
    if (this.skip("(")) {
      const target = this.target(undefined, withNamespace);
      this.expect(")");
      return target;
    }
    const name = this.name();
    if (withNamespace && this.skip(".")) {
      return { type: "NamespaceTarget", name, attribute: this.expect("name").value };
    }
    return { type: "Name", name };
  }

  /** A name that can be assigned to. */
  protected name(): string {
    const { value } = this.expect("name");
    if (Object.hasOwn(CONSTANTS, value)) this.fail(`can't assign to ${value}`);
    return value;
  }

  #conditional(): Expression {
    let then = this.#or();
    while (this.skip("name", "if")) {
      const test = this.#or();
      const otherwise = this.skip("name", "else") ? this.#conditional() : null;
      then = { type: "Conditional", test, then, otherwise };
    }
    return then;
  }

  #or(): Expression {
    let left = this.#and();
    while (this.skip("name", "or")) left = { type: "Or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.skip("name", "and")) left = { type: "And", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    return this.skip("name", "not") ? { type: "Not", node: this.#not() } : this.#compare();
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: { operator: string; node: Expression }[] = [];
    for (let operator; (operator = this.#comparison()) !== undefined;) {
      rest.push({ operator, node: this.#sum() });
    }
    return rest.length === 0 ? first : { type: "Compare", first, rest };
  }

  #comparison(): string | undefined {
    if (COMPARISONS.has(this.current.type)) return this.next().type;
    if (this.skip("name", "in")) return "in";
    const after = this.look(1);
    if (!this.is("name", "not") || after.type !== "name" || after.value !== "in") return undefined;
    this.next();
    this.next();
    return "not in";
  }

  #sum(): Expression {
    return this.#binary(["+", "-"], () => this.#concat());
  }

  #concat(): Expression {
    const items = [this.#product()];
    while (this.skip("~")) items.push(this.#product());
    return items.length === 1 ? items[0] : { type: "Concat", items };
  }

  #product(): Expression {
    return this.#binary(["*", "/", "//", "%"], () => this.#power());
  }

  #power(): Expression {
    return this.#binary(["**"], () => this.#unary());
  }

  #binary(operators: readonly string[], operand: () => Expression): Expression {
    let left = operand();
    while (operators.includes(this.current.type)) {
      const operator = this.next().type;
      left = { type: "Binary", operator, left, right: operand() };
    }
    return left;
  }

  #unary(withFilter = true): Expression {
    const { type } = this.current;
    let node: Expression;
    if (type === "-" || type === "+") {
      this.next();
      node = { type: "Unary", operator: type, node: this.#unary(false) };
    } else node = this.#primary();
    node = this.#postfix(node);
    return withFilter ? this.#filters(node) : node;
  }

  #primary(): Expression {
    const { type, value } = this.current;
    switch (type) {
      case "name":
        this.next();
        return Object.hasOwn(CONSTANTS, value)
          ? { type: "Const", value: CONSTANTS[value] }
          : { type: "Name", name: value };
      case "string": {
        let text = "";
        while (this.is("string")) text += this.next().value;
        return { type: "Const", value: text };
      }
      case "integer":
      case "float":
        this.next();
        return {
          type: "Const",
          value: type === "float" ? Number(value) : parseInteger(value, 0) ?? BigInt(value),
        };
      case "(": {
        this.next();
        const node = this.tuple(undefined, { isParenthesized: true });
        this.expect(")");
        return node;
      }
      case "[":
        return { type: "List", items: this.#items("]", () => this.expression()) };
      case "{":
        return {
          type: "Dict",
          pairs: this.#items("}", () => {
            const key = this.expression();
            this.expect(":");
            return { key, value: this.expression() };
          }),
        };
    }
    return this.fail("expected an expression");
  }

  /** Items in brackets, with commas between and maybe one after. */
  #items<T>(close: string, item: () => T): T[] {
    this.next();
    const items: T[] = [];
    while (!this.is(close)) {
      if (items.length > 0) {
        this.expect(",");
        if (this.is(close)) break;
      }
      items.push(item());
    }
    this.expect(close);
    return items;
  }

  #postfix(from: Expression): Expression {
    let node = from;
    for (;;) {
      if (this.is(".")) node = this.#attribute(node);
      else if (this.is("[")) node = this.#subscript(node);
      else if (this.is("(")) node = { type: "Call", callee: node, ...this.callArguments() };
      else return node;
    }
  }

  #attribute(node: Expression): Expression {
    this.next();
    if (this.is("name")) return { type: "Attribute", node, name: this.next().value };
    const key = this.expect("integer").value;
    return { type: "Item", node, key: { type: "Const", value: BigInt(key) } };
  }

  #subscript(node: Expression): Expression {
    const keys = this.#items("]", () => this.#key());
    const [key] = keys;
    if (keys.length === 1 && "bounds" in key) return { type: "Slice", node, bounds: key.bounds };
    const items = keys.map((one) =>
      "bounds" in one ? this.fail("expected one slice alone") : one.node
    );
    return {
      type: "Item",
      node,
      key: items.length === 1 ? items[0] : { type: "Tuple", items },
    };
  }

  /** A key or a slice within brackets. */
  #key(): { node: Expression } | { bounds: (Expression | null)[] } {
    const isOpen = () => this.is(":") || this.is("]") || this.is(",");
    const first = this.is(":") ? null : this.expression();
    if (!this.skip(":")) return { node: first! };
    const second = isOpen() ? null : this.expression();
    const third = !this.skip(":") || isOpen() ? null : this.expression();
    return { bounds: [first, second, third] };
  }

  #filters(from: Expression): Expression {
    let node = from;
    for (;;) {
      if (this.skip("|")) node = this.filter(node);
      else if (this.skip("name", "is")) node = this.#test(node);
      else if (this.is("(")) node = { type: "Call", callee: node, ...this.callArguments() };
      else return node;
    }
  }

  /** A filter's name and arguments, and the filters after it. */
  protected filter<Node extends Expression | null>(node: Node): FilterNode {
    const filter: FilterNode = {
      type: "Filter",
      node,
      name: this.#dottedName(),
      ...this.#maybeCall(),
    };
    return this.skip("|") ? this.filter(filter) : filter;
  }

  #dottedName(): string {
    let name = this.expect("name").value;
    while (this.skip(".")) name += `.${this.expect("name").value}`;
    return name;
  }

  #maybeCall(): Arguments {
    return this.is("(") ? this.callArguments() : NO_CALL;
  }

  #test(node: Expression): Expression {
    const isNegated = this.skip("name", "not");
    const name = this.#dottedName();
    let given = this.#maybeCall();
    const isWord = this.is("name", "else") || this.is("name", "or") || this.is("name", "and");
    if (given === NO_CALL && ARGUMENT_STARTS.has(this.current.type) && !isWord) {
      if (this.is("name", "is")) this.fail("expected one test, not a chain of them");
      given = { ...NO_CALL, args: [this.#postfix(this.#primary())] };
    }
    const test: Expression = { type: "Test", node, name, ...given };
    return isNegated ? { type: "Not", node: test } : test;
  }

  protected callArguments(): Arguments {
    this.expect("(");
    const args: Expression[] = [];
    const kwargs: { key: string; value: Expression }[] = [];
    let [rest, named]: (Expression | null)[] = [null, null];
    const ensure = (isRight: boolean) => isRight || this.fail("invalid syntax of a call");
    for (let isFirst = true; !this.is(")"); isFirst = false) {
      if (!isFirst) {
        this.expect(",");
        if (this.is(")")) break;
      }
      if (this.skip("*")) {
        ensure(rest === null && named === null);
        rest = this.expression();
      } else if (this.skip("**")) {
        ensure(named === null);
        named = this.expression();
      } else if (this.is("name") && this.look(1).type === "=") {
        ensure(named === null);
        const key = this.next().value;
        this.next();
        kwargs.push({ key, value: this.expression() });
      } else {
        ensure(rest === null && named === null && kwargs.length === 0);
        args.push(this.expression());
      }
    }
    this.expect(")");
    return { args, kwargs, rest, named };
  }
}

const NO_CALL: Arguments = { args: [], kwargs: [], rest: null, named: null };

const KINDS: Readonly<Record<string, string>> = {
  eof: "the end of the template",
  data: "text",
  block_begin: "{%",
  block_end: "%}",
  variable_begin: "{{",
  variable_end: "}}",
};

function describe({ type, value }: Pick<Token, "type" | "value">): string {
  return KINDS[type] ?? JSON.stringify(value === "" ? type : value.slice(0, 40));
}

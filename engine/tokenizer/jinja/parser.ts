/**
 * Parser of statements, as jinja2.parser with the tags of transformers: break, continue and
 * generation.
 *
 * @module
 */
import { ExpressionParser } from "./expressions.ts";
import { tokenize } from "./lexer.ts";
import type {
  Body,
  CallNode,
  Expression,
  FilterNode,
  Signature,
  Statement,
  Target,
} from "./nodes.ts";

/** Parses a template. @throws {TemplateError} If its syntax is wrong. */
export function parse(template: string): Body {
  return new Parser(tokenize(template)).template();
}

class Parser extends ExpressionParser {
  template(): Body {
    const body = this.#body([]);
    if (!this.is("eof")) this.fail("expected the end of the template");
    return body;
  }

  /** Statements up to a tag of one of these names, which is left for the caller. */
  #body(ends: readonly string[]): Body {
    const body: Statement[] = [];
    for (;;) {
      const { type, value } = this.current;
      if (type === "eof") {
        if (ends.length > 0) this.fail(`expected ${ends.join(" or ")}`);
        return body;
      }
      this.next();
      if (type === "data") body.push({ type: "Data", text: value });
      else if (type === "variable_begin") {
        body.push({ type: "Output", node: this.tuple() });
        this.expect("variable_end");
      } else {
        if (this.is("name") && ends.includes(this.current.value)) return body;
        body.push(...this.#statement());
        this.expect("block_end");
      }
    }
  }

  /** The body of a tag, after its head; the tag that ends it is taken as well. */
  #block(...ends: string[]): Body {
    this.skip(":");
    this.expect("block_end");
    const body = this.#body(ends);
    if (ends.length === 1) this.next();
    return body;
  }

  #statement(): Statement[] {
    const { value } = this.expect("name");
    switch (value) {
      case "for":
        return [this.#for()];
      case "if":
        return [this.#if()];
      case "set":
        return [this.#set()];
      case "with":
        return [this.#with()];
      case "macro": {
        const name = this.name();
        return [{ type: "Macro", name, ...this.#signature(), body: this.#block("endmacro") }];
      }
      case "call":
        return [this.#call()];
      case "generation":
        return [{
          type: "CallBlock",
          call: null,
          parameters: [],
          defaults: [],
          body: this.#block("endgeneration"),
        }];
      case "filter": {
        const filter = this.filter(null);
        return [{ type: "FilterBlock", filter, body: this.#block("endfilter") }];
      }
      case "print":
        return this.#print();
      case "block": {
        const name = this.expect("name").value;
        const isScoped = this.skip("name", "scoped");
        if (this.is("name", "required")) this.fail("expected a block that is not required");
        const body = this.#block("endblock");
        this.skip("name", name);
        return [{ type: "Block", name, isScoped, body }];
      }
      case "break":
        return [{ type: "Break" }];
      case "continue":
        return [{ type: "Continue" }];
    }
    return this.fail(`unknown statement ${JSON.stringify(value.slice(0, 40))}`);
  }

  #for(): Statement {
    const isIn = () => this.is("name", "in");
    const target = this.target(isIn);
    this.expect("name", "in");
    const items = this.tuple(() => this.is("name", "recursive"), { hasCondition: false });
    const test = this.skip("name", "if") ? this.expression() : null;
    const isRecursive = this.skip("name", "recursive");
    const body = this.#block("endfor", "else");
    const otherwise = this.next().value === "else" ? this.#block("endfor") : [];
    return { type: "For", target, items, test, isRecursive, body, otherwise };
  }

  #if(): Statement {
    const branches: { test: Expression; body: Body }[] = [];
    let end: string;
    do {
      const test = this.tuple(undefined, { hasCondition: false });
      branches.push({ test, body: this.#block("elif", "else", "endif") });
      end = this.next().value;
    } while (end === "elif");
    return { type: "If", branches, otherwise: end === "else" ? this.#block("endif") : [] };
  }

  #set(): Statement {
    const target = this.target(() => this.is("="), true);
    if (this.skip("=")) return { type: "Set", target, value: this.tuple() };
    const filter: FilterNode | null = this.skip("|") ? this.filter(null) : null;
    return { type: "SetBlock", target, filter, body: this.#block("endset") };
  }

  #with(): Statement {
    const pairs: { target: Target; value: Expression }[] = [];
    while (!this.is("block_end")) {
      if (pairs.length > 0) this.expect(",");
      const target = this.target(() => this.is("="));
      this.expect("=");
      pairs.push({ target, value: this.expression() });
    }
    return { type: "With", pairs, body: this.#block("endwith") };
  }

  #signature(): Signature {
    this.expect("(");
    const parameters: string[] = [];
    const defaults: Expression[] = [];
    while (!this.is(")")) {
      if (parameters.length > 0) this.expect(",");
      parameters.push(this.name());
      if (this.skip("=")) defaults.push(this.expression());
      else if (defaults.length > 0) {
        this.fail("expected a default, as the parameter before has one");
      }
    }
    this.expect(")");
    return { parameters, defaults };
  }

  #call(): Statement {
    const signature = this.is("(") ? this.#signature() : { parameters: [], defaults: [] };
    const call = this.expression();
    if (call.type !== "Call") this.fail("expected a call");
    return {
      type: "CallBlock",
      call: call as CallNode,
      ...signature,
      body: this.#block("endcall"),
    };
  }

  #print(): Statement[] {
    const printed: Statement[] = [];
    while (!this.is("block_end")) {
      if (printed.length > 0) this.expect(",");
      printed.push({ type: "Output", node: this.expression() });
    }
    return printed;
  }
}

/**
 * Jinja template engine: renders as jinja2 in the sandbox of transformers' chat templates.
 *
 *     text ─lexer─▶ tokens ─parser─▶ syntax tree ─execute, evaluate─▶ closures ─run─▶ text
 *
 * Not supported: loading other templates (extends, include, import), autoescape, and randomness
 * (random, lipsum).
 *
 * @module
 */
import { compileTemplate } from "./execute.ts";
import { globals } from "./globals.ts";
import { parse } from "./parser.ts";
import { Budget, Context, Frame, Output } from "./runtime.ts";
import type { Value } from "./values.ts";

export { RaisedByTemplate, TemplateError } from "./errors.ts";

/** A compiled template. */
export interface Template {
  /**
   * Renders the template.
   * @param variables values by name.
   * @param size total length of the variables in UTF-16 units; adds to the limit of steps.
   * @param now formats the current time, for `strftime_now`.
   * @throws {TemplateError} If the template fails or rejects its variables.
   */
  render(
    variables: ReadonlyMap<string, Value>,
    size: number,
    now: (format: string) => string,
  ): string;
}

/** Compiles a template. @throws {TemplateError} If its syntax is wrong. */
export function compile(template: string): Template {
  const run = compileTemplate(parse(template));
  return {
    render(variables, size, now) {
      const context = new Context(new Map([...globals(now), ...variables]), new Budget(size));
      const output = new Output();
      run(new Frame(context), output);
      return output.text;
    },
  };
}

/**
 * Jinja templates, as jinja2 renders them in the sandbox that transformers sets up for chat
 * templates.
 *
 *     text ─lexer─▶ tokens ─parser─▶ syntax tree ─execute, evaluate─▶ closures ─run─▶ text
 *
 * Left out: templates that load others (extends, include, import), autoescape, and what draws at
 * random (random, lipsum).
 *
 * @module
 */
import { compileTemplate } from "./execute.ts";
import { globals } from "./globals.ts";
import { parse } from "./parser.ts";
import { Budget, Context, Frame, Output } from "./runtime.ts";
import type { Value } from "./values.ts";

export { RaisedByTemplate, TemplateError } from "./errors.ts";

/** A template that was compiled. */
export interface Template {
  /**
   * Renders it.
   * @param size characters of the variables; they bound the steps that the template has.
   * @param now writes the time in a format, for `strftime_now`.
   * @throws {TemplateError} If it refuses its variables or fails.
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

/**
 * Errors of a template.
 *
 * @module
 */

/** A syntax error, or an operation that Python or the sandbox refuses. */
export class TemplateError extends Error {}

/** A template's own `raise_exception()`. */
export class RaisedByTemplate extends TemplateError {}

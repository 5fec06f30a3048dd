/**
 * Errors of a template.
 *
 * @module
 */

/** A template that is broken, or that asks for what it cannot get. */
export class TemplateError extends Error {}

/** A template's own `raise_exception()`. */
export class RaisedByTemplate extends TemplateError {}

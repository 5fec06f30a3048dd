/**
 * Ajv, which validates JSON by a schema. Pinned here and in `tests/deno.lock`, so that users of the
 * engine do not download it.
 *
 * @module
 */
export { Ajv, type AnySchemaObject } from "npm:ajv@8.20.0";

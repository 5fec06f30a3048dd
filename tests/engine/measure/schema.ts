/**
 * The published JSON Schema of reports, as a check for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Ajv, type AnySchemaObject } from "../../ajv.ts";

/** The schema that `docs/` publishes. */
export const SCHEMA: AnySchemaObject = JSON.parse(
  Deno.readTextFileSync(new URL("../../../docs/report.schema.json", import.meta.url)),
);

const validate = new Ajv({ allErrors: true, strictTypes: false }).compile(SCHEMA);

/** Fails if a value is not a record, or a list of records, of the schema. */
export function assertRecords(value: unknown, what = "record"): void {
  // As a file has it: without keys that are undefined.
  const isValid = validate(JSON.parse(JSON.stringify(value)));
  assert.ok(isValid, `${what}: ${JSON.stringify(validate.errors?.slice(0, 5), null, 2)}`);
}

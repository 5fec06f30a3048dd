/**
 * Table of the formats that files store numbers in: weight formats, and formats that are decoded or
 * widened when a model is loaded.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { FORMATS } from "./mod.ts";
import { F64, I16, I32, I64, I8 } from "./numbers.ts";

/** The formats by name, as ggml names them. */
export const STORED_FORMATS: Readonly<Record<string, StoredFormat>> = {
  ...FORMATS,
  F64,
  I8,
  I16,
  I32,
  I64,
};

/**
 * Table of the formats that files store numbers in: weight formats, and formats that are decoded or
 * widened when a model is loaded.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { MXFP4, NVFP4 } from "./fp4.ts";
import { IQ1_M, IQ1_S } from "./iq1.ts";
import { IQ2_S, IQ2_XS, IQ2_XXS } from "./iq2.ts";
import { IQ3_S, IQ3_XXS } from "./iq3.ts";
import { FORMATS } from "./mod.ts";
import { F64, I16, I32, I64, I8 } from "./numbers.ts";
import { Q8_1 } from "./q8_1.ts";
import { Q8_K } from "./q8_k.ts";
import { TQ1_0, TQ2_0 } from "./tq.ts";

/** The formats by name, as ggml names them. */
export const STORED_FORMATS: Readonly<Record<string, StoredFormat>> = {
  ...FORMATS,
  F64,
  I8,
  I16,
  I32,
  I64,
  Q8_1,
  Q8_K,
  IQ1_S,
  IQ1_M,
  IQ2_XXS,
  IQ2_XS,
  IQ2_S,
  IQ3_XXS,
  IQ3_S,
  TQ1_0,
  TQ2_0,
  MXFP4,
  NVFP4,
};

/**
 * Choice of the dtype that each weight is held in.
 *
 *     wanted      vector   embedding, head     positions     other matrices
 *     auto        F32      as stored           as stored     as stored
 *     a float     F32      wanted              wanted        wanted
 *     blocks      F32      at least 8 bits     as stored     wanted
 *
 * Rows that are no multiple of a block take the next format that fits (`Format.instead`). A format
 * that the backend has no kernels for becomes F16, or F32 if weights stay as stored (`widen.ts`).
 *
 * @module
 */
import { bitsOf, dtypeForRows, isBlocked, type WeightDtype } from "../../kernels/formats/mod.ts";
import type { SpecTree, WeightSpec } from "./specs.ts";
import { weightSpecs } from "./specs.ts";

/** Dtypes of weights on a backend, and notes for the user. */
export interface DtypeChoice {
  dtype(spec: WeightSpec): WeightDtype;
  /** Sentences on weights that are held in another dtype than the wanted one. */
  readonly notes: readonly string[];
}

/** Whether a backend has kernels for a dtype. */
export type Holds = (dtype: WeightDtype) => boolean;

/** Least bits per weight of embedding and head if the others are quantised. */
const TABLE_DTYPE: WeightDtype = "Q8_0";

/**
 * Chooses the dtypes of a model's weights.
 * @param wanted dtype of all weights; "auto" is the stored dtype.
 * @param storedOf dtype that holds all stored numbers of a weight.
 * @param holds whether the backend has kernels for a dtype; default all.
 */
export function chooseDtypes(
  specs: SpecTree,
  wanted: WeightDtype | "auto",
  storedOf: (spec: WeightSpec) => WeightDtype,
  holds: Holds = () => true,
): DtypeChoice {
  const tables: readonly (WeightSpec | undefined)[] = [specs.wte, specs.lmHead];
  const wish = (spec: WeightSpec): WeightDtype => {
    if (wanted === "auto") return storedOf(spec);
    if (!isBlocked(wanted)) return wanted;
    if (spec === specs.wpe) return storedOf(spec);
    return tables.includes(spec) && bitsOf(wanted) < bitsOf(TABLE_DTYPE) ? TABLE_DTYPE : wanted;
  };
  const dtype = (spec: WeightSpec): WeightDtype => {
    const fits = dtypeForRows(wish(spec), spec.shape[1]);
    if (holds(fits)) return fits;
    return wanted === "auto" ? "F32" : "F16"; // F32 holds the stored numbers
  };
  const notes = new Set<string>();
  for (const spec of weightSpecs(specs)) {
    const [, K] = spec.shape;
    if (K === undefined) continue;
    const wished = wish(spec);
    const fits = dtypeForRows(wished, K);
    if (fits !== wished) {
      notes.add(`rows of ${K} are held in ${fits}: ${wished} needs whole blocks`);
    }
    if (!holds(fits) && wanted !== "auto") {
      notes.add(`${fits} is widened to F16: this device has no kernels for it`);
    }
  }
  return { dtype, notes: [...notes] };
}

/** The dtype of most numbers of the layers' matrices. */
export function mainDtype({ specs, dtype }: {
  readonly specs: SpecTree;
  readonly dtype: (spec: WeightSpec) => WeightDtype;
}): WeightDtype {
  const numbers = new Map<WeightDtype, number>();
  for (const spec of weightSpecs(specs)) {
    const [N, K] = spec.shape;
    if (K === undefined || [specs.wte, specs.wpe, specs.lmHead].includes(spec)) continue;
    const kept = dtype(spec);
    numbers.set(kept, (numbers.get(kept) ?? 0) + N * K);
  }
  const [most] = [...numbers].sort(([, a], [, b]) => b - a);
  return most ? most[0] : dtype(specs.wte);
}

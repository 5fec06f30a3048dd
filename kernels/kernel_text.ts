/**
 * Generated code as text: the kernels of a plan, each with its number of calls.
 *
 * @module
 */
import type { KernelText } from "./backend.ts";
import { type Call, costOf, namedOperandsOf } from "./calls.ts";

/** Text of a kernel, and the compiled size in bytes. */
export type Code = Pick<KernelText, "text" | "bytes">;

/** Any step serves: names of kernels do not depend on it. */
const ANY_STEP = { rows: 1, position: 0, slot: 0, length: 1 };

/** Kernels of a pass, from its calls and the entries that each was lowered to. */
export function kernelTexts<Entry>(
  calls: readonly Call[],
  lowered: readonly (readonly Entry[])[],
  language: KernelText["language"],
  codeOf: (entry: Entry) => Code,
): KernelText[] {
  return addUpTexts(calls.flatMap((call, i) => {
    const { op } = call;
    const { name } = costOf(call, ANY_STEP);
    const operands = namedOperandsOf(call).map(([name, { of: { dtype, shape }, access }]) =>
      `${name} ${dtype} [${shape.join(", ")}], ${access}`
    );
    return lowered[i].map((entry) => ({
      op,
      name,
      language,
      operands,
      calls: 1,
      ...codeOf(entry),
    }));
  }));
}

/** Merges equal kernels and sums their calls. */
export function addUpTexts(texts: readonly KernelText[]): KernelText[] {
  const kernels = new Map<string, KernelText>();
  for (const text of texts) {
    const key = `${text.name}\n${text.text}`;
    const calls = text.calls + (kernels.get(key)?.calls ?? 0);
    kernels.set(key, { ...text, calls });
  }
  return [...kernels.values()];
}

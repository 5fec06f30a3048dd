/**
 * Dtypes of weights in memory: the stored one, or F32 where kernels lack the stored one.
 *
 * F32 holds every stored number but 64-bit ones exactly. F16 would be half of it, but its rounding
 * of decoded blocks moves the logits of tiny models by up to 6e-3; the option `dtype` has it.
 *
 * @module
 */
import { isBlocked, isWeightDtype, type WeightDtype } from "../../kernels/formats/mod.ts";
import type { TensorInfo } from "../checkpoint/checkpoint.ts";
import { formatOf } from "../checkpoint/dtypes.ts";

/**
 * Dtype of a weight made of stored tensors.
 * @param isChanged whether adapters change it; blocks would lose most of the change.
 */
export function keptDtype(stored: readonly TensorInfo[], isChanged: boolean): WeightDtype {
  const [first, ...others] = new Set(stored.map(({ dtype }) => dtype));
  const isKept = !others.length && isWeightDtype(first) && !(isChanged && isBlocked(first));
  return isKept ? first : "F32";
}

/** Whether a tensor of blocks is kept in another dtype. */
export function isWidened({ dtype }: TensorInfo, kept: WeightDtype): boolean {
  return formatOf(dtype).block > 1 && dtype !== kept;
}

/** A sentence on the tensors that take more memory than in the file; none if there are none. */
export function widenedNote(widened: readonly TensorInfo[]): string[] {
  if (!widened.length) return [];
  const counts = Object.entries(Object.groupBy(widened, ({ dtype }) => dtype));
  const tensors = counts.map(([dtype, infos = []]) => `${infos.length} of ${dtype}`).join(", ");
  return [`widened to F32: ${tensors}; dtype F16 takes half of that memory`];
}

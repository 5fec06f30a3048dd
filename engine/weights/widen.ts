/**
 * Dtypes of weights in memory: the stored one, or a wider one where kernels lack it.
 *
 *     stored                          kept
 *     a format of the kernels         as stored
 *     other blocks (IQ2_XS, MXFP4 …)  F16; F32 if a number is beyond F16's range
 *     F64, integers, several dtypes   F32
 *     blocks that an adapter changes  F32: blocks would lose most of the change
 *
 * @module
 */
import { bitsOf, isBlocked, isWeightDtype, type WeightDtype } from "../../kernels/formats/mod.ts";
import { sizeOf } from "../../kernels/tensor.ts";
import type { Checkpoint, TensorInfo } from "../checkpoint/checkpoint.ts";
import { bytesOfNumbers, formatOf } from "../checkpoint/dtypes.ts";

/** The least magnitude that F16 rounds to infinity. */
const BEYOND_F16 = 65520;

/** Bytes that are read at a time. */
const CHUNK_BYTES = 1 << 20;

/** Facts that decide the dtype of a tensor in memory. */
export interface Keeping {
  /** Whether adapters change it. */
  isChanged(info: TensorInfo): boolean;
  /** Whether a number is beyond F16's range. */
  isBeyondF16(info: TensorInfo): boolean;
}

/** Dtype of a weight made of stored tensors. */
export function keptDtype(stored: readonly TensorInfo[], keeping: Keeping): WeightDtype {
  const [first, ...others] = new Set(stored.map((info) => keptAlone(info, keeping)));
  return others.length ? "F32" : first;
}

function keptAlone(info: TensorInfo, { isChanged, isBeyondF16 }: Keeping): WeightDtype {
  const { dtype } = info;
  if (isWeightDtype(dtype)) return isBlocked(dtype) && isChanged(info) ? "F32" : dtype;
  return widens(info) && !isChanged(info) && !isBeyondF16(info) ? "F16" : "F32";
}

/** Whether a tensor has blocks that no kernel computes with. */
function widens({ dtype }: TensorInfo): boolean {
  return !isWeightDtype(dtype) && formatOf(dtype).block > 1;
}

/** Names of the tensors that F16 would make infinite, of those that would be widened to it. */
export async function beyondF16(
  checkpoint: Pick<Checkpoint, "readBytes">,
  tensors: Iterable<TensorInfo>,
): Promise<ReadonlySet<string>> {
  const beyond = new Set<string>();
  for (const info of tensors) {
    if (info.shape.length > 1 && widens(info) && !await fitsF16(checkpoint, info)) {
      beyond.add(info.name);
    }
  }
  return beyond;
}

/** Whether F16 holds the magnitudes of a tensor of blocks. */
async function fitsF16(
  checkpoint: Pick<Checkpoint, "readBytes">,
  { name, dtype, shape }: TensorInfo,
): Promise<boolean> {
  const { block, bytes, bound, decode } = formatOf(dtype);
  const size = bytesOfNumbers(dtype, sizeOf(shape));
  const chunk = new Uint8Array(Math.min(size, Math.floor(CHUNK_BYTES / bytes) * bytes));
  const view = new DataView(chunk.buffer);
  const numbers = new Float32Array(block);
  for (let start = 0; start < size; start += chunk.length) {
    const count = Math.min(chunk.length, size - start);
    await checkpoint.readBytes(name, start, chunk.subarray(0, count));
    for (let at = 0; at < count; at += bytes) {
      if (bound && bound(view, at) < BEYOND_F16) continue;
      decode(numbers, chunk.subarray(at, at + bytes));
      // NaN and infinity are the file's own.
      if (numbers.some((v) => Math.abs(v) >= BEYOND_F16 && v - v === 0)) return false;
    }
  }
  return true;
}

/** Whether a tensor of blocks is kept in another dtype. */
export function isWidened({ dtype }: TensorInfo, kept: WeightDtype): boolean {
  return formatOf(dtype).block > 1 && dtype !== kept;
}

/** A widened tensor, and the dtype that it is kept in. */
export interface Widened {
  readonly info: TensorInfo;
  readonly kept: WeightDtype;
}

/** Sentences on the tensors that take more memory than in the file; none if there are none. */
export function widenedNotes(widened: readonly Widened[]): string[] {
  return Object.entries(Object.groupBy(widened, ({ kept }) => kept)).map(([kept, of = []]) => {
    const counts = Object.entries(Object.groupBy(of, ({ info }) => info.dtype));
    const tensors = counts.map(([dtype, infos = []]) => `${infos.length} of ${dtype}`).join(", ");
    const isHalf = bitsOf(of[0].kept) < 32;
    const why = isHalf ? "no kernel computes with their blocks" : whyF32(of);
    return `widened to ${kept}: ${tensors}; ${why}`;
  });
}

/** The reason why tensors are widened to F32. */
function whyF32(widened: readonly Widened[]): string {
  return widened.some(({ info }) => widens(info))
    ? "numbers are beyond F16's range, or an adapter changes them"
    : "an adapter changes them, or the device has no kernels";
}

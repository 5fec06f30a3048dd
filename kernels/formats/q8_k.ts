/**
 * Q8_K: 256 numbers of 8 bits with a scale and the sums of 16 groups.
 *
 *     byte  0      4                   260                292
 *           d F32  q[0] … q[255] I8    sum × 16 I16            w = d · q
 *
 * The layout is ggml's `block_q8_K`, which llama.cpp uses for activations.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** 8 bits with a scale and sums. */
export const Q8_K: StoredFormat = storedBlocks(QK_K, 292, (into, i, view, at) => {
  const d = view.getFloat32(at, true);
  for (let j = 0; j < QK_K; j++) into[i + j] = times(d, view.getInt8(at + 4 + j));
}, (view, at) => Math.abs(view.getFloat32(at, true)) * 128);

/**
 * Q8_1: 32 numbers of 8 bits with a scale and the scaled sum.
 *
 *     byte  0      4      8                 40
 *           d F32  s F32  q[0] … q[31] I8        w = d · q
 *
 * The layout is gguf-py's. ggml's own blocks, with F16 scales, hold activations and are in no file.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { storedBlocks, times } from "./stored_blocks.ts";

/** 8 bits with a scale and a sum. */
export const Q8_1: StoredFormat = storedBlocks(32, 40, (into, i, view, at) => {
  const d = view.getFloat32(at, true);
  for (let j = 0; j < 32; j++) into[i + j] = times(d, view.getInt8(at + 8 + j));
}, (view, at) => Math.abs(view.getFloat32(at, true)) * 128);

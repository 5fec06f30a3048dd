/**
 * Q6_K: 16 groups of 16 numbers of 6 bits, each with an 8-bit scale.
 *
 *     byte  0                  128                 192            208    210
 *           q × 256, 4 bits    q × 256, 2 bits     scale × 16 I8  d F16
 *
 *     w = (d · scale) · (low + 16·high − 32)
 *
 * In half n of the block, number 128·n + 32·b + j has its low bits in byte 64·n + 32·(b mod 2) + j
 * (the high four bits of it if b ≥ 2), and its high bits in bits 2b, 2b + 1 of byte 32·n + j.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** 6 bits with scales. */
export const Q6_K: StoredFormat = storedBlocks(QK_K, 210, (into, i, view, at) => {
  const d = half(view, at + 208);
  for (let group = 0; group < 16; group++) {
    const scale = times(d, view.getInt8(at + 192 + group));
    const first = 16 * group;
    const [n, b, from] = [first >> 7, first >> 5 & 3, first & 31];
    const lows = at + 64 * n + 32 * (b & 1) + from;
    const highs = at + 128 + 32 * n + from;
    for (let j = 0; j < 16; j++) {
      const low = view.getUint8(lows + j) >> 4 * (b >> 1) & 15;
      const high = view.getUint8(highs + j) >> 2 * b & 3;
      into[i + first + j] = times(scale, (low | high << 4) - 32);
    }
  }
});

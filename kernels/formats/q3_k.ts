/**
 * Q3_K: 16 groups of 16 numbers of 3 bits, each with a 6-bit scale.
 *
 *     byte  0                   32                 96             108    110
 *           high bit × 256      q × 256, 2 bits    scale × 16     d F16
 *
 *     w = d · (scale − 32) · (q − 4·(1 − high))
 *
 * Bits 2b, 2b + 1 of byte 32·n + j hold the low bits of number 128·n + 32·b + j; bit b of byte j of
 * the high bits is that of number 32·b + j. Of the scales, byte k of the first eight holds the low
 * four bits of scales k and k + 8; byte k of the last four the high two of k, k + 4, k + 8, k + 12.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** 3 bits with scales. */
export const Q3_K: StoredFormat = storedBlocks(QK_K, 110, (into, i, view, at) => {
  const d = half(view, at + 108);
  for (let group = 0; group < 16; group++) {
    const low = view.getUint8(at + 96 + (group & 7)) >> 4 * (group >> 3) & 15;
    const high = view.getUint8(at + 104 + (group & 3)) >> 2 * (group >> 2) & 3;
    const scale = times(d, (low | high << 4) - 32);
    const first = 16 * group;
    const qs = at + 32 + 32 * (first >> 7) + (first & 31);
    const shift = 2 * (first >> 5 & 3);
    for (let j = 0; j < 16; j++) {
      const isHigh = view.getUint8(at + (first & 31) + j) >> (first >> 5) & 1;
      const q = (view.getUint8(qs + j) >> shift & 3) - (isHigh ? 0 : 4);
      into[i + first + j] = times(scale, q);
    }
  }
});

/**
 * Q2_K: 16 groups of 16 numbers of 2 bits, each with a 4-bit scale and minimum.
 *
 *     byte  0                    16                  80     82       84
 *           scale + 16·min × 16  q × 256, 2 bits     d F16  dmin F16
 *
 *     w = (d · scale) · q − dmin · min
 *
 * Bits 2b, 2b + 1 of byte 32·n + j hold q of number 128·n + 32·b + j.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** 2 bits with scales and minima. */
export const Q2_K: StoredFormat = storedBlocks(QK_K, 84, (into, i, view, at) => {
  const [d, dmin] = [half(view, at + 80), half(view, at + 82)];
  for (let group = 0; group < 16; group++) {
    const packed = view.getUint8(at + group);
    const [scale, min] = [times(d, packed & 15), times(dmin, packed >> 4)];
    const first = 16 * group;
    const qs = at + 16 + 32 * (first >> 7) + (first & 31);
    const shift = 2 * (first >> 5 & 3);
    for (let j = 0; j < 16; j++) {
      const q = view.getUint8(qs + j) >> shift & 3;
      into[i + first + j] = minus(times(scale, q), min);
    }
  }
});

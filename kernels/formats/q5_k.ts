/**
 * Q5_K: 8 groups of 32 numbers of 5 bits, each with a 6-bit scale and minimum.
 *
 *     byte  0      2         4               16               48                  176
 *           d F16  dmin F16  scale, min × 8  high bit × 256   q × 256, 4 bits
 *
 *     w = (d · scale) · (q + 16·high) − dmin · min
 *
 * Scales, minima and low bits are placed as in Q4_K. Bit g of byte j of the high bits is that of
 * number 32·g + j.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { scaleAndMin } from "./q4_k.ts";
import { half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** 5 bits with scales and minima. */
export const Q5_K: StoredFormat = storedBlocks(QK_K, 176, (into, i, view, at) => {
  const [d, dmin] = [half(view, at), half(view, at + 2)];
  for (let group = 0; group < 8; group++) {
    const [scale, min] = scaleAndMin(view, at + 4, group);
    const [ds, dm] = [times(d, scale), times(dmin, min)];
    const [qs, shift] = [at + 48 + 32 * (group >> 1), 4 * (group & 1)];
    for (let j = 0; j < 32; j++) {
      const high = view.getUint8(at + 16 + j) >> group & 1;
      const q = view.getUint8(qs + j) >> shift & 15 | high << 4;
      into[i + 32 * group + j] = minus(times(ds, q), dm);
    }
  }
});

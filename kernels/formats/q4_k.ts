/**
 * Q4_K: 8 groups of 32 numbers of 4 bits, each with a 6-bit scale and minimum.
 *
 *     byte  0      2         4                  16                  144
 *           d F16  dmin F16  scale, min × 8     q × 256, 4 bits
 *
 *     w = (d · scale) · q − dmin · min
 *
 * The low four bits of byte 32·n + j hold q of number 64·n + j, the high ones of 64·n + 32 + j.
 * Scales s and minima m, 6 bits each, by bytes 0 … 11 of their part (k = 0 … 3):
 *
 *     byte k      high two of s[k + 4]   s[k]
 *     byte k + 4  high two of m[k + 4]   m[k]
 *     byte k + 8  low four of m[k + 4]   low four of s[k + 4]
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** Scale and minimum of a group: 6 bits each, packed from byte `at` on; Q5_K has the same. */
export function scaleAndMin(view: DataView, at: number, group: number): [number, number] {
  const byte = (k: number) => view.getUint8(at + k);
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  const low = byte(group + 4);
  return [low & 15 | byte(group - 4) >> 2 & 48, low >> 4 | byte(group) >> 2 & 48];
}

/** 4 bits with scales and minima. */
export const Q4_K: StoredFormat = storedBlocks(QK_K, 144, (into, i, view, at) => {
  const [d, dmin] = [half(view, at), half(view, at + 2)];
  for (let group = 0; group < 8; group++) {
    const [scale, min] = scaleAndMin(view, at + 4, group);
    const [ds, dm] = [times(d, scale), times(dmin, min)];
    const [qs, shift] = [at + 16 + 32 * (group >> 1), 4 * (group & 1)];
    for (let j = 0; j < 32; j++) {
      const q = view.getUint8(qs + j) >> shift & 15;
      into[i + 32 * group + j] = minus(times(ds, q), dm);
    }
  }
});

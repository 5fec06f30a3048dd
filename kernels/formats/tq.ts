/**
 * TQ1_0 and TQ2_0: ternary numbers −1, 0, 1 with a scale.
 *
 *     TQ1_0, 1.7 bits: a byte has five digits in base 3, scaled to 8 bits
 *     byte  0             32           48           52     54
 *           5 × 32 digits 5 × 16       4 × 4        d F16
 *
 *     digit n of byte x = ⌊3 · (x · 3ⁿ mod 256) / 256⌋;  w = d · (digit − 1)
 *
 *     TQ2_0, 2 bits
 *     byte  0                  64     66
 *           q × 256, 2 bits    d F16       w = d · (q − 1)
 *
 * Digits n of the bytes of a part are adjacent numbers, as are bits 2n, 2n + 1 of 32 bytes.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { boundByHalf, half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** Parts of TQ1_0: first byte, bytes, digits of each. */
const PARTS = [[0, 32, 5], [32, 16, 5], [48, 4, 4]] as const;

/** Ternary numbers, five to a byte. */
export const TQ1_0: StoredFormat = storedBlocks(QK_K, 54, (into, i, view, at) => {
  const d = half(view, at + 52);
  for (const [first, bytes, digits] of PARTS) {
    for (let n = 0, power = 1; n < digits; n++, power *= 3) {
      for (let j = 0; j < bytes; j++) {
        const digit = 3 * (view.getUint8(at + first + j) * power & 255) >> 8;
        into[i++] = times(d, digit - 1);
      }
    }
  }
}, boundByHalf(52, 1));

/** Ternary numbers, four to a byte. */
export const TQ2_0: StoredFormat = storedBlocks(QK_K, 66, (into, i, view, at) => {
  const d = half(view, at + 64);
  for (let k = 0; k < QK_K; k++) {
    const byte = view.getUint8(at + 32 * (k >> 7) + (k & 31));
    into[i + k] = times(d, (byte >> 2 * (k >> 5 & 3) & 3) - 1);
  }
}, boundByHalf(64, 2));

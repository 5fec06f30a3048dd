/**
 * IQ1_S and IQ1_M: eight numbers at a time from a grid of −1, 0, 1, shifted by ⅛.
 *
 *     IQ1_S, 8 groups of 32 numbers
 *     byte  0      2                34                                              50
 *           d F16  low 8 bits × 32  (high 3 bits × 4, scale of 3, sign of shift) × 8 U16
 *
 *     IQ1_M, 16 groups of 16 numbers
 *     byte  0                32                                      48             56
 *           low 8 bits × 32  (high 3 bits, sign of shift) × 32       scales × 4 U16
 *
 *     w = d · (2·scale + 1) · (grid[index][k] ± ⅛)
 *
 * A U16 of IQ1_M's scales has four scales of 3 bits, and in its high four bits a part of d: the
 * F16's bits 0 to 3 in the first, 4 to 7 in the second, and so on.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { grid, GRIDS } from "./grids.ts";
import { boundByHalf, half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

const values = grid(GRIDS.iq1s, [-1, 0, 1]);

/** Writes scale · (grid[index][k] + shift) for k = 0 … 7. */
function writeShifted(
  into: Float32Array,
  i: number,
  index: number,
  { scale, shift }: { readonly scale: number; readonly shift: number },
): void {
  const all = values();
  for (let k = 0; k < 8; k++) into[i + k] = times(scale, all[8 * index + k] + shift);
}

/** 1.56 bits. */
export const IQ1_S: StoredFormat = storedBlocks(QK_K, 50, (into, i, view, at) => {
  const d = half(view, at);
  for (let part = 0; part < 32; part++) {
    const packed = view.getUint16(at + 34 + 2 * (part >> 2), true);
    const index = view.getUint8(at + 2 + part) | (packed >> 3 * (part & 3) & 7) << 8;
    const scale = times(d, 2 * (packed >> 12 & 7) + 1);
    const shift = packed & 0x8000 ? -0.125 : 0.125;
    writeShifted(into, i + 8 * part, index, { scale, shift });
  }
}, boundByHalf(0, 15 * 1.125));

/** The F16 in the high four bits of four U16. */
function scatteredHalf(view: DataView, at: number): number {
  let bits = 0;
  for (let n = 0; n < 4; n++) bits |= (view.getUint16(at + 2 * n, true) >> 12) << 4 * n;
  const scratch = new DataView(new ArrayBuffer(2));
  scratch.setUint16(0, bits, true);
  return half(scratch, 0);
}

/** 1.75 bits. */
export const IQ1_M: StoredFormat = storedBlocks(QK_K, 56, (into, i, view, at) => {
  const d = scatteredHalf(view, at + 48);
  for (let part = 0; part < 32; part++) {
    const packed = view.getUint8(at + 32 + (part >> 1)) >> 4 * (part & 1);
    const index = view.getUint8(at + part) | (packed & 7) << 8;
    const group = part >> 1;
    const three = view.getUint16(at + 48 + 2 * (group >> 2), true) >> 3 * (group & 3) & 7;
    const scale = times(d, 2 * three + 1);
    writeShifted(into, i + 8 * part, index, { scale, shift: packed & 8 ? -0.125 : 0.125 });
  }
}, (view, at) => Math.abs(scatteredHalf(view, at + 48)) * 15 * 1.125);

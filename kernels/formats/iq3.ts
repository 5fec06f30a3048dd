/**
 * IQ3_XXS and IQ3_S: four numbers at a time, magnitudes from a grid, signs beside them.
 *
 *     IQ3_XXS, 8 groups of 32 numbers
 *     byte  0      2                   66                                        98
 *           d F16  grid index × 64 U8  (signs × 4 of 7 bits, scale of 4) × 8 U32
 *
 *     w = ±(d · (scale + ½) / 2) · grid[index][k]
 *
 *     IQ3_S, 8 groups of 32 numbers
 *     byte  0      2                66            74          106        110
 *           d F16  low 8 bits × 64  high bit × 64 signs × 32  scale × 8
 *
 *     w = ±(d · (1 + 2·scale)) · grid[index][k]
 *
 * Signs of 7 bits have even parity.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { grid, GRIDS } from "./grids.ts";
import { withParity, writeSigned } from "./iq2.ts";
import { boundByHalf, half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

const XXS = grid(GRIDS.iq3xxs, [0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e]);
const S = grid(GRIDS.iq3s, [1, 3, 5, 7, 9, 11, 13, 15]);

/** 3.06 bits. */
export const IQ3_XXS: StoredFormat = storedBlocks(QK_K, 98, (into, i, view, at) => {
  const d = half(view, at);
  for (let group = 0; group < 8; group++) {
    const packed = view.getUint32(at + 66 + 4 * group, true);
    const scale = times(times(d, 0.5 + (packed >>> 28)), 0.5);
    for (let part = 0; part < 8; part++) {
      const first = 4 * view.getUint8(at + 2 + 8 * group + part);
      const signs = withParity(packed >>> 7 * (part >> 1) & 127) >> 4 * (part & 1);
      const to = i + 32 * group + 4 * part;
      writeSigned(into, to, scale, { values: XXS(), first, count: 4 }, signs);
    }
  }
}, boundByHalf(0, 15.5 * 0.5 * 0x3e));

/** 3.44 bits. */
export const IQ3_S: StoredFormat = storedBlocks(QK_K, 110, (into, i, view, at) => {
  const d = half(view, at);
  for (let part = 0; part < 64; part++) {
    const group = part >> 3;
    const high = view.getUint8(at + 66 + group) >> (part & 7) & 1;
    const first = 4 * (view.getUint8(at + 2 + part) | high << 8);
    const nibble = view.getUint8(at + 106 + (group >> 1)) >> 4 * (group & 1) & 15;
    const signs = view.getUint8(at + 74 + (part >> 1)) >> 4 * (part & 1);
    const scale = times(d, 1 + 2 * nibble);
    writeSigned(into, i + 4 * part, scale, { values: S(), first, count: 4 }, signs);
  }
}, boundByHalf(0, 31 * 15));

/**
 * IQ2_XXS, IQ2_XS, IQ2_S: eight numbers at a time, magnitudes from a grid, signs beside them.
 *
 *     IQ2_XXS, 8 groups of 32 numbers, 8 bytes each
 *     byte  0      2                                                      66
 *           d F16  (grid index × 4 U8, U32: signs × 4 of 7 bits, scale of 4) × 8
 *
 *     IQ2_XS, 16 groups of 16 numbers
 *     byte  0      2                                     66          74
 *           d F16  (grid index 9 bits, signs 7) × 32     scale × 16
 *
 *     IQ2_S, 16 groups of 16 numbers
 *     byte  0      2                 34          66              74          82
 *           d F16  low 8 bits × 32   signs × 32  high 2 bits × 32 scale × 16
 *
 *     w = ±(d · (scale + ½) / 4) · grid[index][k]
 *
 * Signs of 7 bits have even parity: the eighth is the parity of the others.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { grid, GRIDS } from "./grids.ts";
import { boundByHalf, half, QK_K, storedBlocks, times } from "./stored_blocks.ts";

/** Magnitudes of the 2-bit grids. */
const VALUES = [0x08, 0x19, 0x2b];

const [XXS, XS, S] = [GRIDS.iq2xxs, GRIDS.iq2xs, GRIDS.iq2s].map((hex) => grid(hex, VALUES));

/** Eight sign bits from seven. */
export function withParity(bits: number): number {
  let parity = bits ^ bits >> 4;
  parity ^= parity >> 2;
  return bits | ((parity ^ parity >> 1) & 1) << 7;
}

/** Writes scale · values[first + k], negated where bit k of `signs` is set. */
export function writeSigned(
  into: Float32Array,
  i: number,
  scale: number,
  { values, first, count }: {
    readonly values: Float32Array;
    readonly first: number;
    readonly count: number;
  },
  signs: number,
): void {
  for (let k = 0; k < count; k++) {
    const size = times(scale, values[first + k]);
    into[i + k] = signs >> k & 1 ? -size : size;
  }
}

/** d · (½ + scale) / 4 */
function scaled(d: number, scale: number): number {
  return times(times(d, 0.5 + scale), 0.25);
}

/** The largest magnitude, in units of d. */
const MOST = 15.5 / 4 * VALUES[2];

/** 2.06 bits. */
export const IQ2_XXS: StoredFormat = storedBlocks(QK_K, 66, (into, i, view, at) => {
  const d = half(view, at);
  for (let group = 0; group < 8; group++) {
    const indices = at + 2 + 8 * group;
    const packed = view.getUint32(indices + 4, true);
    const scale = scaled(d, packed >>> 28);
    for (let part = 0; part < 4; part++) {
      const first = 8 * view.getUint8(indices + part);
      const signs = withParity(packed >>> 7 * part & 127);
      const to = i + 32 * group + 8 * part;
      writeSigned(into, to, scale, { values: XXS(), first, count: 8 }, signs);
    }
  }
}, boundByHalf(0, MOST));

/** 4-bit scale `n` of the nibbles from byte `at` on. */
function nibble(view: DataView, at: number, n: number): number {
  return view.getUint8(at + (n >> 1)) >> 4 * (n & 1) & 15;
}

/** 2.31 bits. */
export const IQ2_XS: StoredFormat = storedBlocks(QK_K, 74, (into, i, view, at) => {
  const d = half(view, at);
  for (let part = 0; part < 32; part++) {
    const packed = view.getUint16(at + 2 + 2 * part, true);
    const scale = scaled(d, nibble(view, at + 66, part >> 1));
    const place = { values: XS(), first: 8 * (packed & 511), count: 8 };
    writeSigned(into, i + 8 * part, scale, place, withParity(packed >> 9));
  }
}, boundByHalf(0, MOST));

/** 2.56 bits. */
export const IQ2_S: StoredFormat = storedBlocks(QK_K, 82, (into, i, view, at) => {
  const d = half(view, at);
  for (let part = 0; part < 32; part++) {
    const high = view.getUint8(at + 66 + (part >> 2)) >> 2 * (part & 3) & 3;
    const first = 8 * (view.getUint8(at + 2 + part) | high << 8);
    const scale = scaled(d, nibble(view, at + 74, part >> 1));
    const signs = view.getUint8(at + 34 + part);
    writeSigned(into, i + 8 * part, scale, { values: S(), first, count: 8 }, signs);
  }
}, boundByHalf(0, MOST));

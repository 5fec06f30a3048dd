/**
 * The layout of a weight in linear memory: panels [N/16][K][16], the last one filled up with zeros.
 *
 * A panel holds 16 outputs, one beside the other for each input, so that a kernel reads it as one stream. 16-bit numbers lie
 * in pairs of 32 bits: columns i and i + 4 of eight, which two operations make two vectors of.
 *
 * @module
 */
import { BYTES, type StoredOrder, type WeightDtype } from "../tensor.ts";

/** Outputs of a panel. */
export const PANEL_COLUMNS = 16;

/** Where each column of a panel stands in its row of 16. */
export const PLACES: Readonly<Record<WeightDtype, readonly number[]>> = {
  F32: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  F16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
  BF16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
};

/** Bytes of a file's rows that are packed at a time: two such pieces stay in a processor's second cache. */
const PIECE_BYTES = 1 << 19;

/** Elements of a packed weight. */
export function panelsLength([N, K]: readonly [N: number, K: number]): number {
  return Math.ceil(N / PANEL_COLUMNS) * PANEL_COLUMNS * K;
}

/** Rows of the file that are packed at a time; whole panels of them under NK. */
export function rowsAtATime(
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
  stored: StoredOrder,
): number {
  const fit = Math.floor(PIECE_BYTES / ((stored === "NK" ? K : N) * BYTES[dtype]));
  if (stored === "KN") return Math.min(Math.max(fit, 1), K);
  return Math.min(Math.max(fit - fit % PANEL_COLUMNS, PANEL_COLUMNS), N);
}

/** Bytes of the scratch for so many rows: under NK they are filled up to a panel. */
export function scratchBytes(
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
  stored: StoredOrder,
): number {
  const rows = rowsAtATime([N, K], dtype, stored);
  return BYTES[dtype] * (stored === "KN" ? rows * N : panelsLength([rows, K]));
}

/** Turns F16 panels, given by their bits, to F32 ones, which know infinities. */
export function widenPanels(to: Float32Array, from: Uint16Array): void {
  const numbers = new Float16Array(from.buffer, from.byteOffset, from.length);
  for (let row = 0; row < to.length; row += PANEL_COLUMNS) {
    for (let column = 0; column < PANEL_COLUMNS; column++) {
      to[row + column] = numbers[row + PLACES.F16[column]];
    }
  }
}

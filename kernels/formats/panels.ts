/**
 * The layout of a weight in linear memory: panels of 16 outputs, the last one filled up with zeros.
 *
 * A panel holds 16 outputs, one beside the other for each input: [K][16]. A kernel reads it by several streams. In F32 panel follows
 * panel: [N/16][K][16]. In 16 bits it is half as long, and such streams would end when memory has just begun to answer them fast; so,
 * where K is a multiple of 16, the first quarters of all panels come first, then the second ones …: [4][N/16][K/4][16], and a stream
 * goes on from panel to panel.
 *
 * 16-bit numbers lie in pairs of 32 bits: columns i and i + 4 of eight, which two operations make two vectors of.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "./mod.ts";
import type { StoredOrder } from "../tensor.ts";

/** Outputs of a panel. */
export const PANEL_COLUMNS = 16;

/** Where each column of a panel stands in its row of 16. */
export const PLACES: Readonly<Record<WeightDtype, readonly number[]>> = {
  F32: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  F16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
  BF16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
};

/** Parts of a panel that a kernel reads side by side: memory answers several streams faster than one. */
const STREAMS = 4;

/** Where the numbers of panels are: input k of panel p, a line of 16, in part ⌊k / inputs⌋, at part · apart + p · pitch. */
export interface PanelLayout {
  /** Parts of a panel that lie apart. */
  readonly parts: number;
  /** Inputs of a part. */
  readonly inputs: number;
  /** Bytes from a part to that of the next panel, and to the panel's next part. */
  readonly pitch: number;
  readonly apart: number;
}

/** The layout of a weight's panels. */
export function panelLayout(
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
): PanelLayout {
  const parts = dtype !== "F32" && K % (4 * STREAMS) === 0 ? STREAMS : 1;
  const inputs = K / parts;
  const pitch = inputs * PANEL_COLUMNS * BYTES[dtype];
  return { parts, inputs, pitch, apart: Math.ceil(N / PANEL_COLUMNS) * pitch };
}

/** The streams that a panel is read in. */
export interface PanelStreams {
  /** Inputs of each, a multiple of four; what is left of K goes on behind the last stream. */
  readonly length: number;
  /** Bytes from the panel to where each begins. */
  readonly starts: readonly number[];
}

/** How a kernel reads a panel by streams. */
export function panelStreams(
  shape: readonly [N: number, K: number],
  dtype: WeightDtype,
): PanelStreams {
  const { parts, apart } = panelLayout(shape, dtype);
  const length = Math.floor(shape[1] / (4 * STREAMS)) * 4;
  const distance = parts > 1 ? apart : length * PANEL_COLUMNS * BYTES[dtype];
  return { length, starts: Array.from({ length: STREAMS }, (_, i) => i * distance) };
}

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
export function widenPanels(
  to: Float32Array,
  from: Uint16Array,
  shape: readonly [N: number, K: number],
): void {
  const numbers = new Float16Array(from.buffer, from.byteOffset, from.length);
  const K = shape[1];
  const { inputs, pitch, apart } = panelLayout(shape, "F16");
  for (let line = 0; line < to.length / PANEL_COLUMNS; line++) {
    const [panel, k] = [Math.floor(line / K), line % K];
    const bytes = Math.floor(k / inputs) * apart + panel * pitch;
    const at = bytes / BYTES.F16 + k % inputs * PANEL_COLUMNS;
    for (let column = 0; column < PANEL_COLUMNS; column++) {
      to[line * PANEL_COLUMNS + column] = numbers[at + PLACES.F16[column]];
    }
  }
}

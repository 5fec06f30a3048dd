/**
 * Panel layout of a weight in linear memory: 16 outputs interleaved, one line of them per input.
 *
 * P = ⌈N/16⌉ panels; the last one is padded with zeros.
 *
 * F32: [P][K][16], panel after panel. A line is 64 bytes.
 *
 *     ┌ panel 0 ───────────────────────────┬ panel 1 ─────────────┬ … ┐
 *     │ k = 0: n0 n1 … n15 │ k = 1: … │ …  │ k = 0: n16 … n31 │ … │   │
 *     └────────────────────────────────────┴──────────────────────┴───┘
 *     ◀──────────── pitch = 64·K ──────────▶
 *
 * 16 bits, if K is a multiple of 16: [4][P][K/4][16]: the first quarters of all panels, then the
 * second ones … A kernel reads the four quarters of a panel as parallel streams, and memory speeds
 * up only after the start of a stream. A 16-bit panel is half as long as an F32 one, so its streams
 * would end just then; in this order they continue from panel to panel. Other K: [P][K][16], as
 * F32.
 *
 *     ┌ part 0: inputs 0 … K/4 − 1 ──────┬ part 1: inputs K/4 … K/2 − 1 ────┬ part 2 ┬ part 3 ┐
 *     │ panel 0 │ panel 1 │ … │ panel P−1 │ panel 0 │ panel 1 │ … │ panel P−1 │        │        │
 *     └─────────┴─────────┴───┴───────────┴─────────┴─────────┴───┴───────────┴────────┴────────┘
 *     ◀─ pitch ─▶  = 8·K
 *     ◀─────────── apart = P·pitch ───────▶
 *
 * A 16-bit line is 32 bytes. Each word holds columns i (lower half) and i + 4 (upper half) of a
 * group of eight, so that a shift and a mask turn one load into two vectors of four columns:
 *
 *     word     0       1       2       3       4        5        6         7
 *          ┌───────┬───────┬───────┬───────┬────────┬────────┬─────────┬─────────┐
 *          │ 0 │ 4 │ 1 │ 5 │ 2 │ 6 │ 3 │ 7 │ 8 │ 12 │ 9 │ 13 │ 10 │ 14 │ 11 │ 15 │
 *          └───────┴───────┴───────┴───────┴────────┴────────┴─────────┴─────────┘
 *
 * @module
 */
import type { StoredOrder } from "../tensor.ts";
import { BYTES, expectSize } from "./elements.ts";
import type { PanelLayout } from "./format.ts";

/** Outputs per panel. */
export const PANEL_COLUMNS = 16;

/** Streams of a panel read in parallel: memory serves several streams faster than one. */
export const STREAMS = 4;

/** The order of numbers in panels. */
export interface PanelOrder {
  /** Bytes of a number. */
  readonly bytes: number;
  /** Position of each column in its line of 16: a permutation of the column index's four bits. */
  readonly places: readonly number[];
  /** Whether the quarters of a panel are stored apart, if K is a multiple of 16. */
  readonly quartered: boolean;
}

/** Panels of F32. */
export const ORDER_32: PanelOrder = {
  bytes: BYTES.F32,
  places: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  quartered: false,
};

/** Panels of 16-bit floats. */
export const ORDER_16: PanelOrder = {
  bytes: BYTES.F16,
  places: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
  quartered: true,
};

expectSize("a panel's line of F32", PANEL_COLUMNS * ORDER_32.bytes, 64); // a cache line
expectSize("a panel's line of 16 bits", PANEL_COLUMNS * ORDER_16.bytes, 32);

/** The layout of a weight's panels. */
export function panelLayout(
  [N, K]: readonly [N: number, K: number],
  { bytes, quartered }: Pick<PanelOrder, "bytes" | "quartered">,
): PanelLayout {
  const parts = quartered && K % (4 * STREAMS) === 0 ? STREAMS : 1;
  const inputs = K / parts;
  const pitch = inputs * PANEL_COLUMNS * bytes;
  return { parts, inputs, pitch, apart: Math.ceil(N / PANEL_COLUMNS) * pitch };
}

/** The parallel streams of a panel. */
export interface PanelStreams {
  /** Inputs per stream, a multiple of four; the rest of K follows the last stream. */
  readonly length: number;
  /** Byte offset of each stream from the panel. */
  readonly starts: readonly number[];
}

/** Splits a panel into streams. */
export function panelStreams(
  shape: readonly [N: number, K: number],
  order: Pick<PanelOrder, "bytes" | "quartered">,
): PanelStreams {
  const { parts, apart } = panelLayout(shape, order);
  const length = Math.floor(shape[1] / (4 * STREAMS)) * 4;
  const distance = parts > 1 ? apart : length * PANEL_COLUMNS * order.bytes;
  return { length, starts: Array.from({ length: STREAMS }, (_, i) => i * distance) };
}

/**
 * Bytes of a file's rows that are packed at once: two such pieces fit the L2 cache.
 */
const PIECE_BYTES = 1 << 19;

/**
 * Rows of the file that are packed at once; NK: a multiple of a panel's 16.
 * @param rowBytes bytes of a row of the file.
 */
export function rowsAtATime(
  [N, K]: readonly [N: number, K: number],
  rowBytes: number,
  stored: StoredOrder,
): number {
  const fit = Math.floor(PIECE_BYTES / rowBytes);
  if (stored === "KN") return Math.min(Math.max(fit, 1), K);
  return Math.min(Math.max(fit - fit % PANEL_COLUMNS, PANEL_COLUMNS), N);
}

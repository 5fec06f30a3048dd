/**
 * The layout of a weight in linear memory: panels [N/16][K][16], the last one filled up with zeros.
 *
 * A panel holds 16 outputs, one beside the other for each input, so that a kernel reads it as one stream. 16-bit numbers lie
 * in pairs of 32 bits: columns i and i + 4 of eight, which two operations make two vectors of.
 *
 * @module
 */
import { BYTES, type FillRows, hostArray, type StoredOrder, type WeightDtype } from "../tensor.ts";

/** Outputs of a panel. */
export const PANEL_COLUMNS = 16;

/** Bytes of a file's rows that are packed at a time. */
const SCRATCH_BYTES = 1 << 20;

/** Where each column of a panel stands in its row of 16. */
const PLACES: Readonly<Record<WeightDtype, readonly number[]>> = {
  F32: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  F16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
  BF16: [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
};

type Rows = Float32Array | Uint16Array;

/** Elements of a packed weight. */
export function panelsLength([N, K]: readonly [N: number, K: number]): number {
  return Math.ceil(N / PANEL_COLUMNS) * PANEL_COLUMNS * K;
}

/** Rows of the file that fit the scratch: whole panels of them where they can be had. */
export function rowsAtATime(
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
  stored: StoredOrder,
): number {
  const rowBytes = (stored === "NK" ? K : N) * BYTES[dtype];
  const rows = Math.max(1, Math.floor(SCRATCH_BYTES / rowBytes));
  return Math.min(
    stored === "NK" ? N : K,
    rows > PANEL_COLUMNS ? rows - rows % PANEL_COLUMNS : rows,
  );
}

/**
 * Packs what `fill` gives. `view` is asked for the panels after each wait, because memory may have grown in between.
 * @throws {RangeError} when an F16 is not finite: the kernels widen by arithmetic, which knows no infinity.
 */
export async function packPanels(
  view: () => Rows,
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
  fill: FillRows,
  stored: StoredOrder,
): Promise<void> {
  const chunk = rowsAtATime([N, K], dtype, stored);
  const [rows, width] = stored === "NK" ? [N, K] : [K, N];
  const scratch = hostArray(dtype, chunk * width) as Rows;
  const places = PLACES[dtype];
  for (let row = 0; row < rows; row += chunk) {
    const count = Math.min(chunk, rows - row);
    const filled = scratch.subarray(0, count * width);
    await fill(row, count, filled);
    if (dtype === "F16") expectFinite(filled as Uint16Array, row, width);
    if (stored === "NK") packNk(view(), filled, places, row, count, K);
    else packKn(view(), filled, places, row, count, N, K);
  }
}

/** Rows n … of K inputs: up to 16 of them are read side by side, so that a panel is written in order. */
function packNk(
  panels: Rows,
  rows: Rows,
  places: readonly number[],
  first: number,
  count: number,
  K: number,
): void {
  for (let i = 0; i < count;) {
    const n = first + i;
    const column = n % PANEL_COLUMNS;
    const columns = Math.min(PANEL_COLUMNS - column, count - i);
    const at = (n - column) * K;
    for (let k = 0; k < K; k++) {
      for (let j = 0; j < columns; j++) {
        panels[at + k * PANEL_COLUMNS + places[column + j]] = rows[(i + j) * K + k];
      }
    }
    i += columns;
  }
}

/** Rows k … of N outputs. */
function packKn(
  panels: Rows,
  rows: Rows,
  places: readonly number[],
  first: number,
  count: number,
  N: number,
  K: number,
): void {
  for (let n = 0; n < N; n += PANEL_COLUMNS) {
    const columns = Math.min(PANEL_COLUMNS, N - n);
    for (let i = 0; i < count; i++) {
      const at = n * K + (first + i) * PANEL_COLUMNS;
      for (let j = 0; j < columns; j++) panels[at + places[j]] = rows[i * N + n + j];
    }
  }
}

function expectFinite(rows: Uint16Array, first: number, width: number): void {
  for (let i = 0; i < rows.length; i++) {
    if ((rows[i] & 0x7c00) === 0x7c00) {
      throw new RangeError(
        `Cannot pack a weight: expected finite F16, got an infinity or NaN in row ${
          first + Math.floor(i / width)
        }`,
      );
    }
  }
}

/**
 * Rows of a table: token embeddings and learned positions.
 *
 *     embed:        y[t] = scale · table[ids[t]]           (zeros for an id outside the table)
 *     addPosition:  x[t] += table[position + t]
 *
 * y, x [T, C]; table [V, C] or [P, C]; ids [T] I32. As torch.nn.Embedding.
 *
 * @module
 */
import { expectTensor } from "./errors.ts";
import type { Rows } from "./matmul/mod.ts";
import { type Tensor, type Weight, widen } from "./tensor.ts";

/** What is done to each row of `embed`. */
export interface EmbedOptions {
  /** Default 1; Gemma's is sqrt(C). */
  readonly scale?: number;
}

/** @throws {RangeError} when the shapes of `embed` do not fit each other. */
export function checkEmbed(y: Tensor, { shape: [, C] }: Weight, ids: Tensor): void {
  expectTensor("embed", "y", y, [y.shape[0], C]);
  expectTensor("embed", "ids", ids, [y.shape[0]], "I32");
}

/** @throws {RangeError} when the shapes of `addPosition` do not fit each other. */
export function checkAddPosition(x: Tensor, { shape: [, C] }: Weight): void {
  expectTensor("addPosition", "x", x, [x.shape[0], C]);
}

/** The oracle. */
export function embedJs(
  y: Float32Array,
  { data, dtype, shape: [V, C] }: Rows,
  ids: Int32Array,
  { scale = 1 }: EmbedOptions,
  T: number,
): void {
  for (let t = 0; t < T; t++) {
    const row = y.subarray(t * C, t * C + C);
    // What ran ahead of a failed sample embeds its sentinel; the host drops those steps.
    if (ids[t] < 0 || ids[t] >= V) row.fill(0);
    else widen(row, data, dtype, ids[t] * C, C);
    if (scale !== 1) { for (let c = 0; c < C; c++) row[c] *= scale; }
  }
}

/** The oracle. `row` is scratch of C numbers. */
export function addPositionJs(
  x: Float32Array,
  { data, dtype, shape: [, C] }: Rows,
  position: number,
  T: number,
  row: Float32Array = new Float32Array(C),
): void {
  for (let t = 0; t < T; t++) {
    widen(row, data, dtype, (position + t) * C, C);
    for (let c = 0; c < C; c++) x[t * C + c] += row[c];
  }
}

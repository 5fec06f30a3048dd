/**
 * Scratch of prefill attention in WASM: lines of one number per row of a block, and their loads.
 *
 * @module
 */
import { v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Int, Local } from "../../asm/assembler.ts";
import { f32PairLoads, type PairLoads, type Simd } from "../../asm/join.ts";
import type { VectorMath } from "../../asm/math.ts";
import { type AttentionWasm, TILE } from "./wasm_tile.ts";

/** Lanes of a vector: keys of a group in a tile, or rows. */
export const FOUR = 4;

/** Rows per block, for runs of at most T rows. */
export function blockRows(T: number): number {
  return T > 4 ? 8 : 4;
}

/**
 * Thread-local scratch for the current block, as byte offsets:
 *
 *     max │ newMax │ sum │ rescale │ scores      │ queries │ out
 *     [B] │ [B]    │ [B] │ [B]     │ [TILE, B]   │ [D, B]  │ [B, D rounded up to fours]
 *
 * B is the number of rows of a block; a line holds one number per row.
 */
export interface Layout {
  /** B, rows. */
  readonly block: number;
  /** Bytes of a line. */
  readonly line: number;
  /** Byte offsets of the vectors in a line. */
  readonly halves: readonly number[];
  /**
   * Keys (scores) or rows (values) of a register tile; the other side has eight columns. Eight, if
   * two vectors of a line are joined: eight sums keep the processor busy.
   */
  readonly height: number;
  /** Running max before this tile [B]. */
  readonly max: number;
  /** Running max with this tile [B]. */
  readonly newMax: number;
  /** Running sum of weights [B]. */
  readonly sum: number;
  /** 2^(max − newMax), the factor of earlier sums and values [B]. */
  readonly rescale: number;
  /** Scores of a tile, then weights: [TILE, B]. */
  readonly scores: number;
  /** Transposed queries: [D, B]. */
  readonly queries: number;
  /** Weighted values: [B, D]. */
  readonly out: number;
  /** Bytes of a row of `out`. */
  readonly pitch: number;
  /** Bytes of the scratch. */
  readonly bytes: number;
}

export function layoutOf({ T, D }: Pick<AttentionWasm, "T" | "D">, simd: Simd): Layout {
  const block = blockRows(T);
  const line = 4 * block;
  const pitch = 16 * Math.ceil(D / 4);
  const queries = (4 + TILE) * line;
  const out = queries + block * pitch;
  return {
    block,
    line,
    halves: block > 4 ? [0, 16] : [0],
    height: block > 4 && simd !== "128" ? 8 : 4,
    max: 0,
    newMax: line,
    sum: 2 * line,
    rescale: 3 * line,
    scores: 4 * line,
    queries,
    out,
    pitch,
    bytes: out + block * pitch,
  };
}

/** Loads of pairs, if the vectors of a line are joined. */
export function pairsOf(
  f: FunctionBuilder,
  { simd }: VectorMath,
  { height }: Pick<Layout, "height">,
): PairLoads | null {
  return height > FOUR ? f32PairLoads(f, simd) : null;
}

/** Loads the vectors of a line. */
export function loadLine(
  vectors: readonly Local<"v128">[],
  at: Local<Int>,
  offset: number,
  pairs: PairLoads | null,
): void {
  if (pairs) pairs.load([vectors[0], vectors[1]], at, offset);
  else for (const [h, v] of vectors.entries()) v.set(v128.load(at, offset + 16 * h));
}

/**
 * LongRoPE's rotary table: short or long factors, by the number of tokens in use.
 *
 * With O the original context and n the tokens in use, as transformers' `dynamic_rope_update`:
 *
 *     row     0 ─────────── O − 1 │ O ─────────── P − 1
 *     n ≤ O   short factors       │ long, unused: positions are below n
 *     n > O   long factors        │ long factors
 *
 * So a change of factors writes O rows. Keys that were cached before the change are rotated by the
 * other factors: the runner discards them and prefills the text again, as transformers' Phi 3.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { type RopeScaling, ropeTable } from "../../kernels/ops/rope.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Rope } from "../architecture/mod.ts";

/** A rotary table with more rows than the original context. */
export class LongRope {
  #isLong = true;

  /** Takes a table whose rows all have the long factors. */
  constructor(
    readonly backend: Backend,
    /** [P, R] */
    readonly table: Tensor,
    readonly rope: Rope & { readonly scaling: RopeScaling & { type: "longrope" } },
  ) {}

  /** The most tokens that the table's values are right for. */
  get mostTokens(): number {
    return this.#isLong ? Infinity : this.rope.scaling.originalPositions;
  }

  /**
   * Writes the rows for `tokens` tokens; steps queued before still read the old ones.
   * @returns whether the factors changed.
   */
  rotateFor(tokens: number): boolean {
    const { originalPositions } = this.rope.scaling;
    const isLong = tokens > originalPositions;
    if (isLong === this.#isLong) return false;
    this.#isLong = isLong;
    const rows = ropeTable({ ...this.rope, positions: originalPositions, tokens }); // [O, R]
    this.backend.write(this.table, rows);
    return true;
  }
}

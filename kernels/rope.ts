/**
 * Rotary positions (Su et al., RoFormer, 2021): pairs of numbers of a head, turned by an angle that grows with the position.
 *
 * The pairs are (i, i + R/2) in the half-rotated layout (Llama, GPT-NeoX) and (2i, 2i + 1) in the interleaved one
 * (GPT-J). R ≤ D numbers of each head turn; the rest pass through. Angles come from a table, whatever made it, so no kernel
 * knows of a scaling rule.
 *
 * @module
 */

/** What a table is made from. */
export interface RopeTableOptions {
  /** P: rows of the table. */
  readonly positions: number;
  /** R: numbers of a head that turn; even. */
  readonly rotaryDim: number;
  /** Base of the geometric series of frequencies; 10000 in the paper. */
  readonly theta: number;
}

/**
 * A table [P, R]: row p holds the R/2 cosines, then the R/2 sines, of position p.
 *
 * Rounds to F32 where PyTorch does (the inverse frequency, then the angle), so that both turn by the same angle.
 */
export function ropeTable({ positions, rotaryDim, theta }: RopeTableOptions): Float32Array {
  const half = rotaryDim / 2;
  const table = new Float32Array(positions * rotaryDim);
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(1 / Math.fround(theta ** Math.fround(2 * i / rotaryDim)));
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * frequency);
      table[p * rotaryDim + i] = Math.cos(angle);
      table[p * rotaryDim + half + i] = Math.sin(angle);
    }
  }
  return table;
}

/** The oracle: turns the first R numbers at `at` in place, by the table's row for `position`. */
export function rotateJs(
  x: Float32Array,
  at: number,
  table: Float32Array,
  position: number,
  rotaryDim: number,
  interleaved: boolean,
): void {
  const half = rotaryDim / 2;
  const row = position * rotaryDim;
  for (let i = 0; i < half; i++) {
    const a = at + (interleaved ? 2 * i : i);
    const b = interleaved ? a + 1 : a + half;
    const cos = table[row + i];
    const sin = table[row + half + i];
    const xa = x[a];
    const xb = x[b];
    x[a] = xa * cos - xb * sin;
    x[b] = xb * cos + xa * sin;
  }
}

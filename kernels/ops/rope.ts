/**
 * Rotary positions (Su et al., RoFormer, 2021): pairs of numbers of a head, turned by an angle that
 * grows with the position.
 *
 * The pairs are (i, i + R/2) in the half-rotated layout (Llama, GPT-NeoX) and (2i, 2i + 1) in the
 * interleaved one (GPT-J). R ≤ D numbers of each head turn; the rest pass through. Angles come from
 * a table, whatever made it, so no kernel knows of a scaling rule.
 *
 * @module
 */

/**
 * How a model's frequencies are stretched to a longer context than it was first trained on;
 * positions count in tokens.
 */
export type RopeScaling =
  /** Every frequency divided by `factor` (Chen et al., 2023). */
  | { readonly type: "linear"; readonly factor: number }
  /**
   * Llama 3.1: long waves divided by `factor`, short ones kept, a smooth passage between the two.
   */
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFreqFactor: number;
    readonly highFreqFactor: number;
    readonly originalPositions: number;
  }
  /**
   * YaRN (Peng et al., 2023): a linear passage over the pairs that turn `betaSlow` … `betaFast`
   * times in the first context.
   */
  | {
    readonly type: "yarn";
    readonly factor: number;
    readonly betaFast: number;
    readonly betaSlow: number;
    /** Whether the passage begins and ends at whole pairs. */
    readonly truncate: boolean;
    readonly originalPositions: number;
    /** What cosines and sines are multiplied by. */
    readonly attentionFactor: number;
  }
  /**
   * LongRoPE (Ding et al., 2024): a divisor [R/2] for each pair, one list for contexts as long as
   * the first one, one for longer.
   */
  | {
    readonly type: "longrope";
    readonly shortFactor: readonly number[];
    readonly longFactor: readonly number[];
    readonly originalPositions: number;
    /** What cosines and sines are multiplied by. */
    readonly attentionFactor: number;
  };

/** What a table is made from. */
export interface RopeTableOptions {
  /** P: rows of the table, one more than the context. */
  readonly positions: number;
  /** R: numbers of a head that turn; even. */
  readonly rotaryDim: number;
  /** Base of the geometric series of frequencies; 10000 in the paper. */
  readonly theta: number;
  /** Default none. */
  readonly scaling?: RopeScaling;
}

/**
 * A table [P, R]: row p holds the R/2 cosines, then the R/2 sines, of position p.
 *
 * Rounds to F32 where PyTorch does (the inverse frequency, then the angle), so that
 * both turn by the same angle.
 */
export function ropeTable(options: RopeTableOptions): Float32Array {
  const { positions, rotaryDim, scaling } = options;
  const half = rotaryDim / 2;
  const scale = scaling && "attentionFactor" in scaling ? scaling.attentionFactor : 1;
  const table = new Float32Array(positions * rotaryDim);
  for (const [i, frequency] of ropeFrequencies(options).entries()) {
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * frequency);
      table[p * rotaryDim + i] = scale * Math.cos(angle);
      table[p * rotaryDim + half + i] = scale * Math.sin(angle);
    }
  }
  return table;
}

/**
 * The angle [R/2] by which each pair turns from one position to the next, as transformers'
 * modeling_rope_utils.py has it.
 */
function ropeFrequencies(options: RopeTableOptions): Float32Array {
  const { positions, rotaryDim, theta, scaling } = options;
  const waves = Float32Array.from(
    { length: rotaryDim / 2 },
    (_, i) => theta ** Math.fround(2 * i / rotaryDim),
  );
  switch (scaling?.type) {
    case undefined:
      return waves.map((wave) => 1 / wave);
    case "linear":
      return waves.map((wave) => Math.fround(1 / wave) / scaling.factor);
    case "llama3":
      return waves.map((wave) => llama3(Math.fround(1 / wave), scaling));
    case "yarn": {
      const kept = yarnKept(rotaryDim, theta, scaling);
      return waves.map((wave, i) =>
        Math.fround(1 / Math.fround(scaling.factor * wave)) * Math.fround(1 - kept[i]) +
        Math.fround(1 / wave) * kept[i]
      );
    }
    case "longrope": {
      // A model that is asked for a longer context turns by the long factors from its first token
      // on: keys that are in the cache have been turned, and cannot follow a change in mid-text.
      const { originalPositions, longFactor, shortFactor } = scaling;
      const factors = positions - 1 > originalPositions ? longFactor : shortFactor;
      return waves.map((wave, i) => 1 / Math.fround(Math.fround(factors[i]) * wave));
    }
  }
}

function llama3(
  frequency: number,
  { factor, lowFreqFactor, highFreqFactor, originalPositions }:
    & RopeScaling
    & { type: "llama3" },
): number {
  const turns = originalPositions * frequency / (2 * Math.PI);
  if (turns > highFreqFactor) return frequency;
  if (turns < lowFreqFactor) return frequency / factor;
  const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** The part [R/2] of each frequency that stays as it was: 1 for short waves, 0 for long ones. */
function yarnKept(
  rotaryDim: number,
  theta: number,
  { betaFast, betaSlow, truncate, originalPositions }: RopeScaling & { type: "yarn" },
): Float32Array {
  /** The pair that turns so many times in the first context. */
  const pair = (turns: number) =>
    rotaryDim * Math.log(originalPositions / (turns * 2 * Math.PI)) / (2 * Math.log(theta));
  let [low, high] = [pair(betaFast), pair(betaSlow)];
  if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, rotaryDim - 1);
  if (low === high) high += 0.001; // as transformers keeps clear of 0/0
  return Float32Array.from(
    { length: rotaryDim / 2 },
    (_, i) => 1 - Math.min(Math.max((i - low) / (high - low), 0), 1),
  );
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

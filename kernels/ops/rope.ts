/**
 * Rotary position embedding, RoPE (Su et al., RoFormer, 2021): rotates pairs of numbers of a head.
 *
 *     (a, b) ← (a·cos − b·sin, b·cos + a·sin),  angle = position · frequency[pair]
 *
 *     half-rotated  pairs (i, i + R/2)      Llama, GPT-NeoX
 *     interleaved   pairs (2i, 2i + 1)      GPT-J
 *
 * The first R ≤ D numbers of each head are rotated; the rest pass through. Cosines and sines come
 * from a table, so kernels do not depend on the scaling rule.
 *
 * @module
 */

/**
 * Scaling of the frequencies to a longer context than the original one; positions are in tokens.
 */
export type RopeScaling =
  /** Every frequency is divided by `factor` (Chen et al., 2023). */
  | { readonly type: "linear"; readonly factor: number }
  /** Each frequency is divided by a number of its own [R/2], as GGUF files have them. */
  | { readonly type: "divisors"; readonly divisors: readonly number[] }
  /**
   * Llama 3.1: low frequencies are divided by `factor`, high ones kept, those between interpolated.
   */
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFreqFactor: number;
    readonly highFreqFactor: number;
    readonly originalPositions: number;
  }
  /**
   * YaRN (Peng et al., 2023): interpolates linearly over the pairs that make `betaSlow` …
   * `betaFast` rotations in the original context.
   */
  | {
    readonly type: "yarn";
    readonly factor: number;
    readonly betaFast: number;
    readonly betaSlow: number;
    /** Whether to round the ends of that range outwards to whole pairs. */
    readonly truncate: boolean;
    readonly originalPositions: number;
    /** Factor of cosines and sines. */
    readonly attentionFactor: number;
  }
  /**
   * LongRoPE (Ding et al., 2024): frequencies are divided by factors [R/2], one list for texts up
   * to the original context and one for longer texts.
   */
  | {
    readonly type: "longrope";
    readonly shortFactor: readonly number[];
    readonly longFactor: readonly number[];
    readonly originalPositions: number;
    /** Factor of cosines and sines. */
    readonly attentionFactor: number;
  };

/** Parameters of a table. */
export interface RopeTableOptions {
  /** P: rows of the table, one more than the context. */
  readonly positions: number;
  /** R: rotated numbers of a head; even. */
  readonly rotaryDim: number;
  /** Base of the geometric series of frequencies; 10000 in the paper. */
  readonly theta: number;
  /** Scaling of the frequencies; default none. */
  readonly scaling?: RopeScaling;
  /** Number of tokens in use, by which LongRoPE chooses its factors; default P − 1. */
  readonly tokens?: number;
}

/**
 * Rerotations a table [P, R]: row p holds the R/2 cosines, then the R/2 sines, of position p.
 *
 * Rounds to F32 where PyTorch does (inverse frequency, then angle), for equal angles.
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

/** Angle per position [R/2] of each pair, as in transformers' modeling_rope_utils.py. */
function ropeFrequencies(options: RopeTableOptions): Float32Array {
  const { positions, rotaryDim, theta, scaling, tokens = positions - 1 } = options;
  const waves = Float32Array.from(
    { length: rotaryDim / 2 },
    (_, i) => theta ** Math.fround(2 * i / rotaryDim),
  );
  switch (scaling?.type) {
    case undefined:
      return waves.map((wave) => 1 / wave);
    case "linear":
      return waves.map((wave) => Math.fround(1 / wave) / scaling.factor);
    case "divisors":
      return waves.map((wave, i) => Math.fround(1 / wave) / scaling.divisors[i]);
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
      const { originalPositions, longFactor, shortFactor } = scaling;
      const factors = tokens > originalPositions ? longFactor : shortFactor;
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
  const rotations = originalPositions * frequency / (2 * Math.PI);
  if (rotations > highFreqFactor) return frequency;
  if (rotations < lowFreqFactor) return frequency / factor;
  const smooth = (rotations - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** Share [R/2] of each frequency that is kept: 1 for high frequencies, 0 for low ones. */
function yarnKept(
  rotaryDim: number,
  theta: number,
  { betaFast, betaSlow, truncate, originalPositions }: RopeScaling & { type: "yarn" },
): Float32Array {
  /** The pair that makes so many rotations in the original context. */
  const pair = (rotations: number) =>
    rotaryDim * Math.log(originalPositions / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
  let [low, high] = [pair(betaFast), pair(betaSlow)];
  if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, rotaryDim - 1);
  if (low === high) high += 0.001; // avoids 0/0, as transformers does
  return Float32Array.from(
    { length: rotaryDim / 2 },
    (_, i) => 1 - Math.min(Math.max((i - low) / (high - low), 0), 1),
  );
}

/** The plain form, and oracle of the others: rotates the first R numbers at `at` in place. */
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

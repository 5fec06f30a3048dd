/**
 * Defaults and ranges of options: one table for the library, the command line,
 * its help and `--config`.
 *
 * @module
 */

/** The value of each option where none is given. */
export const DEFAULTS = {
  // loading
  device: "auto",
  dtype: "auto",
  /** At most, and at most the model's; a sliding window is taken whole. */
  contextLength: 4096,
  revision: "main",
  // generating
  maxNewTokens: 256,
  temperature: 0.9,
  topK: 40,
  topP: 1,
  repetitionPenalty: 1,
  useKvCache: true,
  deterministic: false,
  ignoreEos: false,
  // benchmark
  source: "local",
  prompt: "ROMEO:",
  /** Random ids, for a model without a tokenizer. */
  promptTokens: 128,
  warmupTokens: 64,
  genTokens: 256,
  iters: 3,
  stream: false,
} as const;

/** Values that an option takes, and their name in an error message. */
export interface Range {
  readonly name: string;
  readonly has: (value: unknown) => boolean;
}

/** Finite numbers for which `has` is true. */
export function numbers(name: string, has: (n: number) => boolean): Range {
  return { name, has: (value) => Number.isFinite(value) && has(value as number) };
}

/** Whole numbers from `least` on. */
export function wholeNumbers(least: number): Range {
  const name = `a whole number of at least ${least}`;
  return numbers(name, (n) => Number.isSafeInteger(n) && n >= least);
}

/** The ranges of the options that the library, flags and settings files share. */
export const RANGES = {
  maxNewTokens: wholeNumbers(0),
  seed: wholeNumbers(0),
  temperature: numbers("a number of at least 0", (n) => n >= 0),
  topK: wholeNumbers(0),
  topP: numbers("a number from 0 to 1", (n) => n >= 0 && n <= 1),
  repetitionPenalty: numbers("a number above 0", (n) => n > 0),
} as const satisfies Readonly<Record<string, Range>>;

/**
 * Defaults and ranges of options, for the library, the command line, its help and `--config`.
 *
 * @module
 */

/** Default values of options. */
export const DEFAULTS = {
  // loading
  device: "auto",
  dtype: "auto",
  kvDtype: "F32",
  /** Upper limit in tokens, besides the model's own; LabCore's and nanoGPT's context is not cut. */
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
  /** Number of random ids in the prompt of a model without a tokenizer. */
  promptTokens: 128,
  warmupTokens: 64,
  genTokens: 256,
  iters: 3,
  stream: false,
  /** Format on standard output. */
  output: "md",
} as const;

/** Allowed values of an option, and their name in error messages. */
export interface Range {
  readonly name: string;
  readonly has: (value: unknown) => boolean;
}

/** The finite numbers for which `has` is true. */
export function numbers(name: string, has: (n: number) => boolean): Range {
  return { name, has: (value) => Number.isFinite(value) && has(value as number) };
}

/** The integers from `least` on, below 2^53. */
export function wholeNumbers(least: number): Range {
  const name = `a whole number of at least ${least}`;
  return numbers(name, (n) => Number.isSafeInteger(n) && n >= least);
}

/** Ranges of the options that the library, the command line and `--config` share. */
export const RANGES = {
  maxNewTokens: wholeNumbers(0),
  seed: wholeNumbers(0),
  temperature: numbers("a number of at least 0", (n) => n >= 0),
  topK: wholeNumbers(0),
  topP: numbers("a number from 0 to 1", (n) => n >= 0 && n <= 1),
  repetitionPenalty: numbers("a number above 0", (n) => n > 0),
} as const satisfies Readonly<Record<string, Range>>;

/**
 * What a generation may be asked for, and the distribution that it draws from.
 *
 * @module
 */
import { filterLogits } from "../kernels/ops/sample/mod.ts";

/** How the next token is chosen. */
export interface SamplingOptions {
  /** 0 is greedy, ties to the lowest id. Default 0.9. */
  readonly temperature?: number;
  /** Keep the k largest logits, and all that equal the k-th; 0 is off. Default 40. */
  readonly topK?: number;
  /** Keep ids while the probability of all greater ones is at most p; 1 is off. Default 1. */
  readonly topP?: number;
  /** Divides the logit of each id generated so far; 1 is off. Default 1. */
  readonly repetitionPenalty?: number;
}

/** The defaults of every face. */
export const SAMPLING_DEFAULTS: Required<SamplingOptions> = {
  temperature: 0.9,
  topK: 40,
  topP: 1,
  repetitionPenalty: 1,
};

/** Fills in defaults. @throws {RangeError} naming the option that is out of range. */
export function checkSampling(options: SamplingOptions): Required<SamplingOptions> {
  const { temperature, topK, topP, repetitionPenalty } = SAMPLING_DEFAULTS;
  const checked = {
    temperature: options.temperature ?? temperature,
    topK: options.topK ?? topK,
    topP: options.topP ?? topP,
    repetitionPenalty: options.repetitionPenalty ?? repetitionPenalty,
  };
  expectOption("temperature", checked.temperature, "a number of at least 0", (n) => n >= 0);
  expectOption("topK", checked.topK, "an integer of at least 0", isCount);
  expectOption("topP", checked.topP, "a number from 0 to 1", (n) => n >= 0 && n <= 1);
  expectOption("repetitionPenalty", checked.repetitionPenalty, "a number above 0", (n) => n > 0);
  return checked;
}

/** @throws {RangeError} when an option's value does not hold. */
export function expectOption(
  name: string,
  value: number,
  expected: string,
  holds: (value: number) => boolean,
): void {
  if (!Number.isFinite(value) || !holds(value)) {
    throw new RangeError(`Cannot generate: expected ${name} to be ${expected}, got ${value}`);
  }
}

/** Whether a number counts something. */
export function isCount(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0;
}

/**
 * The distribution [V] that sampling draws from: temperature, repetition penalty, top-k, top-p, softmax, in LabCore's order.
 * @param logits [V]
 * @param generated ids drawn so far, the prompt's not among them.
 * @throws {RangeError} on an option out of range, or logits that are not finite.
 */
export function nextTokenProbabilities(
  logits: Float32Array,
  generated: readonly number[],
  options: SamplingOptions = {},
): Float32Array {
  const V = logits.length;
  const seen = new Uint32Array(V);
  for (const id of generated) seen[id] = 1;
  const kept = new Float32Array(V);
  if (!filterLogits(kept, logits, seen, checkSampling(options), new Float32Array(V))) {
    throw new RangeError("Cannot give probabilities: expected finite logits");
  }
  const max = kept.reduce((a, b) => Math.max(a, b), -Infinity);
  let total = 0;
  for (const s of kept) total += Math.exp(s - max);
  return kept.map((s) => Math.exp(s - max) / total);
}

/**
 * Sampling options, and the next-token distribution that they define.
 *
 * @module
 */
import { filterLogits } from "../kernels/ops/sample/mod.ts";
import { DEFAULTS, RANGES } from "./defaults.ts";

/** How the next token is chosen. */
export interface SamplingOptions {
  /** 0 is greedy, ties to the lowest id. Default 0.9. */
  readonly temperature?: number;
  /** Keep the k largest logits, and all that equal the k-th; 0 is off. Default 40. */
  readonly topK?: number;
  /**
   * Keep ids while the probability of all greater ones is at most p; 1 is off, 0 keeps
   * the likeliest. Default 1.
   */
  readonly topP?: number;
  /** Divides the logit of each id generated so far; 1 is off. Default 1. */
  readonly repetitionPenalty?: number;
}

/** Fills in defaults. @throws {RangeError} naming the option that is out of range. */
export function checkSampling(options: SamplingOptions): Required<SamplingOptions> {
  const checked = {
    temperature: options.temperature ?? DEFAULTS.temperature,
    topK: options.topK ?? DEFAULTS.topK,
    topP: options.topP ?? DEFAULTS.topP,
    repetitionPenalty: options.repetitionPenalty ?? DEFAULTS.repetitionPenalty,
  };
  for (const name of ["temperature", "topK", "topP", "repetitionPenalty"] as const) {
    expectOption(name, checked[name]);
  }
  return checked;
}

/** @throws {RangeError} if the value is out of the option's range. */
export function expectOption(name: keyof typeof RANGES, value: number): void {
  const range = RANGES[name];
  if (!range.has(value)) {
    throw new RangeError(`Cannot generate: expected ${name} to be ${range.name}, got ${value}`);
  }
}

/**
 * The distribution [V] that sampling draws from: temperature, repetition penalty, top-k, top-p,
 * softmax, in LabCore's order.
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

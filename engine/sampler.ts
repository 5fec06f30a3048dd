/**
 * Sampling options, and the next-token distribution that they define.
 *
 * @module
 */
import { filterLogits } from "../kernels/ops/sample/mod.ts";
import { DEFAULTS, RANGES } from "./defaults.ts";
import { copyIds, expectType, isOptions, show } from "./options.ts";

/** Options of sampling: how the next token is chosen. */
export interface SamplingOptions {
  /** Divides the logits; 0 is greedy, ties to the lowest id. Default 0.9. */
  readonly temperature?: number;
  /** Keeps the k largest logits and all that equal the k-th; 0 is off. Default 40. */
  readonly topK?: number;
  /**
   * Keeps ids while the probability of all greater ones is at most p; 1 is off, 0 keeps the
   * likeliest id alone. Default 1.
   */
  readonly topP?: number;
  /** Divides the logit of each id generated so far; 1 is off. Default 1. */
  readonly repetitionPenalty?: number;
}

/**
 * Fills in defaults.
 * @throws {TypeError} If an option is not a number.
 * @throws {RangeError} If an option is out of range.
 */
export function checkSampling(options: SamplingOptions): Required<SamplingOptions> {
  expectType("Cannot generate: expected options", "an object", isOptions(options), options);
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

/**
 * Checks an option against the table of ranges.
 * @throws {TypeError} If the value is not a number.
 * @throws {RangeError} If the value is out of range.
 */
export function expectOption(name: keyof typeof RANGES, value: number): void {
  const range = RANGES[name];
  expectType(`Cannot generate: expected ${name}`, range.name, typeof value === "number", value);
  if (!range.has(value)) {
    throw new RangeError(
      `Cannot generate: expected ${name} to be ${range.name}, got ${show(value)}`,
    );
  }
}

/**
 * The distribution that sampling draws from: logits after temperature, repetition penalty, top-k
 * and top-p, in this order (LabCore's), through a softmax.
 *
 * @param logits one row of logits, [V].
 * @param generated ids drawn so far, without those of the prompt.
 * @param options temperature, top-k, top-p and repetition penalty.
 * @returns probabilities, [V]; ids that cannot be drawn have 0.
 * @throws {TypeError} If an argument is of the wrong type.
 * @throws {RangeError} If an option is out of range, an id is outside the vocabulary, or a logit is
 *   not finite.
 * @example
 * ```ts
 * import { nextTokenProbabilities } from "@wgslm/wgslm";
 *
 * const logits = new Float32Array([1, 3, 2]);
 * const p = nextTokenProbabilities(logits, [], { temperature: 1, topK: 2 });
 * console.log(p); // Float32Array [0, 0.731, 0.269]
 * ```
 */
export function nextTokenProbabilities(
  logits: Float32Array,
  generated: readonly number[],
  options: SamplingOptions = {},
): Float32Array {
  const what = "Cannot give probabilities: expected logits";
  expectType(what, "a Float32Array", logits instanceof Float32Array, logits);
  const V = logits.length;
  const seen = new Uint32Array(V);
  for (const id of copyIds(generated, V)) seen[id] = 1;
  const filter = checkSampling(options);
  const kept = new Float32Array(V);
  if (!filterLogits(kept, logits, seen, filter, new Float32Array(V))) {
    throw new RangeError("Cannot give probabilities: expected finite logits");
  }
  return softmax(kept);
}

/** pᵢ = e^(sᵢ − max) / Σ e^(sⱼ − max), [V]. */
function softmax(s: Float32Array): Float32Array {
  let max = -Infinity;
  for (const value of s) max = Math.max(max, value);
  const exp = Float64Array.from(s, (value) => Math.exp(value - max));
  const total = exp.reduce((sum, value) => sum + value, 0);
  return Float32Array.from(exp, (value) => value / total);
}

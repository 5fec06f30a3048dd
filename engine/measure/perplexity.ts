/**
 * Perplexity of a text, and the divergence of one model's predictions from another's.
 *
 * Windows slide over the text as in the Hugging Face guide to perplexity. Each token is scored
 * once, with at least `context - stride` tokens before it, except at the beginning of the text:
 *
 *     context 8, stride 4        · read only, s scored
 *     ·sssssss
 *         ····ssss
 *             ····ssss
 *
 * Source: https://huggingface.co/docs/transformers/perplexity
 *
 * @module
 */
import { findNotFinite } from "../diagnose.ts";
import { instrumentsOf, type Model, remoteCalls } from "../model.ts";
import { copyIds, expectType, isOptions, show } from "../options.ts";
import type { Runner } from "../runner.ts";

/** Options of `perplexity()`. */
export interface PerplexityOptions {
  /** Tokens per window. Default: the model's context. */
  readonly context?: number;
  /** Tokens from the beginning of one window to that of the next. Default: half the context. */
  readonly stride?: number;
  /** Model whose predictions are the reference of `kl` and `sameTop`. */
  readonly reference?: Model;
  /** Called after each window with the number of scored tokens. */
  readonly onProgress?: (progress: { readonly tokens: number; readonly total: number }) => void;
  /** Stops the run between two chunks. */
  readonly signal?: AbortSignal;
}

/** Result of `perplexity()`. */
export interface Perplexity {
  /** Mean negative log-likelihood of a scored token, in nats. */
  readonly nll: number;
  /** exp(nll). */
  readonly perplexity: number;
  /** Number of scored tokens. */
  readonly tokens: number;
  /** Tokens per window. */
  readonly context: number;
  /** Tokens from one window to the next. */
  readonly stride: number;
  /** Mean of KL(reference ‖ model) over the scored tokens, in nats. */
  readonly kl?: number;
  /** Share of scored tokens at which both models rank the same token first, 0 to 1. */
  readonly sameTop?: number;
}

/** Window [begin, end) of the text, of which the tokens from `scored` on are scored. */
interface Window {
  readonly begin: number;
  readonly end: number;
  readonly scored: number;
}

/** Sums over the scored tokens. */
interface Sums {
  nll: number;
  kl: number;
  sameTop: number;
}

/**
 * Computes the perplexity of a text or of token ids, and with `reference` how far the model's
 * distributions of the next token are from another model's.
 *
 * @param model a loaded model.
 * @param text a text, encoded with special tokens, or ids; at least two tokens.
 * @param options window, stride and reference.
 * @throws {TypeError} If an argument is of the wrong type.
 * @throws {RangeError} If there are fewer than two tokens, the window exceeds the context of a
 *   model, the stride exceeds the window, or the reference has another vocabulary.
 * @throws {CheckpointError} If a logit is not finite; the message names the layer.
 * @throws the signal's reason, if it is aborted.
 * @example
 * ```ts
 * import { loadModel, perplexity } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const result = await perplexity(model, "ROMEO:\nWhat light is this?", { context: 16 });
 * console.log(result.perplexity);
 * ```
 */
export async function perplexity(
  model: Model,
  text: string | readonly number[],
  options: PerplexityOptions = {},
): Promise<Perplexity> {
  expectType("Cannot score: expected options", "an object", isOptions(options), options);
  const { reference, signal, onProgress } = options;
  const remote = remoteCalls.get(model);
  if (remote && !reference) return await remote("perplexity", [text], options);
  if (reference) expectReference(model, reference, text);
  const ids = idsOf(model, text);
  const { context, stride } = windowSize(model, options);
  const windows = windowsOf(ids.length, context, stride);
  const total = windows.reduce((sum, { scored, end }) => sum + end - scored, 0);
  const sums: Sums = { nll: 0, kl: 0, sameTop: 0 };
  let tokens = 0;
  for (const window of windows) {
    await scoreWindow(model, reference, ids, window, sums, signal);
    tokens += window.end - window.scored;
    onProgress?.({ tokens, total });
  }
  const nll = sums.nll / tokens;
  const shared = { nll, perplexity: Math.exp(nll), tokens, context, stride };
  // Rounding may leave a divergence of equal distributions below 0.
  const kl = Math.max(0, sums.kl / tokens);
  return reference ? { ...shared, kl, sameTop: sums.sameTop / tokens } : shared;
}

/** @throws {RangeError} If the two models do not read the same ids. */
function expectReference(
  model: Model,
  reference: Model,
  text: string | readonly number[],
): void {
  const refuse = (expected: string) => {
    throw new RangeError(`Cannot compare "${model.id}" with "${reference.id}": ${expected}`);
  };
  if (reference === model) refuse("expected another model, got the same one; load it twice");
  const [V, W] = [model.config.vocabSize, reference.config.vocabSize];
  if (V !== W) refuse(`expected the same vocabulary, got ${V} and ${W} tokens`);
  if (typeof text !== "string" || !model.hasTokenizer || !reference.hasTokenizer) return;
  const [ids, others] = [model, reference].map(({ tokenizer }) => tokenizer.encode(text));
  if (ids.length === others.length && ids.every((id, i) => id === others[i])) return;
  refuse("expected the same vocabulary, got other ids for the text");
}

function idsOf(model: Model, text: string | readonly number[]): number[] {
  const isText = typeof text === "string";
  const isList = typeof text === "object" && text !== null;
  expectType("Cannot score: expected a text", "text or token ids", isText || isList, text);
  const ids = copyIds(isText ? model.tokenizer.encode(text) : text, model.config.vocabSize);
  if (ids.length >= 2) return ids;
  throw new RangeError(`Cannot score: expected at least 2 tokens, got ${ids.length}`);
}

/** Window and stride, checked. */
function windowSize(
  model: Model,
  { context: asked, stride: step, reference }: PerplexityOptions,
): { context: number; stride: number } {
  const most = Math.min(model.contextLength, reference?.contextLength ?? Infinity);
  const expect = (name: string, value: number, least: number, most: number) => {
    if (Number.isInteger(value) && value >= least && value <= most) return;
    throw new RangeError(
      `Cannot score: expected ${name} to be an integer from ${least} to ${most}, got ${
        show(value)
      }`,
    );
  };
  const context = asked ?? most;
  expect("context", context, 2, most);
  const stride = step ?? Math.max(1, context >> 1);
  expect("stride", stride, 1, context);
  return { context, stride };
}

/** Windows over `count` tokens; every window scores at least one. */
function windowsOf(count: number, context: number, stride: number): Window[] {
  const windows: Window[] = [];
  for (let begin = 0, before = 0; before < count; begin += stride) {
    const end = Math.min(begin + context, count);
    // The first token of a window has none before it that would predict it.
    const scored = Math.max(before, begin + 1);
    if (scored < end) windows.push({ begin, end, scored });
    before = end;
  }
  return windows;
}

/** Adds the scores of a window to `sums`. */
async function scoreWindow(
  model: Model,
  reference: Model | undefined,
  ids: readonly number[],
  { begin, end, scored }: Window,
  sums: Sums,
  signal?: AbortSignal,
): Promise<void> {
  const inputs = ids.slice(begin, end - 1);
  const targets = ids.slice(scored, end);
  const first = scored - 1 - begin;
  if (reference && [model, reference].some((each) => remoteCalls.has(each))) {
    signal?.throwIfAborted();
    return await scoreRemotely(model, reference, inputs, targets, first, sums);
  }
  const score = async (runner: Runner, other?: Runner) => {
    const rows = rowsOf(runner, inputs, first, signal);
    const others = other && rowsOf(other, inputs, first, signal);
    for (const target of targets) {
      const row = (await rows.next()).value!;
      addRow(sums, target, row, others && (await others.next()).value!);
    }
    if (!Number.isFinite(sums.nll)) throw await findNotFinite(runner, inputs);
    if (!Number.isFinite(sums.kl)) throw await findNotFinite(other!, inputs);
  };
  const { run } = instrumentsOf(model);
  const work = (runner: Runner) =>
    reference
      ? instrumentsOf(reference).run(inputs, (other) => score(runner, other), signal)
      : score(runner);
  await run(inputs, work, signal);
}

/** As `scoreWindow`, of models in workers: all logits of the window are sent to the page. */
async function scoreRemotely(
  model: Model,
  reference: Model,
  inputs: readonly number[],
  targets: readonly number[],
  first: number,
  sums: Sums,
): Promise<void> {
  const [rows, others] = await Promise.all([model.logits(inputs), reference.logits(inputs)]);
  const V = model.config.vocabSize;
  for (const [i, target] of targets.entries()) {
    const at = (first + i) * V;
    addRow(sums, target, rows.subarray(at, at + V), others.subarray(at, at + V));
  }
}

/** Adds the score of a token to `sums`; `expected` is the reference's row. */
function addRow(sums: Sums, target: number, row: Float32Array, expected?: Float32Array): void {
  sums.nll += logSumExp(row) - row[target];
  if (!expected) return;
  sums.kl += divergence(expected, row);
  sums.sameTop += Number(topOf(expected) === topOf(row));
}

/** Logits [V] of row `first` on, one row at a time. */
async function* rowsOf(
  runner: Runner,
  ids: readonly number[],
  first: number,
  signal?: AbortSignal,
): AsyncGenerator<Float32Array, undefined> {
  const V = runner.architecture.vocabSize;
  for await (const chunk of runner.logitChunks(ids, first, signal)) {
    for (let at = 0; at < chunk.length; at += V) yield chunk.subarray(at, at + V);
  }
}

/** log Σ exp(x), in doubles. */
export function logSumExp(row: Float32Array): number {
  const max = row[topOf(row)];
  let sum = 0;
  for (const x of row) sum += Math.exp(x - max);
  return max + Math.log(sum);
}

/** KL(p ‖ q) of two rows of logits: Σ p · (log p − log q). */
function divergence(p: Float32Array, q: Float32Array): number {
  const [totalP, totalQ] = [logSumExp(p), logSumExp(q)];
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    const logP = p[i] - totalP;
    sum += Math.exp(logP) * (logP - (q[i] - totalQ));
  }
  return sum;
}

/** Index of the largest logit, the lowest of equal ones. */
export function topOf(row: Float32Array): number {
  let top = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[top]) top = i;
  return top;
}

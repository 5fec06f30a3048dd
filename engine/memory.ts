/**
 * What a model will take, told before anything is allocated.
 *
 * @module
 */
import { totalmem } from "node:os";
import { DeviceError } from "../kernels/errors.ts";
import { BYTES, type MemoryClass, sizeOf, type WeightDtype } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture.ts";
import { stateShapes } from "./decoder.ts";
import { type WeightSpec, weightSpecs } from "./weights.ts";

/** Bytes by class, as `Model.memory` will count them once the model stands. */
export interface MemoryEstimate {
  /** Bytes of each class. */
  readonly classes: Readonly<Record<MemoryClass, number>>;
  /** Bytes of all classes. */
  readonly total: number;
  /** Bytes of the largest tensor, weights apart. */
  readonly largest: number;
}

/** What the estimate depends on beside the architecture. */
export interface EstimateOptions {
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** T: rows of a prefill chunk. */
  readonly chunk: number;
  /** The dtype that a weight is kept in. */
  readonly dtypeOf: (spec: WeightSpec) => WeightDtype;
}

/** The bytes of a model's buffers: what loading makes, before the first `logits()` call adds its rows. */
export function estimateMemory(
  a: Architecture,
  { contextLength, chunk, dtypeOf }: EstimateOptions,
): MemoryEstimate {
  const specs = weightSpecs(a);
  const rotaryDims = [a.rope, a.ropeLocal].map((rope) => rope?.rotaryDim ?? 0);
  const tables = rotaryDims.reduce((n, R) => n + 4 * (contextLength + 1) * R, 0);
  const weights = specs.reduce(
    (n, s) => n + sizeOf(s.shape) * (s.shape.length === 1 ? 4 : BYTES[dtypeOf(s)]),
    tables,
  );
  const kvCache = 2 * 4 * a.nLayer * a.nKvHead * contextLength * a.headDim;
  const rows = (T: number) =>
    Object.values(stateShapes(a, T)).reduce((n, shape) => n + 4 * sizeOf(shape), 0);
  // Sampling keeps the set of ids seen [V], 4 settings, 3 counters and 1 drawn id.
  const sampling = 4 * (a.vocabSize + 4 + 3 + 1);
  const activations = rows(chunk) + rows(1) + 4 * a.vocabSize + sampling;
  const classes = { weights, kvCache, activations, staging: 0 };
  const largest = Math.max(
    4 * a.nKvHead * contextLength * a.headDim,
    4 * a.vocabSize,
    ...Object.values(stateShapes(a, chunk)).map((shape) => 4 * sizeOf(shape)),
  );
  return { classes, total: weights + kvCache + activations, largest };
}

/** Bytes of this machine's memory; endless where nobody may ask. */
function hostMemory(): number {
  try {
    return totalmem();
  } catch {
    return Infinity;
  }
}

/** @throws {DeviceError} when a model cannot fit this machine's memory. */
export function checkFits(id: string, { total, classes }: MemoryEstimate, slots: number): void {
  const room = hostMemory();
  if (total <= room) return;
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  throw new DeviceError(
    `Cannot load "${id}": expected at most ${gib(room)} GiB (this machine's memory), got ${
      gib(total)
    } GiB, ${gib(classes.kvCache)} of them for a context of ${slots}; a smaller context takes less`,
  );
}

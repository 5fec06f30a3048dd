/**
 * Memory estimate of a run before anything is allocated, and the check that it fits a backend.
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import { DeviceError } from "../kernels/errors.ts";
import { KV_FORMATS, type KvDtype, kvFormatFor, kvRowBytes } from "../kernels/formats/kv.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import { type MemoryClass, sizeOf } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { stateShapes } from "./decoder.ts";
import { DEFAULTS } from "./defaults.ts";
import { findHost } from "./host/choose.ts";
import {
  chooseDtypes,
  countLayerParameters,
  weightBytes,
  type WeightSource,
} from "./weights/mod.ts";

/** Estimated bytes of a run by class, as `Model.memory` counts them after loading. */
export interface MemoryEstimate {
  /** Bytes of each class. */
  readonly classes: Readonly<Record<MemoryClass, number>>;
  /** Bytes of all classes. */
  readonly total: number;
  /** Bytes of the largest tensor, weights excluded. */
  readonly largest: number;
  /** T: rows of a prefill chunk. */
  readonly chunk: number;
  /** Dtype of the cache: the one asked for, or the next that holds the model's heads. */
  readonly kvDtype: KvDtype;
  /** Estimates another run of the same model; T follows from it unless it is given. */
  with(change: {
    /** S: tokens that the cache holds. */
    readonly contextLength?: number;
    /** T: rows of a prefill chunk. */
    readonly chunk?: number;
    /** Dtype of every weight in memory. */
    readonly dtype?: WeightDtype;
    /** Backend to run on. */
    readonly backend?: Pick<Backend, "nominalFlops" | "prefillRows" | "scratchBytes" | "holds">;
  }): MemoryEstimate;
}

/** Size of a run: the parameters of a memory estimate, weights excluded. */
export interface RunSize {
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** T: rows of a prefill chunk; default the backend's own number, or 0.2 s of its work. */
  readonly chunk?: number;
  /** Dtype of the cache; default F32. */
  readonly kvDtype?: KvDtype;
  /** Backend to run on; without it, a processor that adds no scratch. */
  readonly backend?: Pick<
    Backend,
    "nominalFlops" | "prefillRows" | "readAhead" | "scratchBytes" | "holds"
  >;
}

/** FLOP/s assumed for an unknown processor: two threads of WebAssembly. */
const CPU_FLOPS = 80e9;

/** Most rows of a prefill chunk, unless the backend asks for more. */
export const USUAL_CHUNK = 128;

/**
 * T: rows of a prefill chunk: the backend's own number, else a power of two from 4 to 128. Such a
 * chunk takes about 0.2 s, so that a run can show progress and be stopped.
 *
 * Method: T = 2^round(log2(0.2 s · FLOP/s / (2 · parameters))), at most S.
 *
 * @param layerParameters learned parameters of all layers, each multiplied once per row.
 */
function chunkRows(
  { nominalFlops, prefillRows }: Pick<Backend, "nominalFlops" | "prefillRows">,
  layerParameters: number,
  contextLength: number,
): number {
  if (prefillRows) return Math.min(prefillRows, contextLength);
  const rows = 0.2 * nominalFlops / (2 * layerParameters);
  const power = 2 ** Math.round(Math.log2(Math.max(1, rows)));
  return Math.min(Math.max(power, 4), USUAL_CHUNK, contextLength);
}

/** Estimates a model's buffers after loading; the first call of `logits()` adds its rows. */
export function estimateMemory(
  a: Architecture,
  source: Pick<WeightSource, "specs" | "dtype">,
  size: RunSize,
): MemoryEstimate {
  const { specs } = source;
  const layerParameters = countLayerParameters(specs);
  const held = (dtype: WeightDtype, backend: RunSize["backend"]) => ({
    specs,
    ...chooseDtypes(specs, dtype, source.dtype, backend?.holds),
  });
  const estimate = (matrices: number, size: RunSize): MemoryEstimate => {
    const { contextLength, backend = { nominalFlops: CPU_FLOPS } } = size;
    const chunk = size.chunk ?? chunkRows(backend, layerParameters, contextLength);
    const kvDtype = kvFormatFor(size.kvDtype ?? DEFAULTS.kvDtype, a.headDim).dtype;
    const bytes = countBytes(a, matrices, { ...size, chunk, kvDtype });
    const { weights, kvCache, activations } = bytes.classes;
    return {
      ...bytes,
      chunk,
      kvDtype,
      total: weights + kvCache + activations,
      with: ({ dtype, ...change }) =>
        estimate(
          dtype ? weightBytes(held(dtype, change.backend ?? size.backend)) : matrices,
          { ...size, ...change },
        ),
    };
  };
  return estimate(weightBytes(source), size);
}

/** Adds up the tensors of a run; `tensors` is the bytes of the weights. */
function countBytes(
  a: Architecture,
  tensors: number,
  { contextLength, chunk, kvDtype, backend }: RunSize & Pick<MemoryEstimate, "chunk" | "kvDtype">,
) {
  const rotaryDims = [a.rope, a.ropeLocal].map((rope) => rope?.rotaryDim ?? 0);
  const weights = rotaryDims.reduce((n, R) => n + 4 * (contextLength + 1) * R, tensors);
  const row = kvRowBytes(KV_FORMATS[kvDtype], a.headDim);
  const layerCache = a.nKvHead * contextLength * row; // keys or values [G, S, D]
  const kvCache = 2 * a.nLayer * layerCache;
  const rows = (T: number) => Object.values(stateShapes(a, T)).map((shape) => 4 * sizeOf(shape));
  const sum = (bytes: number[]) => bytes.reduce((n, count) => n + count, 0);
  const logits = 4 * a.vocabSize;
  // Sampling: seen ids [V], settings [4], counter [3], ring of drawn ids [R].
  const sampling = 4 * (a.vocabSize + 4 + 3 + (backend?.readAhead ?? 1));
  const computed = sum(rows(chunk)) + sum(rows(1)) + logits + sampling;
  const widest = Math.max(...rows(chunk));
  const total = weights + kvCache + computed;
  const scratch = backend?.scratchBytes?.({ total, rows: chunk, widest }) ?? 0;
  return {
    classes: { weights, kvCache, activations: computed + scratch, staging: 0 },
    largest: Math.max(layerCache, logits, widest),
  };
}

/** A run with its estimate. */
export interface SizedRun {
  /** Name of the model in messages. */
  readonly id: string;
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  readonly memory: Pick<MemoryEstimate, "total" | "classes" | "largest">;
}

/** @throws {DeviceError} If a run needs more than this machine's memory. */
async function expectHostFits(run: SizedRun): Promise<void> {
  const { id, contextLength, memory: { total, classes } } = run;
  const room = (await findHost()).totalMemory();
  if (total <= room) return;
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  throw new DeviceError(
    `Cannot load "${id}": expected at most ${gib(room)} GiB (this machine's memory), got ${
      gib(total)
    } GiB, ${
      gib(classes.kvCache)
    } of them for a context of ${contextLength}; a smaller context takes less`,
  );
}

/**
 * Checks that a run fits a backend, before any upload.
 * @throws {DeviceError} If it does not fit.
 */
export async function expectFits(
  backend: Pick<Backend, "onGpu" | "software" | "expectFree">,
  run: SizedRun,
): Promise<void> {
  const { id, memory: { total, largest } } = run;
  // A GPU has its own memory, unless it is a software adapter.
  if (!backend.onGpu || backend.software) await expectHostFits(run);
  await backend.expectFree?.(id, total, largest);
}

/**
 * The estimate of a run that fits a backend: with half the rows per prefill chunk, and half again,
 * if more than the usual number do not fit.
 * @throws {DeviceError} If none fits: the error of the run that was asked for.
 */
export async function fitMemory(
  backend: Pick<Backend, "onGpu" | "software" | "expectFree">,
  { memory, ...run }: Omit<SizedRun, "memory"> & { readonly memory: MemoryEstimate },
): Promise<MemoryEstimate> {
  let refused: DeviceError | undefined;
  for (let fitted = memory;; fitted = fitted.with({ chunk: Math.ceil(fitted.chunk / 2) })) {
    try {
      await expectFits(backend, { ...run, memory: fitted });
      return fitted;
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      refused ??= error;
      if (fitted.chunk <= USUAL_CHUNK) throw refused;
    }
  }
}

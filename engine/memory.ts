/**
 * What a model will take, told before anything is allocated, and whether a backend has room for it.
 *
 * @module
 */
import { totalmem } from "node:os";
import type { Backend, BackendName } from "../kernels/backend.ts";
import { DeviceError } from "../kernels/errors.ts";
import { openBackend } from "../kernels/mod.ts";
import { BYTES, type WeightDtype } from "../kernels/formats/mod.ts";
import { type MemoryClass, sizeOf } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { stateShapes } from "./decoder.ts";
import { chunkRows } from "./runner.ts";
import { type WeightSpec, weightSpecs } from "./weights/mod.ts";

/** Bytes by class, as `Model.memory` will count them once the model stands. */
export interface MemoryEstimate {
  /** Bytes of each class. */
  readonly classes: Readonly<Record<MemoryClass, number>>;
  /** Bytes of all classes. */
  readonly total: number;
  /** Bytes of the largest tensor, weights apart. */
  readonly largest: number;
  /** The estimate of the same model in another run. */
  with(change: {
    /** S: tokens that the cache holds. */
    readonly contextLength?: number;
    /** T: rows of a prefill chunk. */
    readonly chunk?: number;
    /** The dtype that every weight is kept in. */
    readonly dtype?: WeightDtype;
    /** What the model is to run on. */
    readonly backend?: Pick<Backend, "name" | "threads">;
  }): MemoryEstimate;
}

/** What the estimate depends on beside the architecture. */
export interface EstimateOptions {
  /** S: tokens that the cache holds. */
  readonly contextLength: number;
  /** T: rows of a prefill chunk. */
  readonly chunk: number;
  /** The dtype that a weight is kept in. */
  readonly dtypeOf: (spec: WeightSpec) => WeightDtype;
  /** What the model is to run on; without it, nothing that a backend adds of its own is in the estimate. */
  readonly backend?: Pick<Backend, "name" | "threads">;
}

/**
 * What `wasm` adds at most, beside the rows that each thread packs, and counts as activations: its plans' other scratch, panels that are
 * filled up, whole lines of its memory. GPT-2's shape and Llama's were 1 to 7 MiB below it, on 1, 2 and 8 threads.
 */
const wasmOwn = (bytes: number) => 3 * 2 ** 18 + Math.ceil(bytes / 128);

/** The bytes of a model's buffers: what loading makes, before the first `logits()` call adds its rows. */
export function estimateMemory(a: Architecture, options: EstimateOptions): MemoryEstimate {
  const { contextLength, chunk, dtypeOf, backend } = options;
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
  const computed = rows(chunk) + rows(1) + 4 * a.vocabSize + sampling;
  const widest = Math.max(...Object.values(stateShapes(a, chunk)).map((s) => 4 * sizeOf(s)));
  const panel = 16 * widest / chunk;
  // Each thread packs the rows of one product at a time, and may make a panel wide.
  const own = backend?.name === "wasm"
    ? wasmOwn(weights + kvCache + computed) + backend.threads * (widest + panel)
    : 0;
  const activations = computed + own;
  const classes = { weights, kvCache, activations, staging: 0 };
  const largest = Math.max(4 * a.nKvHead * contextLength * a.headDim, 4 * a.vocabSize, widest);
  return {
    classes,
    total: weights + kvCache + activations,
    largest,
    with: ({ dtype, ...change }) =>
      estimateMemory(a, { ...options, ...change, ...dtype && { dtypeOf: () => dtype } }),
  };
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
function checkFits(
  id: string,
  { total, classes }: Pick<MemoryEstimate, "total" | "classes">,
  slots: number,
): void {
  const room = hostMemory();
  if (total <= room) return;
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  throw new DeviceError(
    `Cannot load "${id}": expected at most ${gib(room)} GiB (this machine's memory), got ${
      gib(total)
    } GiB, ${gib(classes.kvCache)} of them for a context of ${slots}; a smaller context takes less`,
  );
}

/**
 * What a model has to pass before it is loaded, and what `inspect` asks in its place.
 * @throws {DeviceError} when a model cannot fit a backend.
 */
export async function expectFits(
  backend: Pick<Backend, "name" | "software" | "expectFree">,
  id: string,
  estimate: Pick<MemoryEstimate, "total" | "classes" | "largest">,
  slots: number,
): Promise<void> {
  // A GPU has memory of its own, unless the processor plays it.
  if (backend.name !== "webgpu" || backend.software) checkFits(id, estimate, slots);
  await backend.expectFree?.(id, estimate.total, estimate.largest);
}

/** A backend that is not here. */
export interface MissingBackend {
  /** Which one it is. */
  readonly name: BackendName;
  /** Why it is not here. */
  readonly missing: string;
}

/** What a run would take of a backend, and what it has. */
export interface BackendFit {
  /** Which one it is. */
  readonly name: BackendName;
  /** What `loadModel` would say: whether it goes on. */
  readonly fits: boolean;
  /** What a run would take. */
  readonly needs: MemoryEstimate;
  /** Bytes that there are for all of it; null where only taking them would tell. */
  readonly room: number | null;
  /** Bytes that a tensor may have, weights apart; null where nothing bounds it. */
  readonly tensorRoom: number | null;
  /** What would fit where this does not, the nearest first. */
  readonly instead: readonly Instead[];
}

/** A run that fits where another does not. */
export interface Instead {
  /** The longest context that fits, up to the one that was asked for. */
  readonly contextLength: number;
  /** The dtype that weights would be kept in, where it is another. */
  readonly dtype?: WeightDtype;
}

/** The dtype that takes the least. */
const SMALLEST: WeightDtype = "BF16";

/**
 * Tells of each backend whether a model fits, by the check of `loadModel`.
 * @param estimate of a run with `contextLength`.
 */
export async function fitBackends(
  a: Architecture,
  estimate: MemoryEstimate,
  contextLength: number,
): Promise<(BackendFit | MissingBackend)[]> {
  const told: (BackendFit | MissingBackend)[] = [];
  for (const name of ["webgpu", "wasm", "js"] as const) {
    try {
      await using backend = await openBackend(name);
      told.push(await fitBackend(backend, a, estimate, contextLength));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      told.push({ name, missing: error.message });
    }
  }
  return told;
}

/** Tells of one backend whether a model fits. */
export async function fitBackend(
  backend: Pick<Backend, "name" | "threads" | "nominalFlops" | "expectFree">,
  a: Architecture,
  estimate: MemoryEstimate,
  contextLength: number,
): Promise<BackendFit> {
  const { name, nominalFlops } = backend;
  const takes = async (asked: Pick<MemoryEstimate, "total" | "classes" | "largest">) => {
    try {
      await expectFits(backend, "the model", asked, contextLength);
      return true;
    } catch (error) {
      if (error instanceof DeviceError) return false;
      throw error;
    }
  };
  const runOf = (slots: number, dtype?: WeightDtype) => {
    const chunk = chunkRows(nominalFlops, a, slots);
    return estimate.with({ contextLength: slots, chunk, dtype, backend });
  };
  const needs = runOf(contextLength);
  const fits = await takes(needs);
  const { classes } = needs;
  // A GPU tells what it has by giving it, so that it is asked for no more than is wanted.
  const roomAbove = async (most: number) => {
    const room = await mostTaken((total) => takes({ classes, total, largest: 0 }), most);
    return room < most ? room : null;
  };
  const room = name === "webgpu" && fits
    ? null
    : await roomAbove(name === "webgpu" ? needs.total : Number.MAX_SAFE_INTEGER);
  const tensorRoom = await mostTaken(
    (largest) => takes({ classes, total: 0, largest }),
    Number.MAX_SAFE_INTEGER,
  );
  const instead: Instead[] = [];
  const shrinks = estimate.with({ dtype: SMALLEST }).total < estimate.total;
  for (const dtype of fits ? [] : [undefined, ...shrinks ? [SMALLEST] : []]) {
    const slots = await mostTaken((slots) => takes(runOf(slots, dtype)), contextLength);
    const helps = slots > (instead[0]?.contextLength ?? 0);
    if (helps) instead.push({ contextLength: slots, ...dtype && { dtype } });
  }
  return {
    name,
    fits,
    needs,
    room,
    tensorRoom: tensorRoom < Number.MAX_SAFE_INTEGER ? tensorRoom : null,
    instead,
  };
}

/** The largest whole number, up to `most`, that is taken, where all below it are; 0 where none is. */
async function mostTaken(takes: (n: number) => Promise<boolean>, most: number): Promise<number> {
  if (await takes(most)) return most;
  let [taken, refused] = [0, most];
  while (refused - taken > 1) {
    const middle = taken + Math.floor((refused - taken) / 2);
    if (await takes(middle)) taken = middle;
    else refused = middle;
  }
  return taken;
}

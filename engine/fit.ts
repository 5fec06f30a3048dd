/**
 * Memory fit of a run on each backend: required and available bytes, and smaller runs that fit.
 *
 * @module
 */
import { type Backend, BACKEND_NAMES, type BackendName } from "../kernels/backend.ts";
import { DeviceError } from "../kernels/errors.ts";
import { FORMATS, type WeightDtype } from "../kernels/formats/mod.ts";
import { openBackend } from "../kernels/mod.ts";
import { findHost } from "./host/choose.ts";
import type { LoadPlan } from "./load.ts";
import { expectFits, fitMemory, type MemoryEstimate } from "./memory.ts";

/** A run to fit: a `LoadPlan`, or the description of a checkpoint. */
type FitRun = Pick<LoadPlan, "contextLength" | "memory">;

/** A backend that cannot be opened here. */
export interface MissingBackend {
  /** Name of the backend. */
  readonly name: BackendName;
  /** The reason, a sentence. */
  readonly missing: string;
}

/** Required and available memory of one backend. */
export interface BackendFit {
  /** Name of the backend. */
  readonly name: BackendName;
  /** Whether `loadModel` would accept the run. */
  readonly fits: boolean;
  /** Bytes that the run requires. */
  readonly needs: MemoryEstimate;
  /** Bytes available to all buffers; null if only an allocation can find out. */
  readonly room: number | null;
  /** Bytes of the largest possible tensor, weights excluded; null if unlimited. */
  readonly tensorRoom: number | null;
  /** Dtypes that it has kernels for. */
  readonly holds: readonly string[];
  /** Smaller runs that fit if this one does not, the nearest first. */
  readonly alternatives: readonly Alternative[];
}

/** A smaller run that fits. */
export interface Alternative {
  /** The longest context that fits, at most the one asked for. */
  readonly contextLength: number;
  /** The dtype of the weights, if it differs. */
  readonly dtype?: WeightDtype;
}

/** Members of a backend that `fitBackend` uses. */
type FitTarget = Pick<
  Backend,
  | "name"
  | "onGpu"
  | "software"
  | "nominalFlops"
  | "prefillRows"
  | "readAhead"
  | "scratchBytes"
  | "expectFree"
  | "holds"
>;

/** Bytes that the check compares. */
type Needs = Pick<MemoryEstimate, "total" | "classes" | "largest">;

/** The dtype of the fewest bytes. */
const SMALLEST: WeightDtype = "Q4_0";

/** Fits a run on each backend, by the check of `loadModel`. */
export async function fitBackends(run: FitRun): Promise<(BackendFit | MissingBackend)[]> {
  const host = (await findHost()).compute;
  const fits: (BackendFit | MissingBackend)[] = [];
  for (const name of BACKEND_NAMES) {
    try {
      await using backend = await openBackend(name, { host });
      fits.push(await fitBackend(backend, run));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      fits.push({ name, missing: error.message });
    }
  }
  return fits;
}

/** Fits a run on one backend. */
export async function fitBackend(
  backend: FitTarget,
  { contextLength, memory }: FitRun,
): Promise<BackendFit> {
  const { name, onGpu } = backend;
  const asked = memory.with({ contextLength, backend });
  const fitted = await fittedMemory(backend, asked, contextLength);
  const [fits, needs] = [fitted !== null, fitted ?? asked];
  const { classes } = needs;
  const accepts = (asked: Needs) => isAccepted(backend, asked, contextLength);
  // Only an allocation finds out a GPU's room, so no more than the run needs is allocated.
  const roomUpTo = async (most: number) => {
    const room = await largest(most, (total) => accepts({ classes, total, largest: 0 }));
    return room < most ? room : null;
  };
  const room = onGpu && fits ? null : await roomUpTo(onGpu ? needs.total : Number.MAX_SAFE_INTEGER);
  const tensorRoom = await largest(
    Number.MAX_SAFE_INTEGER,
    (bytes) => accepts({ classes, total: 0, largest: bytes }),
  );
  return {
    name,
    fits,
    needs,
    room,
    tensorRoom: tensorRoom < Number.MAX_SAFE_INTEGER ? tensorRoom : null,
    holds: Object.keys(FORMATS).filter((dtype) => backend.holds?.(dtype as WeightDtype) ?? true),
    alternatives: fits ? [] : await smallerRuns(backend, { contextLength, memory }),
  };
}

/** Runs that fit: a shorter context in the same dtypes, and a longer one in the smallest dtype. */
async function smallerRuns(
  backend: FitTarget,
  { contextLength, memory }: FitRun,
): Promise<Alternative[]> {
  const runs: Alternative[] = [];
  const shrinks = memory.with({ dtype: SMALLEST, backend }).total < memory.with({ backend }).total;
  for (const dtype of [undefined, ...shrinks ? [SMALLEST] : []]) {
    const kept = memory.with({ dtype, backend });
    const slots = await largest(
      contextLength,
      async (slots) =>
        await fittedMemory(backend, kept.with({ contextLength: slots }), contextLength) !== null,
    );
    if (slots > (runs[0]?.contextLength ?? 0)) {
      runs.push({ contextLength: slots, ...dtype && { dtype } });
    }
  }
  return runs;
}

/** Name of the run in errors; they are caught here. */
const ID = "the model";

/** Whether `loadModel` would accept a run of these bytes. */
async function isAccepted(
  backend: FitTarget,
  memory: Needs,
  contextLength: number,
): Promise<boolean> {
  const run = { id: ID, contextLength, memory };
  return await orNull(() => expectFits(backend, run)) !== null;
}

/** The estimate that `loadModel` would load by; null if it would refuse the run. */
async function fittedMemory(
  backend: FitTarget,
  memory: MemoryEstimate,
  contextLength: number,
): Promise<MemoryEstimate | null> {
  return await orNull(() => fitMemory(backend, { id: ID, contextLength, memory }));
}

/** Result of `check`; null if it throws a DeviceError. */
async function orNull<R>(check: () => Promise<R>): Promise<R | null> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof DeviceError) return null;
    throw error;
  }
}

/**
 * The largest accepted integer from 0 to `most`, by bisection; every integer below an accepted one
 * must be accepted too.
 */
async function largest(most: number, accepts: (n: number) => Promise<boolean>): Promise<number> {
  if (await accepts(most)) return most;
  let [accepted, refused] = [0, most];
  while (refused - accepted > 1) {
    const middle = accepted + Math.floor((refused - accepted) / 2);
    if (await accepts(middle)) accepted = middle;
    else refused = middle;
  }
  return accepted;
}

/**
 * Fit of a run on each backend: what it needs, what the backend has, and which smaller run would
 * fit.
 *
 * @module
 */
import { type Backend, BACKEND_NAMES, type BackendName } from "../kernels/backend.ts";
import { DeviceError } from "../kernels/errors.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import { openBackend } from "../kernels/mod.ts";
import { findHost } from "./host/choose.ts";
import type { LoadPlan } from "./load.ts";
import { expectFits, type MemoryEstimate } from "./memory.ts";

/** A run whose fit is asked for: of a `LoadPlan`, or of the description of a checkpoint. */
type FitRun = Pick<LoadPlan, "contextLength" | "memory">;

/** A backend that cannot be opened here. */
export interface MissingBackend {
  /** Its name. */
  readonly name: BackendName;
  /** The reason. */
  readonly missing: string;
}

/** What a run needs of a backend, and what the backend has. */
export interface BackendFit {
  /** Its name. */
  readonly name: BackendName;
  /** Whether `loadModel` would go on. */
  readonly fits: boolean;
  /** What the run needs. */
  readonly needs: MemoryEstimate;
  /** Bytes for all buffers together; null where only allocating them would show. */
  readonly room: number | null;
  /** Bytes of the largest possible tensor, weights apart; null where nothing bounds it. */
  readonly tensorRoom: number | null;
  /** Smaller runs that fit where this one does not, the nearest first. */
  readonly instead: readonly Instead[];
}

/** A smaller run that fits. */
export interface Instead {
  /** The longest context that fits, up to the one that was asked for. */
  readonly contextLength: number;
  /** The dtype of the weights, where it is another. */
  readonly dtype?: WeightDtype;
}

/** What `fitBackend` asks of a backend. */
type FitTarget = Pick<
  Backend,
  "name" | "onGpu" | "software" | "nominalFlops" | "readAhead" | "scratchBytes" | "expectFree"
>;

/** Bytes that the check of a fit compares. */
type Needs = Pick<MemoryEstimate, "total" | "classes" | "largest">;

/** The dtype that takes the fewest bytes. */
const SMALLEST: WeightDtype = "BF16";

/** Whether and how a run fits each backend, by the check of `loadModel`. */
export async function fitBackends(run: FitRun): Promise<(BackendFit | MissingBackend)[]> {
  const host = (await findHost())?.compute;
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

/** Whether and how a run fits one backend. */
export async function fitBackend(
  backend: FitTarget,
  { contextLength, memory }: FitRun,
): Promise<BackendFit> {
  const { name, onGpu } = backend;
  const needs = memory.with({ contextLength, backend });
  const { classes } = needs;
  const accepts = (asked: Needs) => isAccepted(backend, asked, contextLength);
  const fits = await accepts(needs);
  // A GPU shows its room only by allocating it, so it is asked for no more than the run needs.
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
    instead: fits ? [] : await smallerRuns(backend, { contextLength, memory }),
  };
}

/**
 * Runs that fit: a shorter context in the same dtypes, and one in the smallest dtype if it is
 * longer.
 */
async function smallerRuns(
  backend: FitTarget,
  { contextLength, memory }: FitRun,
): Promise<Instead[]> {
  const runs: Instead[] = [];
  const shrinks = memory.with({ dtype: SMALLEST }).total < memory.total;
  for (const dtype of [undefined, ...shrinks ? [SMALLEST] : []]) {
    const kept = memory.with({ dtype, backend });
    const slots = await largest(
      contextLength,
      (slots) => isAccepted(backend, kept.with({ contextLength: slots }), contextLength),
    );
    if (slots > (runs[0]?.contextLength ?? 0)) {
      runs.push({ contextLength: slots, ...dtype && { dtype } });
    }
  }
  return runs;
}

/** Whether `loadModel` would go on with so many bytes. */
async function isAccepted(
  backend: FitTarget,
  memory: Needs,
  contextLength: number,
): Promise<boolean> {
  try {
    await expectFits(backend, { id: "the model", contextLength, memory });
    return true;
  } catch (error) {
    if (error instanceof DeviceError) return false;
    throw error;
  }
}

/**
 * The largest integer from 0 to `most` that is accepted, by bisection: all integers below an
 * accepted one are accepted too.
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

/**
 * Contract of a stage of `bench/gpu.ts`.
 *
 * @module
 */

/** What a stage gets. */
export interface StageContext {
  /** Whether to run tiny shapes only: a rehearsal on any adapter. */
  readonly tiny: boolean;
  /** Milliseconds until the stage must end; it skips what is left then. */
  readonly left: () => number;
  /** Saves the part as it is so far: what a stage that is killed leaves. */
  readonly save: (part: Record<string, unknown>) => void;
  /** Results of the stages before, by name. */
  readonly before: Readonly<Record<string, unknown>>;
}

/** A stage: returns its part of `gpu.json`. */
export type Stage = (context: StageContext) => Promise<Record<string, unknown>>;

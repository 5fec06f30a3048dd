/**
 * Memory of a run by class, stage by stage.
 *
 *     loaded ──▶ warmup ──▶ prefill ──▶ iterations
 *     bytes      peak       peak        peak of all of them
 *
 * @module
 */
import type { Memory, MemoryFigure } from "../../kernels/memory.ts";
import type { MemoryReport } from "./report.ts";

/** Keeps the peaks of a model's memory; other runs may share the model between two steps. */
export class MemoryStages {
  readonly #memory: Memory;
  readonly #stages = new Map<MemoryReport["stage"], number[]>();
  #peakBytes = 0;

  /** Notes the bytes in use, as those of the loaded model. */
  constructor(memory: Memory) {
    this.#memory = memory;
    this.#note("loaded", ({ current }) => current);
  }

  /** Peak bytes of all classes together, in prefill and iterations. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Runs a step of a stage; the peaks before it do not count. */
  async during<T>(stage: MemoryReport["stage"], step: () => Promise<T>): Promise<T> {
    this.#memory.resetPeak();
    const result = await step();
    this.#note(stage, ({ peak }) => peak);
    if (stage !== "warmup") this.#peakBytes = Math.max(this.#peakBytes, this.#memory.peak);
    return result;
  }

  #note(stage: MemoryReport["stage"], bytesOf: (figure: MemoryFigure) => number): void {
    const { weights, kvCache, activations, staging } = this.#memory.classes;
    const before = this.#stages.get(stage) ?? [0, 0, 0, 0];
    const bytes = [weights, kvCache, activations, staging].map(bytesOf);
    this.#stages.set(stage, bytes.map((count, i) => Math.max(count, before[i])));
  }

  /** Peaks of each stage, in MiB. */
  report(): MemoryReport[] {
    return [...this.#stages].map(([stage, bytes]) => {
      const [weights_mib, kv_cache_mib, activations_mib, staging_mib] = bytes.map((count) =>
        count / 2 ** 20
      );
      return { stage, weights_mib, kv_cache_mib, activations_mib, staging_mib };
    });
  }
}

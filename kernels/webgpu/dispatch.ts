/**
 * Dispatch of a shader: its pipeline, bind group, and number of workgroups.
 *
 *     workgroups = groups(rows) · times(step)
 *
 * Only `times`, which decode attention and sampling have, is computed for each step. The product is
 * kept until a step has other rows or another factor: all decode steps have one row.
 *
 * @module
 */
import type { Segment } from "../step.ts";

/** A compiled shader and its operands. */
export interface BoundShader {
  readonly pipeline: GPUComputePipeline;
  /** Bind group 1. */
  readonly operands: GPUBindGroup;
}

/** Number of workgroups of a shader; see `GpuDispatch`. */
export interface Workgroups {
  readonly groups: (rows: number) => number;
  readonly times?: (step: Segment) => number;
}

/** A bound shader, replayed with each step. */
export class Dispatch implements BoundShader {
  readonly pipeline: GPUComputePipeline;
  readonly operands: GPUBindGroup;
  /** Number of workgroups in the step that it was last fitted to. */
  count = 0;
  readonly #groups: Workgroups["groups"];
  readonly #times: Workgroups["times"];
  #rows = -1;
  #factor = 0;

  constructor({ pipeline, operands }: BoundShader, { groups, times }: Workgroups) {
    this.pipeline = pipeline;
    this.operands = operands;
    this.#groups = groups;
    this.#times = times;
  }

  /** Sets `count` for a step. */
  fit(step: Segment): void {
    const factor = this.#times ? this.#times(step) : 1;
    if (step.rows === this.#rows && factor === this.#factor) return;
    this.#rows = step.rows;
    this.#factor = factor;
    this.count = factor * this.#groups(step.rows);
  }
}

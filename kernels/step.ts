/**
 * Step of a plan: the rows and positions that change from one run to the next.
 *
 * It ranks below the operations, so that a kernel can size its work by it.
 *
 *     step     { rows: 3, segments: [{ rows: 3, position: 7, slot: 7, length: 10 }] }
 *
 *     row      position   writes slot   sees keys
 *     0        7          7             8           length - rows + 1
 *     1        8          8             9
 *     2        9          9             10          length
 *
 * Matmul and norm read only the number of rows; embedding, the cache, attention and sampling read
 * segments. A segment is also a step by itself: a step of one sequence is one flat record.
 *
 * @module
 */

/** Rows and positions of one run of a plan. */
export interface Step {
  /** Rows of all segments, at most T of the tensors [T, …] that the plan was recorded with. */
  readonly rows: number;
  /** Segments in the order of their rows. This version runs steps of one segment. */
  readonly segments: readonly Segment[];
}

/** Consecutive rows of one sequence. */
export interface Segment {
  /** Index of the sequence in the cache; default 0, the only one in this version. */
  readonly sequence?: number;
  /** Rows in use, at most T of the tensors [T, …] that the plan was recorded with. */
  readonly rows: number;
  /** Position of row 0 in the sequence; row i has position + i. */
  readonly position: number;
  /** Cache slot of row 0; row i writes slot + i, without wrapping around. */
  readonly slot: number;
  /** Keys that the last row sees; each row before it sees one less. */
  readonly length: number;
}

/** Largest step of a recorded pass; Infinity if unbounded. */
export interface StepRoom {
  /** T: rows of the tensors [T, …] that it writes. */
  readonly rows: number;
  /** S: slots of the caches [G, S, D] that it writes. */
  readonly slots: number;
}

/**
 * Returns the only segment of a step.
 * @throws {RangeError} If there is not exactly one, its sequence is not 0, or it writes rows or
 *   slots beyond the tensors of the pass.
 */
export function onlySegment(step: Step | Segment, room: StepRoom): Segment {
  const segments = "segments" in step ? step.segments : null;
  const segment = segments ? segments[0] : step as Segment;
  if (segments && (segments.length !== 1 || segment.rows !== step.rows)) {
    const got = segments.map((each) => `${each.rows} rows`).join(" and ") || "none";
    throw new RangeError(
      `Cannot run a step: expected one segment of all ${step.rows} rows, got ${got}`,
    );
  }
  if (segment.sequence) {
    throw new RangeError(`Cannot run a step: expected sequence 0, got ${segment.sequence}`);
  }
  const { rows, slot } = segment;
  if (rows > room.rows) {
    throw new RangeError(`Cannot run a step: expected at most ${room.rows} rows, got ${rows}`);
  }
  if (slot + rows > room.slots) {
    throw new RangeError(
      `Cannot run a step: expected slots below ${room.slots}, got ${slot} to ${slot + rows - 1}`,
    );
  }
  return segment;
}

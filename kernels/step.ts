/**
 * The step of a plan: what changes from one run to the next.
 *
 * Below the operations, so that a kernel can size its work by it.
 *
 *     step     { rows: 3, segments: [{ rows: 3, position: 7, slot: 7, length: 10 }] }
 *
 *     row      position   writes slot   sees keys
 *     0        7          7             8           length - rows + 1
 *     1        8          8             9
 *     2        9          9             10          length
 *
 * Matmul and norm read the rows alone; embedding, the cache, attention and sampling read segments.
 * A segment is also a step by itself, so that a step of one sequence is one flat record.
 *
 * @module
 */

/** What changes from one run of a plan to the next. */
export interface Step {
  /** Rows of all segments, at most the T of every tensor [T, …] that the plan was recorded with. */
  readonly rows: number;
  /** The texts that the rows belong to, in order. This version runs steps of one segment. */
  readonly segments: readonly Segment[];
}

/** Rows of a step that follow each other in one text. */
export interface Segment {
  /** The text, by its place in the cache; 0 when left out. This version has one, 0. */
  readonly sequence?: number;
  /** Rows in use, at most the T of every tensor [T, …] that the plan was recorded with. */
  readonly rows: number;
  /** Position of row 0 in the text; row i has position + i. */
  readonly position: number;
  /** Cache slot of row 0; row i writes slot + i and never wraps around the cache. */
  readonly slot: number;
  /** Keys that the last row sees; each row before it sees one less. */
  readonly length: number;
}

/** What a recorded pass has room for; Infinity where nothing bounds it. */
export interface StepRoom {
  /** T: rows of the tensors [T, …] that it writes. */
  readonly rows: number;
  /** S: slots of the caches [G, S, D] that it writes. */
  readonly slots: number;
}

/**
 * The one segment of a step, which writes within the tensors of its pass.
 * @throws {RangeError} when a step has more than one, when it is of another text than the cache's,
 *   or when the pass has no room for its rows.
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

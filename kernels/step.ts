/**
 * The step of a plan: what changes from one run to the next.
 *
 * Below the operations, so that a kernel can size its work by it.
 *
 * @module
 */

/** What changes from one run of a plan to the next. */
export interface Step {
  /** Rows in use, at most T. */
  readonly rows: number;
  /** Position of row 0 in the text; row i has position + i. */
  readonly position: number;
  /** Cache slot of row 0; row i writes slot + i and never wraps around the cache. */
  readonly slot: number;
  /** Keys that the last row sees; each row before it sees one less. */
  readonly length: number;
}

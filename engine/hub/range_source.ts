/**
 * File at a server, read by ranges without a copy.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import type { ByteSource } from "../host/mod.ts";
import { blobSource } from "../host/opfs.ts";

/** Bytes per request at least: rows of a weight are read one after another. */
const READ_BYTES = 4 << 20;

/** Bytes of a response. */
export interface Range {
  /** Whether they begin at the start of the file: the server knows no ranges. */
  readonly isWhole: boolean;
  readonly blob: Blob;
}

/** A file read by ranges, `READ_BYTES` at a time or more. */
export class RangeSource implements ByteSource {
  readonly size: number;
  /** The last range, or the whole file. */
  #kept?: { readonly from: number; readonly source: ByteSource };

  constructor(
    readonly name: string,
    { size }: { readonly size?: number },
    readonly fetchRange: (from: number, to: number) => Promise<Range>,
  ) {
    if (size === undefined) {
      throw new CheckpointError(
        `Cannot read "${name}": expected its size from the server, got none; load it with a cache`,
      );
    }
    this.size = size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = offset + into.length;
    if (end > this.size) {
      throw new CheckpointError(
        `Cannot read "${this.name}": expected ${into.length} bytes at ${offset}, ` +
          `got ${Math.max(0, this.size - offset)}`,
      );
    }
    const { from, source } = this.#kept ?? {};
    if (!source || offset < from! || end > from! + source.size) {
      const to = Math.min(this.size, Math.max(end, offset + READ_BYTES));
      const { isWhole, blob } = await this.fetchRange(offset, to);
      this.#kept = { from: isWhole ? 0 : offset, source: blobSource(this.name, blob) };
    }
    await this.#kept!.source.read(offset - this.#kept!.from, into);
  }

  [Symbol.dispose](): void {
    this.#kept = undefined;
  }
}

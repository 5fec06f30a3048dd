/**
 * Tensors whose bytes do not lie in the file as they are wanted: views that step through a
 * storage, and big-endian numbers.
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import type { ByteSource } from "../../host/mod.ts";

/** Where the elements of a tensor lie in a file. Nothing of it is checked here. */
export interface Layout {
  /** First byte of the first element. */
  readonly begin: number;
  /** Bytes of an element. */
  readonly elementBytes: number;
  /** Extents; none is 0. */
  readonly shape: readonly number[];
  /** Elements between neighbours, for each extent. */
  readonly stride: readonly number[];
  readonly bigEndian: boolean;
}

/**
 * Whether the elements lie one after the other, in order. Between neighbours of which there is one
 * alone, any step will do.
 */
export function isContiguous(shape: readonly number[], stride: readonly number[]): boolean {
  let step = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && stride[d] !== step) return false;
    step *= shape[d];
  }
  return true;
}

/** Elements from the first to the last of a view, both counted. */
export function spanOf(shape: readonly number[], stride: readonly number[]): number {
  return shape.reduce((span, extent, d) => span + (extent - 1) * stride[d], 1);
}

/**
 * Views whose bytes are kept: two, which are compared with each other where they should be tied.
 */
const KEPT = 2;

/**
 * What the views of a file share: the bytes of those that are being read, or the reading
 * of them, the oldest first.
 */
export type ViewCache = Map<ViewSource, Promise<Uint8Array>>;

/**
 * Gives a view's bytes row after row and little-endian. They are gathered when some are asked for,
 * kept while they are read, and let go at their end or when other views of the file are read.
 */
export class ViewSource implements ByteSource {
  readonly name: string;
  readonly size: number;

  /** Makes a source that reads from `file`. */
  constructor(readonly file: ByteSource, readonly layout: Layout, readonly cache: ViewCache) {
    this.name = file.name;
    this.size = layout.shape.reduce((product, n) => product * n, layout.elementBytes);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = offset + into.length;
    if (end > this.size) {
      throw new CheckpointError(
        `Cannot read "${this.name}": expected ${into.length} bytes at ${offset} of a tensor of ` +
          `${this.size}`,
      );
    }
    const { cache } = this;
    let gathering = cache.get(this);
    if (!gathering) {
      for (const oldest of cache.keys()) if (cache.size >= KEPT) cache.delete(oldest);
      cache.set(this, gathering = gather(this.file, this.layout));
    }
    let gathered: Uint8Array | undefined;
    try {
      gathered = await gathering;
      into.set(gathered.subarray(offset, end));
    } finally {
      if (!gathered || end === this.size) this[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.cache.delete(this);
  }
}

async function gather(file: ByteSource, layout: Layout): Promise<Uint8Array> {
  const { begin, elementBytes, bigEndian } = layout;
  const [shape, stride] = layout.shape.length ? [layout.shape, layout.stride] : [[1], [1]];
  const from = new Uint8Array(spanOf(shape, stride) * elementBytes);
  await file.read(begin, from);
  const out = new Uint8Array(shape.reduce((product, n) => product * n, elementBytes));
  const { buffer } = from;
  switch (elementBytes) {
    case 1:
      copyElements(out, from, shape, stride);
      break;
    case 2:
      copyElements(new Uint16Array(out.buffer), new Uint16Array(buffer), shape, stride);
      break;
    case 4:
      copyElements(new Uint32Array(out.buffer), new Uint32Array(buffer), shape, stride);
      break;
    default:
      copyElements(new BigUint64Array(out.buffer), new BigUint64Array(buffer), shape, stride);
  }
  if (bigEndian) {
    for (let at = 0; at < out.length; at += elementBytes) {
      out.subarray(at, at + elementBytes).reverse();
    }
  }
  return out;
}

/** Row after row; the last extent is the inner loop. */
function copyElements<T extends number | bigint>(
  out: { [index: number]: T; readonly length: number },
  from: { readonly [index: number]: T },
  shape: readonly number[],
  stride: readonly number[],
): void {
  const last = shape.length - 1;
  const index = new Array<number>(last).fill(0);
  let row = 0; // first element of the row
  for (let at = 0; at < out.length;) {
    for (let i = 0, j = row; i < shape[last]; i++, j += stride[last]) out[at++] = from[j];
    for (let d = last - 1; d >= 0; d--) {
      row += stride[d];
      if (++index[d] < shape[d]) break;
      row -= stride[d] * shape[d];
      index[d] = 0;
    }
  }
}

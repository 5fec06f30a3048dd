/**
 * Strided and big-endian tensors: views of a storage that must be gathered before use.
 *
 *     storage   0 1 2 3 4 5         shape [3, 2], stride [1, 3]: the transpose of [2, 3]
 *     gathered  0 3 1 4 2 5         element (i, j) is storage element i·1 + j·3
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import type { ByteSource } from "../../host/mod.ts";

/** Layout of a tensor's elements in a file. The caller has checked it against the file. */
export interface Layout {
  /** Byte offset of the first element in the file. */
  readonly begin: number;
  /** Bytes per element. */
  readonly elementBytes: number;
  /** Extents, each above 0. */
  readonly shape: readonly number[];
  /** Distance between neighbours in elements, for each extent. */
  readonly stride: readonly number[];
  readonly bigEndian: boolean;
}

/**
 * Whether the elements are adjacent and in row order. The stride of an extent of 1 is irrelevant.
 */
export function isContiguous(shape: readonly number[], stride: readonly number[]): boolean {
  let step = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && stride[d] !== step) return false;
    step *= shape[d];
  }
  return true;
}

/** Number of storage elements from the first to the last element of a view, inclusive. */
export function spanOf(shape: readonly number[], stride: readonly number[]): number {
  return shape.reduce((span, extent, d) => span + (extent - 1) * stride[d], 1);
}

/** Gathered views kept at once: two, because tied tensors are compared with each other. */
const KEPT = 2;

/** The gathered bytes of the views in use, shared by the views of a file; oldest first. */
export type ViewCache = Map<ViewSource, Promise<Uint8Array>>;

/**
 * A view's bytes, row by row and little-endian. The first read gathers them; they are released
 * after the last byte is read, or when `KEPT` newer views are in use.
 */
export class ViewSource implements ByteSource {
  readonly name: string;
  readonly size: number;

  /** Makes a source that gathers from `file`. */
  constructor(readonly file: ByteSource, readonly layout: Layout, readonly cache: ViewCache) {
    this.name = file.name;
    this.size = layout.shape.reduce((product, n) => product * n, layout.elementBytes);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = offset + into.length;
    if (end > this.size) {
      throw new CheckpointError(
        `Cannot read "${this.name}": expected ${into.length} bytes at ${offset} of a tensor of ` +
          `${this.size} bytes`,
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

/** Copies elements row by row; the inner loop runs over the last extent. */
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

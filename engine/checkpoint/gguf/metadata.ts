/**
 * Metadata of a GGUF file: typed values by key (https://github.com/ggml-org/ggml, docs/gguf.md).
 *
 *     pair     key:string  type:u32  value
 *     string   length:u64  UTF-8 bytes
 *     array    type:u32    length:u64  elements
 *     scalars  u8 i8 u16 i16 u32 i32 f32 bool u64 i64 f64
 *
 * Arrays are skipped when the file is opened and decoded when they are first read. Every length is
 * checked against the file before it is used.
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import type { ByteSource } from "../../host/mod.ts";

/** A value of a checkpoint's metadata. A 64-bit integer beyond 2^53 is a bigint. */
export type MetadataValue = string | number | bigint | boolean | readonly MetadataValue[];

/** Metadata by key, in the order of the file. */
export type Metadata = Readonly<Record<string, MetadataValue>>;

/** Largest header; one with a vocabulary of 256,000 tokens and its merges has 16 MiB. */
const MAX_HEADER_BYTES = 2 ** 27;

/** Bytes read at first, and the factor of each later read: a header of 4 MiB takes two reads. */
const [FIRST_READ, MORE] = [1 << 21, 2];

/** Deepest nesting of arrays. */
const MAX_DEPTH = 8;

/** Numbers of the types in the file, except those of fixed size. */
const [STRING, ARRAY, BOOL] = [8, 9, 7];

/** Reads a number; `isLittle` is its byte order. */
type ReadNumber = (view: DataView, at: number, isLittle: boolean) => number | bigint | boolean;

/** The types of fixed size, by their numbers in the file. */
const SCALARS: Readonly<Record<number, { readonly bytes: number; readonly read: ReadNumber }>> = {
  0: { bytes: 1, read: (view, at) => view.getUint8(at) },
  1: { bytes: 1, read: (view, at) => view.getInt8(at) },
  2: { bytes: 2, read: (view, at, isLittle) => view.getUint16(at, isLittle) },
  3: { bytes: 2, read: (view, at, isLittle) => view.getInt16(at, isLittle) },
  4: { bytes: 4, read: (view, at, isLittle) => view.getUint32(at, isLittle) },
  5: { bytes: 4, read: (view, at, isLittle) => view.getInt32(at, isLittle) },
  6: { bytes: 4, read: (view, at, isLittle) => view.getFloat32(at, isLittle) },
  [BOOL]: { bytes: 1, read: (view, at) => view.getUint8(at) === 1 },
  10: { bytes: 8, read: (view, at, isLittle) => exact(view.getBigUint64(at, isLittle)) },
  11: { bytes: 8, read: (view, at, isLittle) => exact(view.getBigInt64(at, isLittle)) },
  12: { bytes: 8, read: (view, at, isLittle) => view.getFloat64(at, isLittle) },
};

/** A number if it holds the integer exactly. */
function exact(value: bigint): number | bigint {
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** The read bytes end before a value does; the rest of the file is not read yet. */
class Unread {
  constructor(readonly end: number) {}
}

/** Ranges of bytes. */
interface Places {
  readonly begins: Uint32Array;
  readonly ends: Uint32Array;
}

/** Whether a byte of UTF-8 is not the first of a character. */
const isContinuation = (byte: number): boolean => (byte & 0xc0) === 0x80;

/** Reader of a file's first bytes, which it loads as they are needed. */
export class HeaderReader {
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  /** Offset of the next byte. */
  at = 0;
  /** Byte order of the file's numbers. */
  isLittle = true;

  constructor(readonly source: ByteSource) {}

  /** @throws {CheckpointError} Always. */
  fail(expected: string): never {
    throw new CheckpointError(`Cannot open "${this.source.name}": expected ${expected}`);
  }

  /** Calls `parse` again from the same offset, with more bytes, until they suffice. */
  async parse<T>(parse: () => T): Promise<T> {
    for (const begin = this.at;;) {
      try {
        return parse();
      } catch (error) {
        if (!(error instanceof Unread)) throw error;
        this.at = begin;
        await this.#load(error.end);
      }
    }
  }

  /** Loads the bytes up to `end`, at least `MORE` times as many as before. */
  async #load(end: number): Promise<void> {
    if (end > MAX_HEADER_BYTES) {
      this.fail(`a header of at most ${MAX_HEADER_BYTES} bytes, got one beyond byte ${end}`);
    }
    const loaded = this.#bytes.length;
    const size = Math.min(this.source.size, Math.max(end, MORE * loaded, FIRST_READ));
    const bytes = new Uint8Array(size);
    bytes.set(this.#bytes);
    await this.source.read(loaded, bytes.subarray(loaded));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  /** Advances by `count` bytes; returns the offset of the first. */
  #take(count: number, what: string): number {
    const begin = this.at;
    const end = begin + count;
    if (end > this.source.size) {
      this.fail(`${what} at byte ${begin} within the file's ${this.source.size} bytes`);
    }
    if (end > this.#bytes.length) throw new Unread(end);
    this.at = end;
    return begin;
  }

  /** The next `count` bytes. */
  bytes(count: number, what: string): Uint8Array<ArrayBuffer> {
    const begin = this.#take(count, what);
    return this.#bytes.subarray(begin, begin + count);
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), this.isLittle);
  }

  /** An unsigned 64-bit integer; beyond 2^53 it is rounded. */
  u64(what: string): number {
    return u64At(this.#view, this.#take(8, what), this.isLittle);
  }

  /** The number of items that follow, each of at least `itemBytes` bytes. */
  count(what: string, itemBytes: number): number {
    const count = this.u64(what);
    const most = Math.floor((this.source.size - this.at) / itemBytes);
    if (count > most) {
      this.fail(`at most ${most} ${what} in the rest of the file, got ${count}`);
    }
    return count;
  }

  text(what: string): string {
    const length = this.count(`bytes of ${what}`, 1);
    const begin = this.at;
    return this.#decode(this.bytes(length, what), `${what} at byte ${begin}`);
  }

  /** A value of a type; an array is a function that decodes it. */
  value(type: number, key: string): MetadataValue | (() => MetadataValue) {
    if (type === STRING) return this.text(key);
    if (type === ARRAY) {
      const begin = this.at;
      this.#skipArray(key, 1);
      // The subarray keeps these bytes even when the reader loads more.
      const bytes = this.#bytes.subarray(begin, this.at);
      return () => this.#arrayOf(bytes, key);
    }
    const { bytes, read } = this.#scalar(type, key);
    const at = this.#take(bytes, key);
    this.#expectBools(type, at, 1, key);
    return read(this.#view, at, this.isLittle);
  }

  #scalar(type: number, key: string): (typeof SCALARS)[number] {
    const scalar = SCALARS[type];
    return scalar ?? this.fail(`"${key}" to have a type from 0 to 12, got ${type}`);
  }

  /** Checks an array's lengths, types and nesting. */
  #skipArray(key: string, depth: number): void {
    if (depth > MAX_DEPTH) this.fail(`at most ${MAX_DEPTH} levels of arrays in "${key}"`);
    const type = this.u32(key);
    if (type === STRING) {
      this.#skipTexts(key);
    } else if (type === ARRAY) {
      for (let left = this.count(`arrays of "${key}"`, 12); left > 0; left--) {
        this.#skipArray(key, depth + 1);
      }
    } else {
      const { bytes } = this.#scalar(type, key);
      const count = this.count(`elements of "${key}"`, bytes);
      this.#expectBools(type, this.#take(count * bytes, key), count, key);
    }
  }

  /**
   * Skips texts: over local variables and without calls, since the loop ends before the compiler
   * has replaced the interpreter: 98,000 texts take 2.6 ms, 4.3 with `u64At`.
   */
  #skipTexts(key: string): void {
    const what = `bytes of "${key}"`;
    const count = this.count(`texts of "${key}"`, 8);
    const [view, last, isLittle] = [this.#view, this.#bytes.length - 8, this.isLittle];
    const [low, high] = isLittle ? [0, 4] : [4, 0];
    let at = this.at;
    for (let i = 0; i < count; i++) {
      const begin = at;
      if (at <= last) {
        at += 8 + view.getUint32(at + low, isLittle) +
          2 ** 32 * view.getUint32(at + high, isLittle);
      }
      if (at > last + 8 || begin > last) {
        this.at = begin;
        this.#take(this.count(what, 1), what); // throws
      }
    }
    this.at = at;
  }

  #expectBools(type: number, at: number, count: number, key: string): void {
    if (type !== BOOL) return;
    const wrong = this.#bytes.subarray(at, at + count).findIndex((byte) => byte > 1);
    if (wrong >= 0) this.fail(`0 or 1 for "${key}" at byte ${at + wrong}`);
  }

  /** Decodes an array whose bytes were checked. */
  #arrayOf(bytes: Uint8Array, key: string): MetadataValue[] {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { isLittle } = this;
    let at = 0;
    const u64 = (): number => u64At(view, (at += 8) - 8, isLittle);
    const array = (): MetadataValue[] => {
      const type = view.getUint32((at += 4) - 4, isLittle);
      const count = u64();
      if (type === STRING) {
        const begins = new Uint32Array(count);
        const ends = new Uint32Array(count);
        for (let i = 0; i < count; i++) {
          const length = u64();
          begins[i] = at;
          ends[i] = at += length;
        }
        return this.#texts(bytes, { begins, ends }, key);
      }
      const items = new Array<MetadataValue>(count);
      if (type === ARRAY) {
        for (let i = 0; i < count; i++) items[i] = array();
        return items;
      }
      const { bytes: size, read } = SCALARS[type];
      for (let i = 0; i < count; i++) items[i] = read(view, (at += size) - size, isLittle);
      return items;
    };
    return array();
  }

  /**
   * Decodes texts at places of `bytes`.
   *
   * Trick: decodes all of them at once and cuts the result, since each call of TextDecoder takes
   * about 1 µs: 128,000 texts take 50 ms. A text that begins with a continuation byte would
   * complete the one before it, and is refused.
   */
  #texts(bytes: Uint8Array, { begins, ends }: Places, key: string): string[] {
    const all = new Uint8Array(ends.reduce((n, end, i) => n + end - begins[i], 0));
    const lengths = new Uint32Array(ends.length); // in UTF-16 units
    let to = 0;
    for (let i = 0; i < ends.length; i++) {
      const [begin, end] = [begins[i], ends[i]];
      if (isContinuation(bytes[begin]) && end > begin) this.fail(`"${key}"[${i}] to be UTF-8`);
      let length = 0;
      for (let at = begin; at < end; at++) {
        const byte = all[to++] = bytes[at];
        length += isContinuation(byte) ? 0 : byte < 0xf0 ? 1 : 2;
      }
      lengths[i] = length;
    }
    const text = this.#decode(all, `"${key}"`);
    const texts = new Array<string>(lengths.length);
    for (let i = 0, from = 0; i < texts.length; i++) {
      texts[i] = text.slice(from, from += lengths[i]);
    }
    return texts;
  }

  #decode(bytes: Uint8Array, what: string): string {
    try {
      return UTF8.decode(bytes);
    } catch {
      return this.fail(`${what} to be UTF-8`);
    }
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function u64At(view: DataView, at: number, isLittle: boolean): number {
  const [low, high] = isLittle ? [at, at + 4] : [at + 4, at];
  const rest = view.getUint32(high, isLittle);
  // A small integer needs no object; the sum with a product would.
  return rest === 0
    ? view.getUint32(low, isLittle)
    : view.getUint32(low, isLittle) + rest * 2 ** 32;
}

/** Reads `count` pairs of key and value. */
export async function readPairs(header: HeaderReader, count: number): Promise<Metadata> {
  const metadata = {};
  for (let i = 0; i < count; i++) {
    const [key, value] = await header.parse(() => {
      const key = header.text("a key");
      return [key, header.value(header.u32(`the type of "${key}"`), key)] as const;
    });
    if (Object.hasOwn(metadata, key)) header.fail(`every key once, got "${key}" twice`);
    Object.defineProperty(metadata, key, {
      enumerable: true,
      configurable: true,
      ...typeof value === "function" ? { get: lazily(metadata, key, value) } : { value },
    });
  }
  return metadata;
}

/** A getter that decodes a value once. */
function lazily(metadata: object, key: string, decode: () => MetadataValue) {
  return () => {
    const value = decode();
    Object.defineProperty(metadata, key, { value, enumerable: true, configurable: true });
    return value;
  };
}

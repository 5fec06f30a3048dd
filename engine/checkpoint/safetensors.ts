/**
 * Reader of the safetensors format (https://huggingface.co/docs/safetensors). It reads the header;
 * tensors are read on demand.
 *
 *     byte 0         8                       8 + n                              end of the file
 *          ┌─────────┬───────────────────────┬──────────────┬──────────────┬───┐
 *          │ n (u64) │ JSON header (n bytes) │ tensor "a"   │ tensor "b"   │ … │
 *          └─────────┴───────────────────────┴──────────────┴──────────────┴───┘
 *     {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": …, "__metadata__": …}
 *
 * data_offsets count from byte 8 + n; the tensors have no gaps. Every rule of the format is checked
 * before a number from the file decides the size of an allocation.
 *
 * @module
 */
import { BF16, F16, F32 } from "../../kernels/formats/float.ts";
import type { StoredFormat } from "../../kernels/formats/format.ts";
import { HALVES } from "../../kernels/formats/half.ts";
import { F64, I16, I32, I64, I8, integers64, numbers } from "../../kernels/formats/numbers.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { define, isNaturals, isRecord } from "../json.ts";
import type { ByteSource } from "../host/mod.ts";

/** Every dtype of the format. Weights can stay in F32, F16 or BF16; other dtypes become F32. */
export const STORED: Readonly<Record<string, StoredFormat>> = {
  F64,
  F32,
  F16,
  BF16,
  I64,
  I32,
  I16,
  I8,
  U64: integers64(BigUint64Array),
  U32: numbers(Uint32Array),
  U16: numbers(Uint16Array),
  U8: numbers(Uint8Array),
  BOOL: numbers(Uint8Array),
  F8_E4M3: bytes(e4m3),
  F8_E5M2: bytes(e5m2),
};

/** One-byte elements, decoded by a table of 256 values. */
function bytes(valueOf: (byte: number) => number): StoredFormat {
  const values = Float32Array.from({ length: 256 }, (_, byte) => valueOf(byte));
  return {
    block: 1,
    bytes: 1,
    decode(into, stored) {
      for (let i = 0; i < into.length; i++) into[i] = values[stored[i]];
    },
  };
}

/**
 * s eeee mmm, bias 7: (−1)ˢ · 2ᵉ⁻⁷ · (1 + m/8), subnormal if e = 0. There is no infinity; NaN has
 * all bits of e and m set (PyTorch's float8_e4m3fn; Micikevicius et al. 2022, arXiv:2209.05433).
 */
function e4m3(byte: number): number {
  const [sign, e, m] = [byte & 0x80 ? -1 : 1, byte >> 3 & 15, byte & 7];
  if (e === 15 && m === 7) return NaN;
  return sign * (e === 0 ? m / 8 * 2 ** -6 : (1 + m / 8) * 2 ** (e - 7));
}

/** s eeeee mm, bias 15: the upper byte of an F16. */
function e5m2(byte: number): number {
  return HALVES.get(new DataView(Uint16Array.of(byte << 8).buffer), 0);
}

/** Longest header that the format allows. */
const MAX_HEADER_BYTES = 100_000_000;

/** A tensor's place in a file. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Holds its bytes row by row, little-endian. */
  readonly source: ByteSource;
  /** First byte in the source. */
  readonly offset: number;
  readonly byteLength: number;
  /**
   * Verifies bytes that were read from the source at `offset` against the file's checksums.
   * @throws {CheckpointError} If they differ.
   */
  readonly verify?: (offset: number, bytes: Uint8Array) => void;
}

/** A checked header. */
export interface SafetensorsHeader {
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Reads and checks a header.
 * @throws {CheckpointError} If the file breaks a rule of the format; names the tensor and the rule.
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "${source.name}": expected ${expected}`);
  };
  if (source.size < 8) fail(`at least 8 bytes of safetensors, got ${source.size}`);
  const head = new Uint8Array(8);
  await source.read(0, head);
  const headerBytes = new DataView(head.buffer).getBigUint64(0, true);
  const maxBytes = Math.min(source.size - 8, MAX_HEADER_BYTES);
  if (headerBytes > BigInt(maxBytes)) {
    fail(`a header of at most ${maxBytes} bytes, got a length of ${headerBytes} at byte 0`);
  }
  const text = new Uint8Array(Number(headerBytes));
  await source.read(8, text);
  const header = parseHeader(text, fail);
  return checkHeader(header, source, 8 + text.length, fail);
}

function parseHeader(bytes: Uint8Array, fail: (expected: string) => never) {
  let text = "";
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    fail(`a header of JSON at byte 8, got ${messageOf(error)}`);
  }
  if (!isRecord(value) || bytes[0] !== 0x7b) return fail("a header that is a JSON object");
  const key = duplicateKey(text);
  if (key !== undefined) fail(`every key of the header once, got ${JSON.stringify(key)} twice`);
  return value;
}

function checkHeader(
  header: Record<string, unknown>,
  source: ByteSource,
  dataStart: number,
  fail: (expected: string) => never,
): SafetensorsHeader {
  const tensors: StoredTensor[] = [];
  const metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__" && entry === null) continue; // Hugging Face's reader accepts null
    if (!isRecord(entry)) return fail(`an object for ${JSON.stringify(name)}`);
    if (name === "__metadata__") {
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== "string") return fail(`text for metadata ${JSON.stringify(key)}`);
        define(metadata, key, value);
      }
    } else {
      tensors.push(checkEntry(name, entry, source, dataStart, fail));
    }
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = dataStart;
  for (const t of tensors) {
    if (t.offset !== end) {
      fail(
        `tensor "${t.name}" to begin where the one before it ends, at byte ${end}, got ${t.offset} ${
          t.offset < end ? "(they overlap)" : "(a gap)"
        }`,
      );
    }
    end += t.byteLength;
  }
  if (end !== source.size) {
    fail(`tensors up to byte ${source.size}, the end of the file, got tensors up to ${end}`);
  }
  return { tensors: new Map(tensors.map((t) => [t.name, t])), metadata };
}

function checkEntry(
  name: string,
  { dtype, shape, data_offsets: offsets }: Record<string, unknown>,
  source: ByteSource,
  dataStart: number,
  fail: (expected: string) => never,
): StoredTensor {
  const of = `tensor "${name}"`;
  if (typeof dtype !== "string" || !Object.hasOwn(STORED, dtype)) {
    return fail(
      `${of} to have a dtype of ${Object.keys(STORED).join(" ")}, got ${JSON.stringify(dtype)}`,
    );
  }
  if (!isNaturals(shape)) return fail(`${of} to have a shape, got ${JSON.stringify(shape)}`);
  if (!isNaturals(offsets) || offsets.length !== 2) {
    return fail(`${of} to have two data_offsets, got ${JSON.stringify(offsets)}`);
  }
  const [begin, end] = offsets;
  const dataBytes = source.size - dataStart;
  if (begin > end || end > dataBytes) {
    fail(`${of} within the file's ${dataBytes} bytes of data, got [${begin}, ${end}]`);
  }
  // The product is a float: a huge shape loses precision, but cannot wrap around to the right size.
  let byteLength = STORED[dtype].bytes;
  for (const extent of shape) byteLength *= extent;
  if (byteLength !== end - begin) {
    fail(`${of} ${dtype} [${shape}] to have ${byteLength} bytes, got ${end - begin}`);
  }
  return { name, dtype, shape, source, offset: dataStart + begin, byteLength };
}

/**
 * The first key that an object of a valid JSON text has twice; `JSON.parse` silently keeps the
 * last. Not a regular expression: V8's give up on strings of some megabytes, which metadata may
 * hold.
 */
function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | null)[] = []; // a set for an object, null for an array
  for (let at = 0; at < text.length; at++) {
    const found = text[at];
    if (found === "{") open.push(new Set());
    else if (found === "[") open.push(null);
    else if (found === "}" || found === "]") open.pop();
    else if (found === '"') {
      const begin = at;
      at = closingQuote(text, begin);
      const keys = open.at(-1);
      if (!keys || !isColonNext(text, at + 1)) continue;
      const key = JSON.parse(text.slice(begin, at + 1)) as string;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

/** Index of the quote that closes the string at `begin`. */
function closingQuote(text: string, begin: number): number {
  for (let at = begin;;) {
    at = text.indexOf('"', at + 1);
    let slashes = 0;
    while (text[at - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return at;
  }
}

/** Whether the next non-blank character is a colon: the string before it was a key. */
function isColonNext(text: string, at: number): boolean {
  while (" \t\n\r".includes(text[at])) at++;
  return text[at] === ":";
}

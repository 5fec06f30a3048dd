/**
 * Zip archives with uncompressed members, as PyTorch writes them (PKWARE's APPNOTE.TXT).
 *
 *     ┌────────┬──────┬────────┬──────┬───┬───────────────┬───────────────────┬────────────┐
 *     │ header │ data │ header │ data │ … │ directory:    │ zip64 end record, │ end record │
 *     │ name   │      │ name   │      │   │ 1 entry per   │ locator (beyond   │ (+ comment)│
 *     │ extra  │      │ extra  │      │   │ member        │ 4 GiB only)       │            │
 *     └────────┴──────┴────────┴──────┴───┴───────────────┴───────────────────┴────────────┘
 *
 * Only the end of the file and the directory are read; a member is read on demand. A 32-bit field
 * of all ones refers to a 64-bit number in a zip64 record. Every number is checked against the
 * file's size before use.
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import { crc32 } from "../../host/crc32.ts";
import type { ByteSource } from "../../host/mod.ts";

/** A directory entry. */
export interface ZipMember {
  readonly name: string;
  /** Byte offset of its header in the file. */
  readonly header: number;
  /** Bytes. */
  readonly size: number;
  /** Why its bytes cannot be read: compressed or encrypted. */
  readonly packed?: string;
  /** Checksum of its bytes; 0 if the writer left it out. */
  readonly crc32: number;
  /** Byte offset of the next member or the directory: its upper bound. */
  readonly limit: number;
}

/** Signatures of the records. */
const MEMBER = 0x04034b50;
const ENTRY = 0x02014b50;
const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;

/** Bytes of the fixed part of each record. */
const MEMBER_BYTES = 30;
const ENTRY_BYTES = 46;
const END_BYTES = 22;
const END_64_BYTES = 56;
const LOCATOR_64_BYTES = 20;

/** Value of a 32-bit field whose number is in the zip64 record. */
const IN_ZIP64 = 0xffffffff;

/** Largest directory that is read: about a million members. */
const MAX_DIRECTORY_BYTES = 2 ** 27;

/** Largest data descriptor after a member: checksum and sizes, repeated by streaming writers. */
const MAX_DESCRIPTOR_BYTES = 24;

/** Whether a file begins with a member's signature. */
export function isZip(head: Uint8Array): boolean {
  return head.length >= 4 && viewOf(head).getUint32(0, true) === MEMBER;
}

/**
 * Reads the directory of an archive.
 * @returns the members by name, in the order of the directory.
 * @throws {CheckpointError} If the file is cut off, is no zip archive, or its numbers contradict
 *   each other.
 */
export async function readZip(source: ByteSource): Promise<Map<string, ZipMember>> {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "${source.name}": expected ${expected}`);
  };
  const { begin, size, count } = await findDirectory(source, fail);
  if (size > MAX_DIRECTORY_BYTES) {
    fail(`a directory of at most ${MAX_DIRECTORY_BYTES} bytes, got ${size} at byte ${begin}`);
  }
  if (count * ENTRY_BYTES > size) {
    fail(`a directory large enough for ${count} members, got ${size} bytes`);
  }
  const bytes = await readBytes(source, begin, size);
  const entries: ZipMember[] = [];
  for (let at = 0; at < size;) {
    const entry = readEntry(bytes, at, begin, fail);
    entries.push(entry.member);
    at = entry.end;
  }
  if (entries.length !== count) {
    fail(`${count} members in the directory, got ${entries.length}`);
  }
  // In file order: no member may overlap the next one, or the directory.
  const sorted = entries.toSorted((a, b) => a.header - b.header);
  const limits = new Map<ZipMember, number>();
  for (const [i, member] of sorted.entries()) {
    const limit = sorted[i + 1]?.header ?? begin;
    if (member.header + MEMBER_BYTES + member.size > limit) {
      fail(`"${member.name}" to end before byte ${limit}, got ${member.size} bytes of it`);
    }
    limits.set(member, limit);
  }
  const members = new Map<string, ZipMember>();
  for (const member of entries) {
    if (members.has(member.name)) fail(`every member once, got "${member.name}" twice`);
    members.set(member.name, { ...member, limit: limits.get(member)! });
  }
  return members;
}

/**
 * The byte offset of a member's data, which follows a header of variable length.
 * @throws {CheckpointError} If the header is damaged or belongs to another member, or the bytes are
 *   compressed or encrypted.
 */
export async function locateMember(source: ByteSource, member: ZipMember): Promise<number> {
  const fail = (expected: string): never => {
    throw new CheckpointError(
      `Cannot open "${source.name}": expected ${expected} at byte ${member.header}`,
    );
  };
  if (member.packed) fail(`"${member.name}" stored as torch.save does, got it ${member.packed}`);
  const room = member.limit - member.header - member.size;
  const head = viewOf(await readBytes(source, member.header, MEMBER_BYTES));
  const nameBytes = head.getUint16(26, true);
  const extraBytes = head.getUint16(28, true);
  const dataStart = MEMBER_BYTES + nameBytes + extraBytes;
  if (head.getUint32(0, true) !== MEMBER || head.getUint16(8, true) !== 0) {
    fail(`the header of "${member.name}"`);
  }
  if (dataStart > room || room - dataStart > MAX_DESCRIPTOR_BYTES) {
    fail(`"${member.name}" to fill the space up to the next member`);
  }
  const rest = await readBytes(source, member.header + MEMBER_BYTES, nameBytes + extraBytes);
  if (decodeName(rest.subarray(0, nameBytes)) !== member.name) {
    fail(`the header of "${member.name}"`);
  }
  // PyTorch aligns the data with an extra field. A wrong length would shift all bytes.
  if (!extraFields(rest.subarray(nameBytes))) fail(`whole extra fields of "${member.name}"`);
  return member.header + dataStart;
}

/** Reads a whole member and checks its checksum, if it has one. */
export async function readMember(source: ByteSource, member: ZipMember): Promise<Uint8Array> {
  const bytes = await readBytes(source, await locateMember(source, member), member.size);
  if (member.crc32 !== 0 && crc32(bytes) !== member.crc32) {
    throw new CheckpointError(
      `Cannot open "${source.name}": "${member.name}" is damaged: its checksum differs`,
    );
  }
  return bytes;
}

/** Offset and size of the directory in bytes, and its number of members. */
async function findDirectory(source: ByteSource, fail: (expected: string) => never) {
  const ending = "the end of a zip archive; the file may be cut off";
  // Only a comment of at most 65,535 bytes may follow the end record.
  const tailBytes = Math.min(source.size, END_BYTES + 0xffff);
  const tailStart = source.size - tailBytes;
  const tail = viewOf(await readBytes(source, tailStart, tailBytes));
  let at = tailBytes - END_BYTES;
  while (
    at >= 0 &&
    (tail.getUint32(at, true) !== END ||
      at + END_BYTES + tail.getUint16(at + 20, true) !== tailBytes)
  ) at--;
  if (at < 0) return fail(ending);

  let end = tailStart + at;
  let count = tail.getUint16(at + 10, true);
  let size = tail.getUint32(at + 12, true);
  let begin = tail.getUint32(at + 16, true);
  const oneDisk = tail.getUint16(at + 4, true) === 0 && tail.getUint16(at + 6, true) === 0 &&
    tail.getUint16(at + 8, true) === count;
  if (!oneDisk) fail("an archive in one file, not a part of one");

  const locator = at - LOCATOR_64_BYTES;
  if (locator >= 0 && tail.getUint32(locator, true) === LOCATOR_64) {
    const record = toNumber(tail.getBigUint64(locator + 8, true));
    if (!(record + END_64_BYTES <= tailStart + locator)) return fail(ending); // also refuses NaN
    const end64 = viewOf(await readBytes(source, record, END_64_BYTES));
    if (end64.getUint32(0, true) !== END_64) return fail(ending);
    end = record;
    count = toNumber(end64.getBigUint64(32, true));
    size = toNumber(end64.getBigUint64(40, true));
    begin = toNumber(end64.getBigUint64(48, true));
  }
  if (begin + size !== end) {
    fail(`a directory that ends at byte ${end}, got ${size} bytes of it at ${begin}`);
  }
  return { begin, size, count };
}

/** Reads the directory entry at byte `at`; the directory begins at byte `begin` of the file. */
function readEntry(
  bytes: Uint8Array,
  at: number,
  begin: number,
  fail: (expected: string) => never,
): { member: ZipMember; end: number } {
  const here = `at byte ${begin + at}`;
  const view = viewOf(bytes);
  if (at + ENTRY_BYTES > bytes.length || view.getUint32(at, true) !== ENTRY) {
    return fail(`an entry of the directory ${here}`);
  }
  const nameStart = at + ENTRY_BYTES;
  const extraStart = nameStart + view.getUint16(at + 28, true);
  const extraEnd = extraStart + view.getUint16(at + 30, true);
  const end = extraEnd + view.getUint16(at + 32, true);
  if (end > bytes.length) return fail(`a whole entry of the directory ${here}`);
  const name = decodeName(bytes.subarray(nameStart, extraStart));
  if (name === undefined) return fail(`a name in UTF-8 ${here}`);
  const method = view.getUint16(at + 10, true);
  const encrypted = view.getUint16(at + 8, true) & 1;
  const packed = encrypted ? "encrypted" : method ? `compressed (method ${method})` : undefined;
  const crc32 = view.getUint32(at + 16, true);

  const fields = extraFields(bytes.subarray(extraStart, extraEnd));
  if (!fields) return fail(`whole extra fields of "${name}" ${here}`);
  const zip64 = viewOf(fields.get(1) ?? new Uint8Array());
  let next = 0;
  /** A 32-bit number, or the next 64-bit number of the zip64 field if the field refers to it. */
  const number = (field: number): number => {
    const short = view.getUint32(at + field, true);
    if (short !== IN_ZIP64) return short;
    if (next + 8 > zip64.byteLength) return fail(`the zip64 numbers of "${name}" ${here}`);
    const long = toNumber(zip64.getBigUint64(next, true));
    next += 8;
    return long;
  };
  const wholeSize = number(24);
  const size = number(20);
  const header = number(42);
  if (!packed && size !== wholeSize) {
    return fail(`"${name}" stored uncompressed, got ${size} bytes for ${wholeSize}`);
  }
  // Negated, so that NaN (a number above 2^53) fails too.
  if (!(header + MEMBER_BYTES + size <= begin)) {
    return fail(`"${name}" to end before byte ${begin}, got ${size} bytes at ${header}`);
  }
  return { member: { name, header, size, packed, crc32, limit: begin }, end };
}

/** Extra fields by their number; undefined if their lengths do not add up. */
function extraFields(bytes: Uint8Array): Map<number, Uint8Array> | undefined {
  const view = viewOf(bytes);
  const fields = new Map<number, Uint8Array>();
  let at = 0;
  while (at + 4 <= bytes.length) {
    const end = at + 4 + view.getUint16(at + 2, true);
    if (end > bytes.length) return undefined;
    fields.set(view.getUint16(at, true), bytes.subarray(at + 4, end));
    at = end;
  }
  return at === bytes.length ? fields : undefined;
}

function decodeName(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A 64-bit number; NaN above 2^53 − 1, so that every comparison with it is false. */
function toNumber(value: bigint): number {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : NaN;
}

async function readBytes(source: ByteSource, offset: number, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  await source.read(offset, bytes);
  return bytes;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

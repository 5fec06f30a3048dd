/**
 * CRC-32 checksums of storages, verified while their bytes are read.
 *
 * The zip directory has the CRC-32 of every member. A storage that is read completely and in order,
 * in pieces of any size, is verified without a second pass over its bytes. A storage that is read
 * partially or in another order is not verified.
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import { crc32 } from "../../host/crc32.ts";
import type { ByteSource } from "../../host/mod.ts";
import type { ZipMember } from "./zip.ts";

/** A storage whose first bytes were read. */
interface Run {
  readonly member: ZipMember;
  /** Byte offset in the file of the end of the storage. */
  readonly end: number;
  /** CRC-32 of the bytes read so far. */
  sum: number;
}

/** Verifies the reads of one file. */
export class Checksums {
  /** Storages by the byte offset of their first byte. */
  readonly #starts = new Map<number, ZipMember>();
  /** Partially read storages, by the byte offset of the next byte. */
  readonly #runs = new Map<number, Run>();

  constructor(readonly file: ByteSource) {}

  /** Adds a storage at byte `start`. A storage without a checksum is ignored. */
  add(start: number, member: ZipMember): void {
    if (member.crc32 !== 0) this.#starts.set(start, member);
  }

  /**
   * Updates the checksums with bytes that were read at `offset`.
   * @throws {CheckpointError} If they end a storage whose checksum differs.
   */
  saw(offset: number, bytes: Uint8Array): void {
    if (!bytes.length) return;
    const run = this.#runs.get(offset) ?? this.#begin(offset);
    if (!run) return;
    this.#runs.delete(offset);
    run.sum = crc32(bytes, run.sum);
    const next = offset + bytes.length;
    if (next < run.end) this.#runs.set(next, run);
    if (next === run.end && run.sum !== run.member.crc32) {
      const [expected, got] = [run.member.crc32, run.sum].map((sum) => sum.toString(16));
      throw new CheckpointError(
        `Cannot read "${this.file.name}": expected ${run.member.name} to have the checksum ` +
          `${expected}, got ${got}; the file is damaged`,
      );
    }
  }

  #begin(offset: number): Run | undefined {
    const member = this.#starts.get(offset);
    return member && { member, end: offset + member.size, sum: 0 };
  }
}

/** The file with verified reads. */
export function followed(checksums: Checksums): ByteSource {
  const { file } = checksums;
  return {
    name: file.name,
    size: file.size,
    async read(offset, into) {
      await file.read(offset, into);
      checksums.saw(offset, into);
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/**
 * CRC-32, the checksum of zip files: by the runtime's zlib, or by a table.
 *
 * @module
 */
import { builtin } from "./builtin.ts";

/** CRC-32 of each byte, by zip's reflected polynomial 0xedb88320. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * CRC-32 checksum. zlib is about 20 times as fast as the table: 9 GB/s on one core of an EPYC.
 * @param before checksum of the preceding bytes.
 */
export function crc32(bytes: Uint8Array, before = 0): number {
  // Node has it from 22.2 on.
  return builtin("node:zlib")?.crc32?.(bytes, before) ?? tableCrc32(bytes, before);
}

/** `crc32` for runtimes without zlib. */
export function tableCrc32(bytes: Uint8Array, before = 0): number {
  let sum = ~before;
  for (let i = 0; i < bytes.length; i++) sum = CRC_TABLE[(sum ^ bytes[i]) & 0xff] ^ (sum >>> 8);
  return ~sum >>> 0;
}

/**
 * CRC-32, the checksum of zip: by the runtime's zlib, else by a table.
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
 * CRC-32 checksum. The native form is some twenty times as fast: 9 GB/s on one core of an EPYC.
 * @param before checksum of the bytes in front.
 */
export function crc32(bytes: Uint8Array, before = 0): number {
  return builtin("node:zlib")?.crc32(bytes, before) ?? tableCrc32(bytes, before);
}

/** The form for runtimes without zlib. */
export function tableCrc32(bytes: Uint8Array, before = 0): number {
  let sum = ~before;
  for (let i = 0; i < bytes.length; i++) sum = CRC_TABLE[(sum ^ bytes[i]) & 0xff] ^ (sum >>> 8);
  return ~sum >>> 0;
}

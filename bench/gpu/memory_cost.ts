/**
 * Cost of a warp's memory accesses on a GPU: 32-byte sectors of storage, turns of 32 banks of
 * workgroup memory.
 *
 * @module
 */
import type { Access } from "./wgsl_trace.ts";

/** Bytes of a sector, the smallest unit of a read from memory. */
const SECTOR = 32;

/** Banks of workgroup memory, four bytes wide each. */
const BANKS = 32;

/** Sectors that an access touches, and the fewest that could hold its bytes. */
export function sectorsOf({ addresses, bytes }: Access): { sectors: number; ideal: number } {
  const [sectors, words] = [new Set<number>(), new Set<number>()];
  for (const address of addresses) {
    for (let at = address; at < address + bytes; at += 4) {
      sectors.add(Math.floor(at / SECTOR));
      words.add(at);
    }
  }
  return { sectors: sectors.size, ideal: Math.ceil(4 * words.size / SECTOR) };
}

/**
 * Turns that an access to workgroup memory takes, and the fewest for its distinct words: lanes with
 * 16 bytes each go by quarters of a warp, with 8 by halves; lanes that share a word share its turn.
 */
export function turnsOf({ addresses, bytes }: Access): { turns: number; ideal: number } {
  const phase = Math.floor(32 / (bytes / 4));
  let [turns, ideal] = [0, 0];
  for (let first = 0; first < addresses.length; first += phase) {
    const banks = new Map<number, Set<number>>();
    const words = new Set<number>();
    for (const address of addresses.slice(first, first + phase)) {
      for (let word = address / 4; word < (address + bytes) / 4; word++) {
        words.add(word);
        banks.set(word % BANKS, (banks.get(word % BANKS) ?? new Set()).add(word));
      }
    }
    turns += Math.max(...[...banks.values()].map((bank) => bank.size));
    ideal += Math.ceil(words.size / BANKS);
  }
  return { turns, ideal };
}

/**
 * MXFP4 and NVFP4: 4-bit floats (E2M1) with a scale.
 *
 *     MXFP4, 32 numbers (OCP Microscaling Formats 1.0)
 *     byte  0        1                17
 *           e E8M0   q × 32, 4 bits        w = 2^(e − 128) · TABLE[q]
 *
 *     NVFP4, 4 groups of 16 numbers
 *     byte  0              4                36
 *           scale × 4 E4M3 q × 64, 4 bits       w = scale / 2 · TABLE[q]
 *
 * TABLE has the values of E2M1, doubled. The low four bits of a group's bytes hold its first half.
 *
 * @module
 */
import type { StoredFormat } from "./format.ts";
import { storedBlocks, times } from "./stored_blocks.ts";

/** ggml's kvalues_mxfp4; −0 is 0. */
const TABLE = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** Decodes `count` numbers of a scale, two in each byte from `at` on. */
function decodeGroup(
  into: Float32Array,
  i: number,
  count: number,
  view: DataView,
  at: number,
  scale: number,
) {
  for (let j = 0; j < count / 2; j++) {
    const pair = view.getUint8(at + j);
    into[i + j] = times(scale, TABLE[pair & 15]);
    into[i + count / 2 + j] = times(scale, TABLE[pair >> 4]);
  }
}

/** E2M1 with a power of two. */
export const MXFP4: StoredFormat = storedBlocks(32, 17, (into, i, view, at) => {
  decodeGroup(into, i, 32, view, at + 1, 2 ** (view.getUint8(at) - 128));
}, (view, at) => 2 ** (view.getUint8(at) - 128) * 12);

/** Half of an unsigned E4M3 of bias 7, whose sign bit is ignored; 0 for a NaN (0x7f). */
function halfE4m3(byte: number): number {
  if (byte === 0x7f) return 0;
  const [e, m] = [byte >> 3 & 15, byte & 7];
  return e === 0 ? m * 2 ** -10 : (1 + m / 8) * 2 ** (e - 8);
}

/** E2M1 with scales in E4M3. */
export const NVFP4: StoredFormat = storedBlocks(64, 36, (into, i, view, at) => {
  for (let group = 0; group < 4; group++) {
    const scale = halfE4m3(view.getUint8(at + group));
    decodeGroup(into, i + 16 * group, 16, view, at + 4 + 8 * group, scale);
  }
}, () => 240 * 12);

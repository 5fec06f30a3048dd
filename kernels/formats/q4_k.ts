/**
 * Q4_K: 8 groups of 32 numbers of 4 bits, each with a 6-bit scale and minimum.
 *
 *     byte  0      2         4                  16                  144
 *           d F16  dmin F16  scale, min × 8     q × 256, 4 bits
 *
 *     w = (d · scale) · q − dmin · min
 *
 * The low four bits of byte 32·n + j hold q of number 64·n + j, the high ones of 64·n + 32 + j.
 * Scales s and minima m, 6 bits each, by bytes 0 … 11 of their part (k = 0 … 3):
 *
 *     byte k      high two of s[k + 4]   s[k]
 *     byte k + 4  high two of m[k + 4]   m[k]
 *     byte k + 8  low four of m[k + 4]   low four of s[k + 4]
 *
 * @module
 */
import { f32x4 } from "../asm/assembler.ts";
import { plainF16High, plainF16Low } from "./f16.ts";
import type { BlockFields, Format } from "./format.ts";
import { groupCode, groupScales, SEARCH_4, storeScales } from "./k_encode.ts";
import { blockEncoder, half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { bitsOfByte, nibbleCodes, range, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ4_K } from "./wasm_encode_k.ts";
import { K_SCALES_WGSL, wgslBlocks } from "./wgsl_blocks.ts";

/** Scale and minimum of a group: 6 bits each, packed from byte `at` on; Q5_K has the same. */
export function scaleAndMin(view: DataView, at: number, group: number): [number, number] {
  const byte = (k: number) => view.getUint8(at + k);
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  const low = byte(group + 4);
  return [low & 15 | byte(group - 4) >> 2 & 48, low >> 4 | byte(group) >> 2 & 48];
}

/** The same in WASM; word 0 of the block is (d, dmin), and words 1 to 3 hold the scales. */
export function scalesWasm(group: number) {
  const bits = (fields: BlockFields, k: number, from: number, mask: number) =>
    bitsOfByte(fields, 1, k, { from, mask });
  const scale = (fields: BlockFields) =>
    group < 4
      ? bits(fields, group, 0, 63)
      : bits(fields, group + 4, 0, 15).or(bits(fields, group - 4, 2, 48));
  const min = (fields: BlockFields) =>
    group < 4
      ? bits(fields, group + 4, 0, 63)
      : bits(fields, group + 4, 4, 15).or(bits(fields, group, 2, 48));
  return {
    scale: (fields: BlockFields) =>
      f32x4.convertI32x4S(scale(fields)).times(plainF16Low(fields.word(0))),
    min: (fields: BlockFields) =>
      f32x4.convertI32x4S(min(fields)).times(plainF16High(fields.word(0))).times(-1),
  };
}

/** The groups in the lower and the upper nibbles of the same words; Q5_K has the same. */
export const NIBBLE_STRIPES = range(0, 4).map((n) => [2 * n, 2 * n + 1]);

/** 4 bits with scales and minima. */
export const Q4_K: Format = {
  ...storedBlocks(QK_K, 144, (into, i, view, at) => {
    const [d, dmin] = [half(view, at), half(view, at + 2)];
    for (let group = 0; group < 8; group++) {
      const [scale, min] = scaleAndMin(view, at + 4, group);
      const [ds, dm] = [times(d, scale), times(dmin, min)];
      const [qs, shift] = [at + 16 + 32 * (group >> 1), 4 * (group & 1)];
      for (let j = 0; j < 32; j++) {
        const q = view.getUint8(qs + j) >> shift & 15;
        into[i + 32 * group + j] = minus(times(ds, q), dm);
      }
    }
  }),
  view: null,
  encode: blockEncoder(QK_K, 144, (values, i, view, at) => {
    const found = groupScales(values, i, SEARCH_4);
    storeScales(view, at, found);
    const code = (n: number) => groupCode(values[i + n], n >> 5, found, 15);
    for (let n = 0; n < 4; n++) {
      for (let j = 0; j < 32; j++) {
        view.setUint8(at + 16 + 32 * n + j, code(64 * n + j) | code(64 * n + 32 + j) << 4);
      }
    }
  }),
  instead: "Q5_0",
  wasm: wasmBlocks({ block: QK_K, bytes: 144 }, {
    half: null,
    first: 0,
    words: 36,
    pair: 0,
    stripes: NIBBLE_STRIPES,
    pieces: { count: 4, apart: 8 },
    parts: range(0, 8).map((group) => {
      const first = 4 + 8 * (group >> 1);
      return {
        inputs: 32,
        offset: 0,
        most: 15,
        codeWords: range(first, 8),
        codes: (word, index) => [{ ...nibbleCodes(word, 0)[group % 2], group: index - first }],
        ...scalesWasm(group),
      };
    }),
  }, encodeQ4_K),
  wgsl: wgslBlocks({ block: QK_K, bytes: 144 }, {
    planes: [{ offset: 0, bytes: 16 }, { offset: 16, bytes: 128 }],
    declare: K_SCALES_WGSL,
    decode: (word) =>
      `let j = k % 8u;
  let head = ${word(0, "k / 8u")};
  let scale = k_scale(head, j);
  let shift = vec4u(4u * (j % 2u));
  let a = low_nibbles(${word(1, "2u * (k / 2u)")} >> shift);
  let b = low_nibbles(${word(1, "2u * (k / 2u) + 1u")} >> shift);
  return block_of(a, b, scale.xx, scale.yy);`,
  }),
};

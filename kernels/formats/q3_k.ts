/**
 * Q3_K: 16 groups of 16 numbers of 3 bits, each with a 6-bit scale.
 *
 *     byte  0                   32                 96             108    110
 *           high bit × 256      q × 256, 2 bits    scale × 16     d F16
 *
 *     w = d · (scale − 32) · (q − 4·(1 − high))
 *
 * Bits 2b, 2b + 1 of byte 32·n + j hold the low bits of number 128·n + 32·b + j; bit b of byte j of
 * the high bits is that of number 32·b + j. Of the scales, byte k of the first eight holds the low
 * four bits of scales k and k + 8; byte k of the last four the high two of k, k + 4, k + 8, k + 12.
 *
 * @module
 */
import { f32x4, i32x4 } from "../asm/assembler.ts";
import type { Format } from "./format.ts";
import { half, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { bitsOfByte, moveBits, range, wasmBlocks } from "./wasm_blocks.ts";
import { wgslBlocks } from "./wgsl_blocks.ts";

/** Index of the word with the first codes of inputs 32k … 32k + 31. */
const AT = "4u * (k / 8u) + 2u * (k % 8u / 4u)";

/** 3 bits with scales. */
export const Q3_K: Format = {
  ...storedBlocks(QK_K, 110, (into, i, view, at) => {
    const d = half(view, at + 108);
    for (let group = 0; group < 16; group++) {
      const low = view.getUint8(at + 96 + (group & 7)) >> 4 * (group >> 3) & 15;
      const high = view.getUint8(at + 104 + (group & 3)) >> 2 * (group >> 2) & 3;
      const scale = times(d, (low | high << 4) - 32);
      const first = 16 * group;
      const qs = at + 32 + 32 * (first >> 7) + (first & 31);
      const shift = 2 * (first >> 5 & 3);
      for (let j = 0; j < 16; j++) {
        const isHigh = view.getUint8(at + (first & 31) + j) >> (first >> 5) & 1;
        const q = (view.getUint8(qs + j) >> shift & 3) - (isHigh ? 0 : 4);
        into[i + first + j] = times(scale, q);
      }
    }
  }),
  view: null,
  encode: null,
  instead: "IQ4_NL",
  wasm: wasmBlocks({ block: QK_K, bytes: 110 }, {
    half: 108,
    first: 0,
    words: 27,
    pair: null,
    parts: range(0, 16).map((group) => {
      const [n, b, from] = [group >> 3, group >> 1 & 3, 4 * (group & 1)];
      const first = 8 + 8 * n + from;
      return {
        inputs: 16,
        offset: -4,
        most: 7,
        codeWords: range(first, 4),
        codes: (word, index, fields) => {
          const high = moveBits(fields.word(from + index - first), group >> 1, 2, 4);
          return [{ group: index - first, bytes: moveBits(word, 2 * b, 0, 3).or(high) }];
        },
        scale: (fields) => {
          const bits = (k: number, from: number, mask: number) =>
            bitsOfByte(fields, 24, k, { from, mask });
          const low = bits(group & 7, 4 * (group >> 3), 15);
          const high = i32x4.shl(bits(8 + (group & 3), 2 * (group >> 2), 3), 4);
          const scale = i32x4.sub(low.or(high), i32x4.splat(32));
          return f32x4.convertI32x4S(scale).times(fields.half());
        },
      };
    }),
  }),
  wgsl: wgslBlocks({ block: QK_K, bytes: 110 }, {
    // Scales and d are one word, of 14 bytes.
    planes: [{ offset: 0, bytes: 32 }, { offset: 32, bytes: 64 }, { offset: 96, bytes: 14 }],
    decode: (word) =>
      `let j = k % 8u;
  let shift = vec4u(2u * (j % 4u));
  let one = vec4u(0x01010101u);
  let two = vec4u(0x03030303u);
  let a = ((${word(1, AT)} >> shift) & two) |
    (((${word(0, "2u * (k / 8u)")} >> vec4u(j)) & one) << vec4u(2u));
  let b = ((${word(1, `${AT} + 1u`)} >> shift) & two) |
    (((${word(0, "2u * (k / 8u) + 1u")} >> vec4u(j)) & one) << vec4u(2u));
  let head = ${word(2, "k / 8u")};
  // Scales 4i … 4i + 3: four bits of a byte, two more of another.
  let i = j / 2u;
  let low = (select(head.x, head.y, i % 2u == 1u) >> (4u * (i / 2u))) & 0x0f0f0f0fu;
  let scales = (low | (((head.z >> (2u * i)) & 0x03030303u) << 4u)) >> (16u * (j % 2u));
  let pair = vec2f(f32(scales & 0xffu), f32((scales >> 8u) & 0xffu)) - 32.0;
  let d = half_of(head.w) * pair;
  return block_of(a, b, d, -4.0 * d);`,
  }),
};

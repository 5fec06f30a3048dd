/**
 * Q2_K: 16 groups of 16 numbers of 2 bits, each with a 4-bit scale and minimum.
 *
 *     byte  0                    16                  80     82       84
 *           scale + 16·min × 16  q × 256, 2 bits     d F16  dmin F16
 *
 *     w = (d · scale) · q − dmin · min
 *
 * Bits 2b, 2b + 1 of byte 32·n + j hold q of number 128·n + 32·b + j.
 *
 * @module
 */
import { f32x4 } from "../asm/assembler.ts";
import { plainF16High as f16High, plainF16Low as f16Low } from "./f16.ts";
import type { BlockFields, Format } from "./format.ts";
import { half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { bitsOfByte, moveBits, range, wasmBlocks } from "./wasm_blocks.ts";
import { fourAt, wgslBlocks } from "./wgsl_blocks.ts";

/** Index of the word with the first codes of inputs 32k … 32k + 31. */
const AT = "4u * (k / 8u) + 2u * (k % 8u / 4u)";

/** 2 bits with scales and minima. */
export const Q2_K: Format = {
  ...storedBlocks(QK_K, 84, (into, i, view, at) => {
    const [d, dmin] = [half(view, at + 80), half(view, at + 82)];
    for (let group = 0; group < 16; group++) {
      const packed = view.getUint8(at + group);
      const [scale, min] = [times(d, packed & 15), times(dmin, packed >> 4)];
      const first = 16 * group;
      const qs = at + 16 + 32 * (first >> 7) + (first & 31);
      const shift = 2 * (first >> 5 & 3);
      for (let j = 0; j < 16; j++) {
        const q = view.getUint8(qs + j) >> shift & 3;
        into[i + first + j] = minus(times(scale, q), min);
      }
    }
  }),
  view: null,
  encode: null,
  instead: "IQ4_NL",
  wasm: wasmBlocks({ block: QK_K, bytes: 84 }, {
    half: null,
    first: 0,
    words: 21,
    pair: 20,
    parts: range(0, 16).map((group) => {
      const first = 4 + 8 * (group >> 3) + 4 * (group & 1);
      const nibble = (fields: BlockFields, from: number) =>
        f32x4.convertI32x4S(bitsOfByte(fields, 0, group, { from, mask: 15 }));
      return {
        inputs: 16,
        offset: 0,
        most: 3,
        codeWords: range(first, 4),
        codes: (word, index) => [{
          group: index - first,
          bytes: moveBits(word, 2 * (group >> 1 & 3), 0, 3),
        }],
        scale: (fields) => nibble(fields, 0).times(f16Low(fields.word(20))),
        min: (fields) => nibble(fields, 4).times(f16High(fields.word(20))).times(-1),
      };
    }),
  }),
  wgsl: wgslBlocks({ block: QK_K, bytes: 84 }, {
    planes: [{ offset: 0, bytes: 16 }, { offset: 16, bytes: 64 }, { offset: 80, bytes: 4 }],
    decode: (word) =>
      `let j = k % 8u;
  let shift = vec4u(2u * (j % 4u));
  let two = vec4u(0x03030303u);
  let a = (${word(1, AT)} >> shift) & two;
  let b = (${word(1, `${AT} + 1u`)} >> shift) & two;
  let scales = ${word(0, "k / 8u")}[j / 2u] >> (16u * (j % 2u));
  let pair = unpack2x16float(${fourAt(word, 2, "k / 8u")});
  let d = pair.x * vec2f(f32(scales & 15u), f32((scales >> 8u) & 15u));
  let m = -pair.y * vec2f(f32((scales >> 4u) & 15u), f32((scales >> 12u) & 15u));
  return block_of(a, b, d, m);`,
  }),
};

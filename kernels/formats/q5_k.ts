/**
 * Q5_K: 8 groups of 32 numbers of 5 bits, each with a 6-bit scale and minimum.
 *
 *     byte  0      2         4               16               48                  176
 *           d F16  dmin F16  scale, min × 8  high bit × 256   q × 256, 4 bits
 *
 *     w = (d · scale) · (q + 16·high) − dmin · min
 *
 * Scales, minima and low bits are placed as in Q4_K. Bit g of byte j of the high bits is that of
 * number 32·g + j.
 *
 * @module
 */
import type { Format } from "./format.ts";
import { groupCode, groupScales, SEARCH_5, storeScales } from "./k_encode.ts";
import { NIBBLE_STRIPES, scaleAndMin, scalesWasm } from "./q4_k.ts";
import { blockEncoder, half, minus, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { highNibbles, lowNibbles, moveBits, range, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ5_K } from "./wasm_encode_k.ts";
import { K_SCALES_WGSL, wgslBlocks } from "./wgsl_blocks.ts";

/** 5 bits with scales and minima. */
export const Q5_K: Format = {
  ...storedBlocks(QK_K, 176, (into, i, view, at) => {
    const [d, dmin] = [half(view, at), half(view, at + 2)];
    for (let group = 0; group < 8; group++) {
      const [scale, min] = scaleAndMin(view, at + 4, group);
      const [ds, dm] = [times(d, scale), times(dmin, min)];
      const [qs, shift] = [at + 48 + 32 * (group >> 1), 4 * (group & 1)];
      for (let j = 0; j < 32; j++) {
        const high = view.getUint8(at + 16 + j) >> group & 1;
        const q = view.getUint8(qs + j) >> shift & 15 | high << 4;
        into[i + 32 * group + j] = minus(times(ds, q), dm);
      }
    }
  }),
  view: null,
  encode: blockEncoder(QK_K, 176, (values, i, view, at) => {
    const found = groupScales(values, i, SEARCH_5);
    storeScales(view, at, found);
    const code = (n: number) => groupCode(values[i + n], n >> 5, found, 31);
    for (let j = 0; j < 32; j++) {
      let high = 0;
      for (let n = 0; n < 4; n++) {
        const [a, b] = [code(64 * n + j), code(64 * n + 32 + j)];
        view.setUint8(at + 48 + 32 * n + j, a & 15 | (b & 15) << 4);
        high |= a >> 4 << 2 * n | b >> 4 << 2 * n + 1;
      }
      view.setUint8(at + 16 + j, high);
    }
  }),
  instead: "Q5_1",
  wasm: wasmBlocks({ block: QK_K, bytes: 176 }, {
    half: null,
    first: 0,
    words: 44,
    pair: 0,
    stripes: NIBBLE_STRIPES,
    // In the order of use, for the processor's prefetcher: the fifth bits beside the first nibbles.
    line: (word) => word < 4 || word >= 20 ? word : word < 12 ? 2 * word - 4 : 2 * word - 19,
    parts: range(0, 8).map((group) => {
      const first = 12 + 8 * (group >> 1);
      return {
        inputs: 32,
        offset: 0,
        most: 31,
        codeWords: range(first, 8),
        codes: (word, index, fields) => {
          const nibbles = group % 2 ? highNibbles(word) : lowNibbles(word);
          const high = fields.word(4 + index - first);
          return [{ group: index - first, bytes: nibbles.or(moveBits(high, group, 4, 16)) }];
        },
        ...scalesWasm(group),
      };
    }),
  }, encodeQ5_K),
  wgsl: wgslBlocks({ block: QK_K, bytes: 176 }, {
    planes: [{ offset: 0, bytes: 16 }, { offset: 16, bytes: 32 }, { offset: 48, bytes: 128 }],
    declare: K_SCALES_WGSL,
    decode: (word) =>
      `let j = k % 8u;
  let head = ${word(0, "k / 8u")};
  let scale = k_scale(head, j);
  let shift = vec4u(4u * (j % 2u));
  let one = vec4u(0x01010101u);
  let a = low_nibbles(${word(2, "2u * (k / 2u)")} >> shift) |
    (((${word(1, "2u * (k / 8u)")} >> vec4u(j)) & one) << vec4u(4u));
  let b = low_nibbles(${word(2, "2u * (k / 2u) + 1u")} >> shift) |
    (((${word(1, "2u * (k / 8u) + 1u")} >> vec4u(j)) & one) << vec4u(4u));
  return block_of(a, b, scale.xx, scale.yy);`,
  }),
};

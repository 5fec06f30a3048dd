/**
 * Q5_1: 32 numbers of five bits, a scale and a minimum; 6 bits per weight.
 *
 *     byte  0   1   2   3   4      7      8               23
 *         ┌───────┬───────┬─────────┬──────────┬─ … ┬───────────┐
 *         │ d F16 │ m F16 │ h u32   │ q16 │ q0 │    │ q31 │ q15 │    w = d · q + m,  q in 0 … 31
 *         └───────┴───────┴─────────┴──────────┴─ … ┴───────────┘
 *                          bit j of h: bit 4 of number j; nibbles: bits 0 … 3, high and low
 *
 * Encoded as ggml's quantize_row_q5_1_ref: m = min w, d = (max w − m) / 31.
 *
 * @module
 */
import { blockCodec, codeOf, inverseOf, QK, rangeOf } from "./blocks.ts";
import { expectSize } from "./elements.ts";
import { f16High, f16Low } from "./f16.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { fifthBits, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ5_1 } from "./wasm_encode.ts";
import { fourAt, wgslBlocks } from "./wgsl_blocks.ts";

const SIZE = { block: QK, bytes: 8 + QK / 2 };

/** Q5_1 of ggml. */
export const Q5_1: Format = {
  ...blockCodec(SIZE, {
    decode(values, i, view, at) {
      const [d, m] = [HALVES.get(view, at), HALVES.get(view, at + 2)];
      const high = view.getUint32(at + 4, true);
      for (let j = 0; j < QK / 2; j++) {
        const pair = view.getUint8(at + 8 + j);
        const [a, b] = [pair & 15 | (high >>> j & 1) << 4, pair >> 4 | (high >>> j + 16 & 1) << 4];
        values[i + j] = d * a + m;
        values[i + j + QK / 2] = d * b + m;
      }
    },
    encode(values, i, view, at) {
      const [min, max] = rangeOf(values, i);
      const d = Math.fround(Math.fround(max - min) / 31);
      const inverse = inverseOf(d);
      HALVES.set(view, at, d);
      HALVES.set(view, at + 2, min);
      let high = 0;
      for (let j = 0; j < QK / 2; j++) {
        const a = codeOf(Math.fround(values[i + j] - min), inverse, 0.5, 31);
        const b = codeOf(Math.fround(values[i + j + QK / 2] - min), inverse, 0.5, 31);
        view.setUint8(at + 8 + j, a & 15 | (b & 15) << 4);
        high |= a >> 4 << j | b >> 4 << j + 16;
      }
      view.setUint32(at + 4, high, true);
    },
  }),
  instead: "F16",
  wasm: wasmBlocks(SIZE, {
    half: null,
    first: 0,
    words: 6,
    pair: 0,
    fifths: 1,
    parts: [{
      inputs: 32,
      offset: 0,
      codeWords: [2, 3, 4, 5],
      most: 31,
      codes: (word, index, fields) => fifthBits(word, index - 2, fields.word(1)),
      scale: ({ word }) => f16Low(word(0)),
      min: ({ word }) => f16High(word(0)),
    }],
  }, encodeQ5_1),
  wgsl: wgslBlocks(SIZE, {
    planes: [{ offset: 8, bytes: 16 }, { offset: 4, bytes: 4 }, { offset: 0, bytes: 4 }],
    decode: (word) =>
      `let q = ${word(0, "k")};
  let high = vec4u(${fourAt(word, 1)});
  let a = low_nibbles(q) | fifth_bits(high >> vec4u(0u, 4u, 8u, 12u));
  let b = high_nibbles(q) | fifth_bits(high >> vec4u(16u, 20u, 24u, 28u));
  let pair = unpack2x16float(${fourAt(word, 2)});
  return block_of(a, b, pair.xx, pair.yy);`,
  }),
};

expectSize("Q5_1", Q5_1.bytes, 24);

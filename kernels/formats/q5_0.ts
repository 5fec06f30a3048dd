/**
 * Q5_0: 32 numbers of five bits and one scale; 5.5 bits per weight.
 *
 *     byte  0   1   2      5      6               21
 *         ┌───────┬─────────┬──────────┬─ … ┬───────────┐
 *         │ d F16 │ h u32   │ q16 │ q0 │    │ q31 │ q15 │    w = d · (q − 16),  q in 0 … 31
 *         └───────┴─────────┴──────────┴─ … ┴───────────┘
 *                  bit j of h: bit 4 of number j; nibbles: bits 0 … 3, high and low
 *
 * Encoded as ggml's quantize_row_q5_0_ref: d = w_max / −16, where w_max has the largest magnitude.
 *
 * @module
 */
import { blockCodec, codeOf, extremeOf, inverseOf, QK } from "./blocks.ts";
import { expectSize } from "./elements.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { fifthBits, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ5_0 } from "./wasm_encode.ts";
import { fourAt, halfAt, wgslBlocks } from "./wgsl_blocks.ts";

const SIZE = { block: QK, bytes: 6 + QK / 2 };

/** Q5_0 of ggml. */
export const Q5_0: Format = {
  ...blockCodec(SIZE, {
    decode(values, i, view, at) {
      const d = HALVES.get(view, at);
      const high = view.getUint32(at + 2, true);
      for (let j = 0; j < QK / 2; j++) {
        const pair = view.getUint8(at + 6 + j);
        values[i + j] = d * ((pair & 15 | (high >>> j & 1) << 4) - 16);
        values[i + j + QK / 2] = d * ((pair >> 4 | (high >>> j + 16 & 1) << 4) - 16);
      }
    },
    encode(values, i, view, at) {
      const d = Math.fround(extremeOf(values, i) / -16);
      const inverse = inverseOf(d);
      HALVES.set(view, at, d);
      let high = 0;
      for (let j = 0; j < QK / 2; j++) {
        const a = codeOf(values[i + j], inverse, 16.5, 31);
        const b = codeOf(values[i + j + QK / 2], inverse, 16.5, 31);
        view.setUint8(at + 6 + j, a & 15 | (b & 15) << 4);
        high |= a >> 4 << j | b >> 4 << j + 16;
      }
      view.setUint32(at + 2, high, true);
    },
  }),
  instead: "F16",
  wasm: wasmBlocks(SIZE, {
    half: 0,
    first: 2,
    words: 5,
    pair: null,
    fifths: 0,
    parts: [{
      inputs: 32,
      offset: -16,
      codeWords: [1, 2, 3, 4],
      most: 31,
      codes: (word, index, fields) => fifthBits(word, index - 1, fields.word(0)),
      scale: ({ half }) => half(),
    }],
  }, encodeQ5_0),
  wgsl: wgslBlocks(SIZE, {
    planes: [{ offset: 6, bytes: 16 }, { offset: 2, bytes: 4 }, { offset: 0, bytes: 2 }],
    decode: (word) =>
      `let q = ${word(0, "k")};
  let high = vec4u(${fourAt(word, 1)});
  let a = low_nibbles(q) | fifth_bits(high >> vec4u(0u, 4u, 8u, 12u));
  let b = high_nibbles(q) | fifth_bits(high >> vec4u(16u, 20u, 24u, 28u));
  let d = vec2f(${halfAt(word, 2)});
  return block_of(a, b, d, -16.0 * d);`,
  }),
};

expectSize("Q5_0", Q5_0.bytes, 22);

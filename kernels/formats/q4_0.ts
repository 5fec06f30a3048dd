/**
 * Q4_0: 32 nibbles and one scale; 4.5 bits per weight.
 *
 *     byte  0   1      2          3               17
 *         ┌───────┬──────────┬──────────┬─ … ┬───────────┐
 *         │ d F16 │ q16 │ q0 │ q17 │ q1 │    │ q31 │ q15 │    w = d · (q − 8),  q in 0 … 15
 *         └───────┴──────────┴──────────┴─ … ┴───────────┘
 *                  high  low nibble
 *
 * Encoded as ggml's quantize_row_q4_0_ref: d = w_max / −8, where w_max has the largest magnitude.
 *
 * @module
 */
import { blockCodec, codeOf, extremeOf, inverseOf, QK } from "./blocks.ts";
import { expectSize } from "./elements.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { nibbleCodes, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ4_0 } from "./wasm_encode.ts";
import { halfAt, wgslBlocks } from "./wgsl_blocks.ts";

const SIZE = { block: QK, bytes: 2 + QK / 2 };

/** Q4_0 of ggml. */
export const Q4_0: Format = {
  ...blockCodec(SIZE, {
    decode(values, i, view, at) {
      const d = HALVES.get(view, at);
      for (let j = 0; j < QK / 2; j++) {
        const pair = view.getUint8(at + 2 + j);
        values[i + j] = d * ((pair & 15) - 8);
        values[i + j + QK / 2] = d * ((pair >> 4) - 8);
      }
    },
    encode(values, i, view, at) {
      const d = Math.fround(extremeOf(values, i) / -8);
      const inverse = inverseOf(d);
      HALVES.set(view, at, d);
      const code = (j: number) => codeOf(values[i + j], inverse, 8.5, 15);
      for (let j = 0; j < QK / 2; j++) view.setUint8(at + 2 + j, code(j) | code(j + QK / 2) << 4);
    },
  }),
  instead: "F16",
  wasm: wasmBlocks(SIZE, {
    half: 0,
    first: 2,
    words: 4,
    pair: null,
    parts: [{
      inputs: 32,
      offset: -8,
      codeWords: [0, 1, 2, 3],
      most: 15,
      codes: nibbleCodes,
      scale: ({ half }) => half(),
    }],
  }, encodeQ4_0),
  wgsl: wgslBlocks(SIZE, {
    planes: [{ offset: 2, bytes: 16 }, { offset: 0, bytes: 2 }],
    decode: (word) =>
      `let q = ${word(0, "k")};
  let d = vec2f(${halfAt(word, 1)});
  return block_of(low_nibbles(q), high_nibbles(q), d, -8.0 * d);`,
  }),
};

expectSize("Q4_0", Q4_0.bytes, 18);

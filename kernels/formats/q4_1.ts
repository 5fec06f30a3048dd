/**
 * Q4_1: 32 nibbles, a scale and a minimum; 5 bits per weight.
 *
 *     byte  0   1   2   3      4               19
 *         ┌───────┬───────┬──────────┬─ … ┬───────────┐
 *         │ d F16 │ m F16 │ q16 │ q0 │    │ q31 │ q15 │    w = d · q + m,  q in 0 … 15
 *         └───────┴───────┴──────────┴─ … ┴───────────┘
 *                          high  low nibble
 *
 * Encoded as ggml's quantize_row_q4_1_ref: m = min w, d = (max w − m) / 15.
 *
 * @module
 */
import { blockCodec, codeOf, inverseOf, QK, rangeOf } from "./blocks.ts";
import { expectSize } from "./elements.ts";
import { f16High, f16Low } from "./f16.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { nibbleCodes, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ4_1 } from "./wasm_encode.ts";
import { fourAt, wgslBlocks } from "./wgsl_blocks.ts";

const SIZE = { block: QK, bytes: 4 + QK / 2 };

/** Q4_1 of ggml. */
export const Q4_1: Format = {
  ...blockCodec(SIZE, {
    decode(values, i, view, at) {
      const [d, m] = [HALVES.get(view, at), HALVES.get(view, at + 2)];
      for (let j = 0; j < QK / 2; j++) {
        const pair = view.getUint8(at + 4 + j);
        values[i + j] = d * (pair & 15) + m;
        values[i + j + QK / 2] = d * (pair >> 4) + m;
      }
    },
    encode(values, i, view, at) {
      const [min, max] = rangeOf(values, i);
      const d = Math.fround(Math.fround(max - min) / 15);
      const inverse = inverseOf(d);
      HALVES.set(view, at, d);
      HALVES.set(view, at + 2, min);
      const code = (j: number) => codeOf(Math.fround(values[i + j] - min), inverse, 0.5, 15);
      for (let j = 0; j < QK / 2; j++) view.setUint8(at + 4 + j, code(j) | code(j + QK / 2) << 4);
    },
  }),
  instead: "F16",
  wasm: wasmBlocks(SIZE, {
    half: null,
    first: 0,
    words: 5,
    pair: 0,
    parts: [{
      inputs: 32,
      offset: 0,
      codeWords: [1, 2, 3, 4],
      most: 15,
      codes: (word, index) => nibbleCodes(word, index - 1),
      scale: ({ word }) => f16Low(word(0)),
      min: ({ word }) => f16High(word(0)),
    }],
  }, encodeQ4_1),
  wgsl: wgslBlocks(SIZE, {
    planes: [{ offset: 4, bytes: 16 }, { offset: 0, bytes: 4 }],
    decode: (word) =>
      `let q = ${word(0, "k")};
  let pair = unpack2x16float(${fourAt(word, 1)});
  return block_of(low_nibbles(q), high_nibbles(q), pair.xx, pair.yy);`,
  }),
};

expectSize("Q4_1", Q4_1.bytes, 20);

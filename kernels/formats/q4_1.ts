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
import type { Format } from "./format.ts";

/** Q4_1 of ggml. */
export const Q4_1: Format = {
  ...blockCodec({ block: QK, bytes: 4 + QK / 2 }, {
    decode(values, i, view, at) {
      const [d, m] = [view.getFloat16(at, true), view.getFloat16(at + 2, true)];
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
      view.setFloat16(at, d, true);
      view.setFloat16(at + 2, min, true);
      const code = (j: number) => codeOf(Math.fround(values[i + j] - min), inverse, 0.5, 15);
      for (let j = 0; j < QK / 2; j++) view.setUint8(at + 4 + j, code(j) | code(j + QK / 2) << 4);
    },
  }),
  instead: "F16",
  wasm: null,
  wgsl: null,
};

expectSize("Q4_1", Q4_1.bytes, 20);

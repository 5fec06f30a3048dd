/**
 * Q8_0: 32 signed bytes and one scale; 8.5 bits per weight.
 *
 *     byte  0   1   2    3         33
 *         ┌───────┬────┬────┬─ … ┬─────┐
 *         │ d F16 │ q0 │ q1 │    │ q31 │     w = d · q,  q in −127 … 127
 *         └───────┴────┴────┴─ … ┴─────┘
 *
 * Encoded as ggml's quantize_row_q8_0_ref: d = max |w| / 127, q = round(w / d), ties away from 0.
 *
 * @module
 */
import { blockCodec, inverseOf, largestOf, QK } from "./blocks.ts";
import { expectSize } from "./elements.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ8_0 } from "./wasm_encode.ts";
import { halfAt, wgslBlocks } from "./wgsl_blocks.ts";

const SIZE = { block: QK, bytes: 2 + QK };

/** Q8_0 of ggml. */
export const Q8_0: Format = {
  ...blockCodec(SIZE, {
    decode(values, i, view, at) {
      const d = HALVES.get(view, at);
      for (let j = 0; j < QK; j++) values[i + j] = d * view.getInt8(at + 2 + j);
    },
    encode(values, i, view, at) {
      const d = Math.fround(largestOf(values, i) / 127);
      const inverse = inverseOf(d);
      HALVES.set(view, at, d);
      for (let j = 0; j < QK; j++) {
        const scaled = Math.fround(values[i + j] * inverse);
        const size = Math.floor(Math.abs(scaled) + 0.5); // exact: the sum is no F32
        view.setInt8(at + 2 + j, scaled < 0 ? -size : size);
      }
    },
  }),
  instead: "F16",
  wasm: wasmBlocks(SIZE, {
    half: 0,
    first: 2,
    words: 8,
    pair: null,
    flipped: true,
    parts: [{
      inputs: 32,
      offset: 0,
      codeWords: [0, 1, 2, 3, 4, 5, 6, 7],
      most: null,
      codes: (word, group) => [{ group, bytes: word }],
      scale: ({ half }) => half(),
    }],
  }, encodeQ8_0),
  wgsl: wgslBlocks(SIZE, {
    planes: [{ offset: 2, bytes: 32 }, { offset: 0, bytes: 2 }],
    signed: true,
    decode: (word) =>
      `let d = ${halfAt(word, 1)};
  return block_of(${word(0, "2u * k")}, ${word(0, "2u * k + 1u")}, vec2f(d), vec2f(0.0));`,
  }),
};

expectSize("Q8_0", Q8_0.bytes, 34);

/**
 * Q6_K: 16 groups of 16 numbers of 6 bits, each with an 8-bit scale.
 *
 *     byte  0                  128                 192            208    210
 *           q × 256, 4 bits    q × 256, 2 bits     scale × 16 I8  d F16
 *
 *     w = (d · scale) · (low + 16·high − 32)
 *
 * In half n of the block, number 128·n + 32·b + j has its low bits in byte 64·n + 32·(b mod 2) + j
 * (the high four bits of it if b ≥ 2), and its high bits in bits 2b, 2b + 1 of byte 32·n + j.
 *
 * @module
 */
import { f32x4, i32x4 } from "../asm/assembler.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { centredCode, LEAST_EXTREME, nearest, scaleOf } from "./k_encode.ts";
import { blockEncoder, half, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { highNibbles, lowNibbles, moveBits, range, wasmBlocks } from "./wasm_blocks.ts";
import { encodeQ6_K } from "./wasm_encode_k.ts";
import { halfAt, wgslBlocks } from "./wgsl_blocks.ts";

const { fround } = Math;

/** Encodes one block; scales are found by group, then rounded to 8 bits of the largest. */
function encodeBlock(values: Float32Array, i: number, view: DataView, at: number): void {
  const found = Array.from({ length: 16 }, (_, group) => scaleOf(values, i + 16 * group));
  const extreme = found.reduce((most, scale) => Math.abs(scale) > Math.abs(most) ? scale : most, 0);
  const isZero = Math.abs(extreme) < LEAST_EXTREME;
  const inverse = isZero ? 0 : fround(-128 / extreme);
  const d = isZero ? 0 : HALVES.round(fround(1 / inverse));
  const scales = found.map((scale) => Math.min(127, nearest(fround(inverse * scale))));
  HALVES.set(view, at + 208, d);
  for (const [group, scale] of scales.entries()) view.setInt8(at + 192 + group, scale);
  const code = (n: number) => centredCode(values[i + n], d * scales[n >> 4], 32);
  for (let n = 0; n < 2; n++) {
    for (let j = 0; j < 32; j++) {
      const [a, b, c, e] = [0, 32, 64, 96].map((k) => code(128 * n + k + j));
      view.setUint8(at + 64 * n + j, a & 15 | (c & 15) << 4);
      view.setUint8(at + 64 * n + 32 + j, b & 15 | (e & 15) << 4);
      view.setUint8(at + 128 + 32 * n + j, a >> 4 | b >> 4 << 2 | c >> 4 << 4 | e >> 4 << 6);
    }
  }
}

/** Indices of the words with the low and the high bits of inputs 32k … 32k + 15. */
const LOW = "4u * (k / 4u) + 2u * (k % 2u)";
const HIGH = "2u * (k / 4u)";

/** 6 bits with scales. */
export const Q6_K: Format = {
  ...storedBlocks(QK_K, 210, (into, i, view, at) => {
    const d = half(view, at + 208);
    for (let group = 0; group < 16; group++) {
      const scale = times(d, view.getInt8(at + 192 + group));
      const first = 16 * group;
      const [n, b, from] = [first >> 7, first >> 5 & 3, first & 31];
      const lows = at + 64 * n + 32 * (b & 1) + from;
      const highs = at + 128 + 32 * n + from;
      for (let j = 0; j < 16; j++) {
        const low = view.getUint8(lows + j) >> 4 * (b >> 1) & 15;
        const high = view.getUint8(highs + j) >> 2 * b & 3;
        into[i + first + j] = times(scale, (low | high << 4) - 32);
      }
    }
  }),
  view: null,
  encode: blockEncoder(QK_K, 210, encodeBlock),
  instead: "Q8_0",
  wasm: wasmBlocks({ block: QK_K, bytes: 210 }, {
    half: 208,
    first: 0,
    words: 52,
    pair: null,
    // Groups in the lower and the upper nibbles of the same words.
    stripes: [0, 1, 2, 3, 8, 9, 10, 11].map((group) => [group, group + 4]),
    pieces: { count: 2, apart: 24 },
    // In the order of use, for the processor's prefetcher: the scales, then the high bits of a half
    // beside its first low bits. In the file's order, a matvec of 16384 × 768 took four times as
    // long.
    line: (word) => {
      if (word >= 48) return word - 48;
      const [n, i] = word < 32 ? [word >> 4, word & 15] : [word - 32 >> 3, word & 7];
      return 4 + 24 * n + (word < 32 ? i < 8 ? 2 * i : 8 + i : 2 * i + 1);
    },
    parts: range(0, 16).map((group) => {
      const [n, b, from] = [group >> 3, group >> 1 & 3, 4 * (group & 1)];
      const first = 16 * n + 8 * (b & 1) + from;
      return {
        inputs: 16,
        offset: -32,
        most: 63,
        codeWords: range(first, 4),
        codes: (word, index, fields) => {
          const nibbles = b < 2 ? lowNibbles(word) : highNibbles(word);
          const high = fields.word(32 + 8 * n + from + index - first);
          return [{ group: index - first, bytes: nibbles.or(moveBits(high, 2 * b, 4, 48)) }];
        },
        scale: ({ word, half }) => {
          const byte = i32x4.shl(word(48 + (group >> 2)), 24 - 8 * (group & 3));
          return f32x4.convertI32x4S(i32x4.shrS(byte, 24)).times(half());
        },
      };
    }),
  }, encodeQ6_K),
  wgsl: wgslBlocks({ block: QK_K, bytes: 210 }, {
    planes: [
      { offset: 0, bytes: 128 },
      { offset: 128, bytes: 64 },
      { offset: 192, bytes: 16 },
      { offset: 208, bytes: 2 },
    ],
    decode: (word) =>
      `let t = k % 4u; // 32 inputs of the half
  let shift = vec4u(4u * (t / 2u));
  let two = vec4u(0x03030303u);
  let a = low_nibbles(${word(0, LOW)} >> shift) |
    (((${word(1, HIGH)} >> vec4u(2u * t)) & two) << vec4u(4u));
  let b = low_nibbles(${word(0, `${LOW} + 1u`)} >> shift) |
    (((${word(1, `${HIGH} + 1u`)} >> vec4u(2u * t)) & two) << vec4u(4u));
  let scales = bitcast<i32>(${word(2, "k / 8u")}[(k % 8u) / 2u] >> (16u * (k % 2u)));
  let pair = vec2f(f32((scales << 24u) >> 24u), f32((scales << 16u) >> 24u));
  let d = ${halfAt(word, 3, "k / 8u")} * pair;
  return block_of(a, b, d, -32.0 * d);`,
  }),
};

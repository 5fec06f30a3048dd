/**
 * IQ4_NL and IQ4_XS: 4-bit indices of a table of 16 values, denser near 0.
 *
 *     IQ4_NL, 32 numbers
 *     byte  0      2                  18
 *           d F16  index × 32, 4 bits      w = d · TABLE[index]
 *
 *     IQ4_XS, 8 groups of 32 numbers
 *     byte  0      2              4             8                    136
 *           d F16  high × 8, U16  low × 8       index × 256, 4 bits
 *                  2 bits each    4 bits each
 *
 *     w = d · (low + 16·high − 32) · TABLE[index]
 *
 * The low four bits of byte j of a group are the index of number j, the high ones of j + 16.
 *
 * @module
 */
import { f32x4, i32x4, i8x16, v128, type Value } from "../asm/assembler.ts";
import type { Local } from "../asm/assembler.ts";
import { plainF16Low as f16Low } from "./f16.ts";
import type { BlockFields, Format } from "./format.ts";
import { half, QK_K, storedBlocks, times } from "./stored_blocks.ts";
import { bitsOfByte, highNibbles, lowNibbles, range, wasmBlocks } from "./wasm_blocks.ts";
import { fourAt, halfAt, IQ4_WGSL, wgslBlocks } from "./wgsl_blocks.ts";

/** ggml's kvalues_iq4nl. */
const TABLE = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** Decodes 32 numbers of a scale, whose indices begin at byte `at`. */
function decodeGroup(into: Float32Array, i: number, view: DataView, at: number, scale: number) {
  for (let j = 0; j < 16; j++) {
    const pair = view.getUint8(at + j);
    into[i + j] = times(scale, TABLE[pair & 15]);
    into[i + 16 + j] = times(scale, TABLE[pair >> 4]);
  }
}

/** Values of the indices in a word: inputs j and j + 16 in byte j, as words of four. */
function codesOf(word: Local<"v128">, group: number) {
  const table = v128.const([...new Int32Array(Int8Array.from(TABLE).buffer)]);
  return [
    { group, bytes: i8x16.swizzle(table, lowNibbles(word)) },
    { group: group + 4, bytes: i8x16.swizzle(table, highNibbles(word)) },
  ];
}

/** Table indices with a scale. */
export const IQ4_NL: Format = {
  ...storedBlocks(32, 18, (into, i, view, at) => {
    decodeGroup(into, i, view, at + 2, half(view, at));
  }),
  view: null,
  encode: null,
  instead: "F16",
  wasm: wasmBlocks({ block: 32, bytes: 18 }, {
    half: 0,
    first: 2,
    words: 4,
    pair: null,
    parts: [{
      inputs: 32,
      offset: 0,
      most: null,
      codeWords: [0, 1, 2, 3],
      codes: codesOf,
      scale: ({ half }) => half(),
    }],
  }),
  wgsl: wgslBlocks({ block: 32, bytes: 18 }, {
    planes: [{ offset: 2, bytes: 16 }, { offset: 0, bytes: 2 }],
    signed: true,
    declare: IQ4_WGSL,
    decode: (word) =>
      `let q = ${word(0, "k")};
  let d = vec2f(${halfAt(word, 1)});
  return block_of(iq4(low_nibbles(q)), iq4(high_nibbles(q)), d, vec2f(0.0));`,
  }),
};

/** Scale of a group in WASM: word 0 is d and the high bits, word 1 the low bits. */
function scaleWasm(fields: BlockFields, group: number): Value<"v128"> {
  const low = bitsOfByte(fields, 1, group >> 1, { from: 4 * (group & 1), mask: 15 });
  const high = bitsOfByte(fields, 0, 2 + (group >> 2), { from: 2 * (group & 3), mask: 3 });
  const bits = low.or(i32x4.shl(high, 4));
  return f32x4.convertI32x4S(i32x4.sub(bits, i32x4.splat(32))).times(f16Low(fields.word(0)));
}

/** Table indices with 6-bit scales. */
export const IQ4_XS: Format = {
  ...storedBlocks(QK_K, 136, (into, i, view, at) => {
    const [d, high] = [half(view, at), view.getUint16(at + 2, true)];
    for (let group = 0; group < 8; group++) {
      const low = view.getUint8(at + 4 + (group >> 1)) >> 4 * (group & 1) & 15;
      const scale = times(d, (low | (high >> 2 * group & 3) << 4) - 32);
      decodeGroup(into, i + 32 * group, view, at + 8 + 16 * group, scale);
    }
  }),
  view: null,
  encode: null,
  instead: "IQ4_NL",
  wasm: wasmBlocks({ block: QK_K, bytes: 136 }, {
    half: null,
    first: 0,
    words: 34,
    pair: null,
    lower: 0,
    parts: range(0, 8).map((group) => {
      const first = 2 + 4 * group;
      return {
        inputs: 32,
        offset: 0,
        most: null,
        codeWords: range(first, 4),
        codes: (word, index) => codesOf(word, index - first),
        scale: (fields) => scaleWasm(fields, group),
      };
    }),
  }),
  wgsl: wgslBlocks({ block: QK_K, bytes: 136 }, {
    planes: [{ offset: 8, bytes: 128 }, { offset: 0, bytes: 4 }, { offset: 4, bytes: 4 }],
    signed: true,
    declare: IQ4_WGSL,
    decode: (word) =>
      `let group = k % 8u;
  let q = ${word(0, "k")};
  let head = ${fourAt(word, 1, "k / 8u")};
  let low = (${fourAt(word, 2, "k / 8u")} >> (4u * group)) & 15u;
  let high = (head >> (16u + 2u * group)) & 3u;
  let d = vec2f(half_of(head) * (f32(low | (high << 4u)) - 32.0));
  return block_of(iq4(low_nibbles(q)), iq4(high_nibbles(q)), d, vec2f(0.0));`,
  }),
};

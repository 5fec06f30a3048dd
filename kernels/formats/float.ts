/**
 * F32, F16 and BF16: formats whose block is one number.
 *
 *     F32    s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm    4 bytes, exponent bias 127
 *     BF16   s eeeeeeee mmmmmmm                    2 bytes: the upper half of an F32
 *     F16    s eeeee mmmmmmmmmm                    2 bytes, exponent bias 15
 *
 * Little-endian, as in files and on every platform that Deno runs on.
 *
 * @module
 */
import { bytesOf } from "../tensor.ts";
import { BYTES, expectSize } from "./elements.ts";
import { HALF_BF16, HALF_F16 } from "./f16.ts";
import type { Format } from "./format.ts";
import { HALVES } from "./half.ts";
import { WASM_F32, wasmHalf } from "./wasm.ts";
import { wgslElements } from "./wgsl.ts";

/** The two components of a word of eight 16-bit inputs that hold inputs 4i … 4i + 3. */
function halvesOf(word: string, i: number): [string, string] {
  return i === 0 ? [`${word}.x`, `${word}.y`] : [`${word}.z`, `${word}.w`];
}

/** The lower (x) or upper (y) F16 of each component of a vec4u. */
function halfOfEach(bits: string, half: "x" | "y"): string {
  return ["x", "y", "z", "w"].map((axis) => `unpack2x16float(${bits}.${axis}).${half}`).join(", ");
}

/** 32-bit floats; kernels read them without decoding. */
export const F32: Format = {
  block: 1,
  bytes: BYTES.F32,
  view: ({ buffer, byteOffset, byteLength }) =>
    new Float32Array(buffer, byteOffset, byteLength / BYTES.F32),
  decode(into, stored) {
    bytesOf(into).set(stored);
  },
  encode(into, values) {
    into.set(bytesOf(values));
  },
  wasm: WASM_F32,
  wgsl: wgslElements(4, (word) => `bitcast<vec4f>(${word})`),
};

/** IEEE 754 half precision. */
export const F16: Format = {
  block: 1,
  bytes: BYTES.F16,
  view: null,
  decode: HALVES.widen,
  encode: HALVES.narrow,
  wasm: wasmHalf(HALF_F16),
  wgsl: wgslElements(2, (word, i) => {
    const [low, high] = halvesOf(word, i);
    return `vec4f(unpack2x16float(${low}), unpack2x16float(${high}))`;
  }, {
    low: (bits) => `vec4f(${halfOfEach(bits, "x")})`,
    high: (bits) => `vec4f(${halfOfEach(bits, "y")})`,
  }),
};

/** bfloat16: the upper half of an F32. */
export const BF16: Format = {
  block: 1,
  bytes: BYTES.BF16,
  view: null,
  decode(into, { buffer, byteOffset }) {
    const upper = new Uint16Array(buffer, byteOffset, into.length);
    const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
    for (let i = 0; i < bits.length; i++) bits[i] = upper[i] << 16;
  },
  encode(into, values) {
    const upper = new Uint16Array(into.buffer, into.byteOffset, values.length);
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) {
      const b = bits[i];
      // A NaN sets a mantissa bit instead: rounding could carry it to infinity.
      const isNan = (b & 0x7fffffff) > 0x7f800000;
      upper[i] = isNan ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
    }
  },
  wasm: wasmHalf(HALF_BF16),
  wgsl: wgslElements(2, (word, i) => {
    const each = halvesOf(word, i).map((pair) => `${pair} << 16u, ${pair} & 0xffff0000u`);
    return `bitcast<vec4f>(vec4u(${each.join(", ")}))`;
  }, {
    low: (bits) => `bitcast<vec4f>(${bits} << vec4u(16u))`,
    high: (bits) => `bitcast<vec4f>(${bits} & vec4u(0xffff0000u))`,
  }),
};

expectSize("F32", F32.bytes, 4);
expectSize("F16", F16.bytes, 2);
expectSize("BF16", BF16.bytes, 2);

/**
 * WGSL of the KV cache's formats: reads four numbers of a row, and packs a row's words. `kv.ts` has
 * the layouts.
 *
 * @module
 */
import { QK } from "./blocks.ts";

/** WGSL of a format whose rows are packed words. */
export interface KvWgsl {
  /** Type of the elements of a tensor's array. */
  type(D: number): "u32" | "vec2u";
  /** Body of a function of `row` and `i`: numbers 4i … 4i + 3 of array `name`; zeros past D. */
  load(name: string, D: number): string;
  /** Words of a row. */
  words(D: number): number;
  /** Defines `word_of(w)`, word w of the row of which `numbers` has the D numbers. */
  pack(D: number): string;
}

/**
 * Defines `half_of`, the bits of an F16: to nearest, ties to even. By integers, since WGSL leaves
 * the rounding of pack2x16float open, and lets a device assume that there is no NaN.
 */
const HALF_OF = /* wgsl */ `
fn half_of(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return 0x7e00u; }
  if (size >= 0x477fe000u) { return sign | 0x7bffu; }
  if (size < 0x38800000u) { return sign | u32(round(bitcast<f32>(size) * 16777216.0)); }
  return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u);
}`;

/** F16: D is even. */
const F16: KvWgsl = {
  type: (D) => D % 4 ? "u32" : "vec2u",
  load(name, D) {
    if (D % 4 === 0) {
      return /* wgsl */ `let pair = ${name}[row * ${D / 4}u + i];
  return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y));`;
    }
    return /* wgsl */ `let at = row * ${D / 2}u + 2u * i;
  if (i == ${Math.floor(D / 4)}u) { return vec4f(unpack2x16float(${name}[at]), 0.0, 0.0); }
  return vec4f(unpack2x16float(${name}[at]), unpack2x16float(${name}[at + 1u]));`;
  },
  words: (D) => D / 2,
  pack: () =>
    /* wgsl */ `${HALF_OF}
fn word_of(w: u32) -> u32 {
  return half_of(numbers[2u * w]) | (half_of(numbers[2u * w + 1u]) << 16u);
}`,
};

/** Q8_0: D is a multiple of 32. */
const Q8_0: KvWgsl = {
  type: () => "u32",
  load: (name, D) =>
    /* wgsl */ `let start = row * ${Q8_0.words(D)}u;
  let scales = unpack2x16float(${name}[start + ${D / 4}u + i / 16u]);
  let bytes = vec4i(vec4u(${name}[start + i]) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
  return select(scales.x, scales.y, i / 8u % 2u == 1u) * vec4f(bytes);`,
  words: (D) => D / 4 + Math.ceil(D / (2 * QK)),
  // The largest size by its bits: max() may ignore a NaN.
  pack: (D) =>
    /* wgsl */ `${HALF_OF}
fn scale_of(block: u32) -> f32 {
  var most = 0u;
  for (var i = 0u; i < ${QK}u; i++) {
    most = max(most, bitcast<u32>(numbers[${QK}u * block + i]) & 0x7fffffffu);
  }
  return bitcast<f32>(most) / 127.0;
}
fn half_scale_of(block: u32) -> u32 {
  if (block >= ${D / QK}u) { return 0u; }
  return half_of(scale_of(block));
}
fn word_of(w: u32) -> u32 {
  if (w >= ${D / 4}u) {
    let block = 2u * (w - ${D / 4}u);
    return half_scale_of(block) | (half_scale_of(block + 1u) << 16u);
  }
  let scale = min(scale_of(w / 8u), 65504.0);
  let inverse = select(1.0 / scale, 0.0, scale == 0.0);
  let at = 4u * w;
  let four = vec4f(numbers[at], numbers[at + 1u], numbers[at + 2u], numbers[at + 3u]) * inverse;
  let sizes = min(floor(abs(four) + 0.5), vec4f(127.0));
  let bytes = vec4u(vec4i(sign(four) * sizes)) & vec4u(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}`,
};

/** WGSL of the packed formats. */
export const KV_WGSL = { F16, Q8_0 } as const;

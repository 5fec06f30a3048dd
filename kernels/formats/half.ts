/**
 * F16 in memory: reading and writing half-precision numbers, with and without `Float16Array`.
 * Browser compatible.
 *
 *     s eeeee mmmmmmmmmm    e = 0: (−1)ˢ · m · 2⁻²⁴    e = 31: infinity, or NaN if m ≠ 0
 *                           else:  (−1)ˢ · (1024 + m) · 2ᵉ⁻²⁵
 *
 * Writing rounds to nearest, ties to even. Node 22 and older browsers have no `Float16Array` and no
 * `DataView.getFloat16`; there the bits are computed.
 *
 * @module
 */

/** Both ways of converting F16. Bytes are little-endian, unless a call says otherwise. */
export interface Halves {
  /** Number at a byte of a view. */
  get(view: DataView, at: number, littleEndian?: boolean): number;
  /** Stores a number, rounded, at a byte of a view. */
  set(view: DataView, at: number, x: number): void;
  /** A number rounded to F16. */
  round(x: number): number;
  /** Fills `into` with the numbers of `stored`, two bytes each. */
  widen(into: Float32Array, stored: Uint8Array): void;
  /** Fills `into`, two bytes each, with rounded numbers. */
  narrow(into: Uint8Array, values: Float32Array): void;
}

/** Conversion by the runtime. */
function nativeHalves(): Halves {
  const one = new Float16Array(1);
  return {
    get: (view, at, littleEndian = true) => view.getFloat16(at, littleEndian),
    set: (view, at, x) => view.setFloat16(at, x, true),
    round(x) {
      one[0] = x;
      return one[0];
    },
    widen(into, { buffer, byteOffset }) {
      const numbers = new Float16Array(buffer, byteOffset, into.length);
      for (let i = 0; i < into.length; i++) into[i] = numbers[i];
    },
    narrow(into, values) {
      new Float16Array(into.buffer, into.byteOffset, values.length).set(values);
    },
  };
}

/** Conversion by bits and a table of all 65536 numbers. */
export function computedHalves(): Halves {
  const numbers = Float32Array.from({ length: 1 << 16 }, (_, bits) => numberOf(bits));
  return {
    get: (view, at, littleEndian = true) => numbers[view.getUint16(at, littleEndian)],
    set: (view, at, x) => view.setUint16(at, bitsOf(x), true),
    round: (x) => numbers[bitsOf(x)],
    widen(into, { buffer, byteOffset }) {
      const bits = new Uint16Array(buffer, byteOffset, into.length);
      for (let i = 0; i < into.length; i++) into[i] = numbers[bits[i]];
    },
    narrow(into, values) {
      const bits = new Uint16Array(into.buffer, into.byteOffset, values.length);
      for (let i = 0; i < values.length; i++) bits[i] = bitsOf(values[i]);
    },
  };
}

function numberOf(bits: number): number {
  const [sign, e, m] = [bits & 0x8000 ? -1 : 1, bits >> 10 & 31, bits & 1023];
  if (e === 31) return m ? NaN : sign * Infinity;
  return sign * (e ? (1024 + m) * 2 ** (e - 25) : m * 2 ** -24);
}

const double = new Float64Array(1);
const words = new Uint32Array(double.buffer); // little-endian: the upper word is the second

/** Method: |x| = n · 2ᵉ⁻²⁵ with n in [1024, 2048), rounded; a carry of n goes into the exponent. */
function bitsOf(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  double[0] = x;
  const sign = words[1] >>> 16 & 0x8000;
  const e = Math.max(1, (words[1] >>> 20 & 2047) - 1008); // exponent of F16; subnormals share 1
  const n = roundToEven(Math.abs(x) * 2 ** (25 - e));
  const bits = ((e - 1) << 10) + n;
  return sign | (e < 31 && bits < 0x7c00 ? bits : 0x7c00);
}

/** Trick: adding 2⁵² leaves no bits for a fraction, and rounds it to nearest, ties to even. */
function roundToEven(x: number): number {
  return x + 2 ** 52 - 2 ** 52;
}

/** Conversion of F16 on this runtime. */
export const HALVES: Halves = typeof Float16Array === "function" &&
    typeof DataView.prototype.getFloat16 === "function"
  ? nativeHalves()
  : computedHalves();

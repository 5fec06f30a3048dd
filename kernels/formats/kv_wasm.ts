/**
 * WASM of the KV cache's formats: packs a row of a head, and unpacks rows. `kv.ts` has the layouts.
 *
 * @module
 */
import { f32x4, type Func, i16x8, i32x4, i8x16, type Ints, ints } from "../asm/assembler.ts";
import { v128, type Value, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder } from "../asm/assembler.ts";
import { eachFour } from "../asm/lanes.ts";
import { QK } from "./blocks.ts";
import { f16High, f16Low } from "./f16.ts";

/** Code of a format. */
export interface KvWasm {
  /** Packs a row of D F32 at `from`, padded to whole vectors, to `to`. */
  pack(m: ModuleBuilder, D: number): Func<Ints<"to" | "from">>;
  /** Unpacks `rows` rows at `from` to F32 at `to`, which has room for 32 bytes more. */
  unpack(m: ModuleBuilder, D: number): Func<Ints<"to" | "from" | "rows">>;
}

/** Largest finite F16. */
const MOST = 65504;

const splat = (value: number) => i32x4.splat(value);

/** Widened F16 of which the only non-finite bits are those of a positive NaN. */
const withNan = (value: Local<"v128">) => value.or(value.gt(MOST));

/**
 * Bits of four F16: to nearest, ties to even; magnitudes above 65504 become 65504, and a NaN the
 * positive one. Returns a function of the numbers; call it outside the loop.
 */
function halfBits(f: FunctionBuilder): (x: Local<"v128">) => Value<"v128"> {
  const { size, half } = f.locals(vectors("size", "half"));
  const odd = i32x4.shrU(size, 13).and(splat(1));
  // The exponent's bias falls by 112; 0xfff and the odd bit round.
  const normal = i32x4.shrU(i32x4.add(i32x4.add(size, splat(0xfff - 0x38000000)), odd), 13);
  // Below 2^-14: a multiple of 2^-24, rounded by the addition of 2^23.
  const small = i32x4.sub(size.times(2 ** 24).plus(2 ** 23), splat(0x4b000000));
  return (x) => {
    size.set(x.and(splat(0x7fffffff)));
    half.set(v128.select(small, normal, i32x4.gtS(splat(0x38800000), size)));
    half.set(v128.select(splat(0x7bff), half, i32x4.gtS(size, splat(0x477fdfff))));
    half.set(half.or(i32x4.shrU(x, 16).and(splat(0x8000))));
    return v128.select(splat(0x7e00), half, i32x4.gtS(size, splat(0x7f800000)));
  };
}

/** F16: D is even. */
const F16: KvWasm = {
  pack: (m, D) =>
    m.define(ints("to", "from"), "void", (f, { to, from }) => {
      const at = f.local("int", "at");
      const { x, bits } = f.locals(vectors("x", "bits"));
      const half = halfBits(f);
      eachFour(f, at, D, (lanes) => {
        x.set(v128.load(from.plus(at)));
        bits.set(half(x));
        bits.set(i16x8.narrowI32x4U(bits, bits));
        for (let pair = 0; pair < lanes / 2; pair++) {
          f.storeLane(to.plus(at.shr(1)), bits, pair, 4 * pair);
        }
      });
    }),
  unpack: (m, D) =>
    m.define(ints("to", "from", "rows"), "void", (f, { to, from, rows }) => {
      const end = f.local("int", "end");
      const { eight, low, high } = f.locals(vectors("eight", "low", "high"));
      end.set(to.plus(rows.times(4 * D)));
      f.while(to.lt(end), () => {
        eight.set(v128.load(from));
        low.set(f16Low(eight));
        low.set(withNan(low));
        high.set(f16High(eight));
        high.set(withNan(high));
        f.store(to, v128.shuffle(low, high, [0, 4, 1, 5]));
        f.store(to, v128.shuffle(low, high, [2, 6, 3, 7]), 16);
        from.advance(16);
        to.advance(32);
      });
    }),
};

/** Q8_0: D is a multiple of 32. */
const Q8_0: KvWasm = {
  pack: (m, D) =>
    m.define(ints("to", "from"), "void", (f, { to, from }) => {
      const scales = f.local("int", "scales");
      const { most, inverse } = f.locals(vectors("most", "inverse"));
      const fours = f.array("v128", "four", 4);
      const half = halfBits(f);
      for (let b = 0; b < D / QK; b++) {
        packScale(from, 4 * QK * b, most, inverse);
        for (let i = 0; i < QK; i += 16) {
          packSixteen(from, 4 * (QK * b + i), inverse, fours);
          const [low, high] = [[0, 1], [2, 3]].map(([a, b]) =>
            i16x8.narrowI32x4S(fours[a], fours[b])
          );
          f.store(to, i8x16.narrowI16x8S(low, high), QK * b + i);
        }
        const bits = i32x4.extractLane(half(most), 0);
        scales.set(b % 2 ? scales.or(bits.shl(16)) : bits);
        if (b % 2 || b + 1 === D / QK) f.store(to, scales, D + 4 * Math.floor(b / 2));
      }
    }),
  unpack: (m, D) =>
    m.define(ints("to", "from", "rows"), "void", (f, { to, from, rows }) => {
      const end = f.local("int", "end");
      const { scale, bytes } = f.locals(vectors("scale", "bytes"));
      const halves = f.array("v128", "half", 2);
      end.set(to.plus(rows.times(4 * D)));
      f.while(to.lt(end), () => {
        for (let b = 0; b < D / QK; b++) {
          const word = v128.load32Splat(from, D + 4 * Math.floor(b / 2));
          scale.set(b % 2 ? f16High(word) : f16Low(word));
          scale.set(withNan(scale));
          for (let i = QK * b; i < QK * (b + 1); i += 16) {
            bytes.set(v128.load(from, i));
            halves[0].set(i16x8.extendLowI8x16S(bytes));
            halves[1].set(i16x8.extendHighI8x16S(bytes));
            for (const [h, eight] of halves.entries()) {
              const fours = [i32x4.extendLowI16x8S(eight), i32x4.extendHighI16x8S(eight)];
              for (const [j, four] of fours.entries()) {
                const value = f32x4.convertI32x4S(four).times(scale);
                f.store(to, value, 4 * (i + 8 * h + 4 * j));
              }
            }
          }
        }
        from.advance(D + 4 * Math.ceil(D / (2 * QK)));
        to.advance(4 * D);
      });
    }),
};

/** Sets `most` to the scale of the 32 numbers at `from` + `at`, and `inverse` to 1/scale or 0. */
function packScale(
  from: Local<Int>,
  at: number,
  most: Local<"v128">,
  inverse: Local<"v128">,
): void {
  most.set(0);
  for (let i = 0; i < QK; i += 4) {
    most.set(f32x4.max(most, f32x4.abs(v128.load(from, at + 4 * i))));
  }
  for (const lanes of [[2, 3, 0, 1], [1, 0, 3, 2]]) {
    most.set(f32x4.max(most, v128.shuffle(most, most, lanes)));
  }
  most.set(most.div(127).pmin(MOST));
  inverse.set(f32x4.splat(1).div(most).and(most.ne(0)));
}

/** Sets four vectors to the rounded quotients of 16 numbers; ties go away from 0. */
function packSixteen(
  from: Local<Int>,
  at: number,
  inverse: Local<"v128">,
  fours: readonly Local<"v128">[],
): void {
  for (const [i, four] of fours.entries()) {
    // From above, narrowing to bytes saturates.
    four.set(v128.load(from, at + 16 * i).times(inverse).pmax(-127));
    const half = four.and(splat(0x80000000)).or(f32x4.splat(0.5));
    four.set(i32x4.truncSatF32x4S(four.plus(half)));
  }
}

/** Code of the packed formats. */
export const KV_WASM = { F16, Q8_0 } as const;

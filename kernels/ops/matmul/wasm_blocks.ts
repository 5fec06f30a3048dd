/**
 * Matmul of one row in WASM over blocked weights: integer dot products, one scale per block.
 *
 *     x ≈ dx · xq        per 32 inputs; xq an integer, |xq| ≤ 32639, dx = max |x| / 32639
 *     w = d · (q + o) + m        per part of a block (`BlockForm`)
 *     Σ w·x = Σ parts  d · dx · (Σ q·xq + o · Σ xq)  +  m · dx · Σ xq
 *
 * The offset and the minimum cost one operation per part. Integer sums are exact, so the forms
 * below give equal bits. The largest error of dx · xq is 2⁻¹⁶ of the block's largest |x|.
 *
 *     form     engine            codes    method
 *     words    any               any      x and codes as 16-bit integers, i32x4.dot_i16x8_s
 *     bytes    relaxed SIMD      0 … 63   xq = 256·hi + lo; two dots of bytes, summed in 16 bits
 *
 * Bytes take half as many operations to unpack. A code of Q8_0 has a sign, and the second operand
 * of a relaxed dot must not.
 *
 * x is quantised once per thread and row:
 *
 *     byte   0              32             64   68       72        76      80               92   96
 *     words  │ x0 x2 │ x1 x3 │ … │ x29 x31 │ dx │ Σ 0…15 │ Σ 16…31 │ Σ all │ dx · Σ (3 F32) │    │
 *     bytes  │ hi 0 … 31    │ lo 0 … 31    │ …
 *
 * @module
 */
import { wasmOf } from "../../formats/mod.ts";
import {
  call,
  f32,
  f32x4,
  i16x8,
  i32,
  i32x4,
  i8x16,
  ints,
  v128,
  vectors,
} from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../../asm/assembler.ts";
import type { VectorMath } from "../../asm/math.ts";
import { fieldsOf, panelBlockBytes } from "../../formats/block_panels.ts";
import type { BlockFields, BlockForm, BlockPart } from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { eachPart, pairsOf } from "../../formats/wasm_blocks.ts";
import { type MatmulWasm, type Store, storeTileWasm, sumArgs } from "./wasm_epilogue.ts";

/** Inputs that share a scale of x. */
const INPUTS = 32;

/** Bytes of 32 quantised inputs. */
const RECORD = 96;

/** Byte of the scale and the sums in a record: of inputs 0 … 15, 16 … 31, and all. */
const [SCALE, SUMS, SCALED_SUMS] = [64, [68, 72, 76], [80, 84, 88]];

/** Byte of the lower parts of x in a record of bytes. */
const LOW = 32;

/** Largest magnitude of a quantised x: its upper part fits a signed byte. */
const MOST = 32639;

/** Trick: 1.5 · 2²³ + x leaves the nearest integer of x in the lowest bits of the sum. */
const [ROUNDER, ROUNDER_BITS] = [12582912, 0x4b400000];

/** Bytes of a quantised row of K inputs. */
export function quantisedBytes(K: number): number {
  return K / INPUTS * RECORD;
}

/** How x and codes are multiplied. */
type DotForm = "words" | "bytes";

/**
 * The form for a weight's codes. One scale for all nibbles of a block leaves registers for two
 * panels of words: +15 % over bytes on Zen 4, where a relaxed dot takes as long as an exact one.
 */
function dotFormOf({ parts }: BlockForm, relaxed: boolean): DotForm {
  const isSmall = ({ most }: BlockPart) => most !== null;
  const isNibble = parts.length === 1 && parts[0].most === 15;
  return relaxed && parts.every(isSmall) && !isNibble ? "bytes" : "words";
}

/** Defines the quantisation of rows x [rows, K] for a weight's blocks. */
export function quantiseWasm(
  m: ModuleBuilder,
  { K, relaxed }: Pick<MatmulWasm, "K" | "relaxed">,
  form: BlockForm,
): Func<Ints<"to" | "x" | "rows">> {
  const storeCodes = dotFormOf(form, relaxed) === "bytes" ? storeBytes : storeWords;
  return m.define(ints("to", "x", "rows"), "void", (f, { to, x, rows }) => {
    const end = f.local("i32", "end");
    const inputs = f.array("v128", "x", INPUTS / 4);
    const { most, factor } = f.locals(vectors("most", "factor"));
    const { scale } = f.locals({ scale: "f32" });
    end.set(x.plus(rows.times(4 * K)));
    f.for(x, x, end, 4 * INPUTS, () => {
      most.set(0);
      for (const [i, four] of inputs.entries()) {
        four.set(v128.load(x, 16 * i));
        // A NaN stays in the maximum, and with it in the scale and in the result.
        most.set(f32x4.max(most, f32x4.abs(four)));
      }
      most.set(f32x4.max(most, v128.shuffle(most, most, [2, 3, 0, 1])));
      most.set(f32x4.max(most, v128.shuffle(most, most, [1, 0, 3, 2])));
      scale.set(f32x4.extractLane(most, 0).div(MOST));
      // Below 1e-30 the inverse could overflow; such a block is 0.
      factor.set(f32x4.splat(f32.const(1).div(scale)).and(most.gt(1e-30)));
      for (const four of inputs) {
        four.set(i32x4.sub(four.times(factor).plus(ROUNDER), i32x4.splat(ROUNDER_BITS)));
      }
      f.store(to, scale, SCALE);
      storeSums(f, to, inputs, scale);
      storeCodes(f, to, inputs);
      to.advance(RECORD);
    });
  });
}

/** Stores the sums of 32 integers. */
function storeSums(
  f: FunctionBuilder,
  to: Local<"i32">,
  inputs: readonly Local<"v128">[],
  scale: Local<"f32">,
): void {
  const total = f.local("v128", "total");
  const sums = f.array("i32", "sum", 3);
  for (const [i, sum] of sums.slice(0, 2).entries()) {
    const [a, b, c, d] = inputs.slice(4 * i);
    total.set(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)));
    sum.set(sumI32(total));
  }
  sums[2].set(sums[0].plus(sums[1]));
  for (const [i, sum] of sums.entries()) {
    f.store(to, sum, SUMS[i]);
    f.store(to, f32.convertI32S(sum).times(scale), SCALED_SUMS[i]);
  }
}

/** Stores 32 integers as words: even and odd inputs of four. */
function storeWords(f: FunctionBuilder, to: Local<"i32">, inputs: readonly Local<"v128">[]): void {
  const pairs = f.local("v128", "pairs");
  const order = [0, 1, 4, 5, 2, 3, 6, 7];
  for (let i = 0; i < inputs.length; i += 2) {
    pairs.set(i16x8.narrowI32x4S(inputs[i], inputs[i + 1]));
    pairs.set(v128.shuffleBytes(pairs, pairs, [...order, ...order.map((byte) => byte + 8)]));
    f.store(to, pairs, 8 * i);
  }
}

/** Stores 32 integers as bytes: upper parts, then lower parts, from −128 to 127 each. */
function storeBytes(f: FunctionBuilder, to: Local<"i32">, inputs: readonly Local<"v128">[]): void {
  const high = f.array("v128", "high", 4);
  const pack = ([a, b, c, d]: readonly Local<"v128">[]) =>
    i8x16.narrowI16x8S(i16x8.narrowI32x4S(a, b), i16x8.narrowI32x4S(c, d));
  for (let i = 0; i < inputs.length; i += 4) {
    const low = inputs.slice(i, i + 4);
    for (const [j, v] of low.entries()) {
      high[j].set(i32x4.shrS(i32x4.add(v, i32x4.splat(128)), 8));
      v.set(i32x4.sub(v, i32x4.shl(high[j], 8)));
    }
    f.store(to, pack(high), 4 * i);
    f.store(to, pack(low), LOW + 4 * i);
  }
}

function sumI32(v: Local<"v128">): Value<"i32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => i32x4.extractLane(v, lane));
  return a.plus(b).plus(c.plus(d));
}

/** Multiplies one quantised row by panels; parameters as `panelsWasm`. */
type BlockProduct = Func<Ints<"y" | "x" | "w" | "bias" | "gate" | "left">>;
const PRODUCT = ints("y", "x", "w", "bias", "gate", "left");

/**
 * Multiplies one quantised row by several panels; parameters as `panelsWasm`, with the quantised
 * row in place of x.
 */
export function blockPanelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  form: BlockForm,
  panels: readonly number[],
): BlockProduct {
  // Two panels have eight sums; in bytes, the dots of one already take eight registers.
  const together = dotFormOf(form, shape.relaxed) === "words" && form.parts.length === 1;
  if (together || panels.length === 1) return define(m, math, store, shape, form, panels);
  const one = define(m, math, store, shape, form, [0]);
  const { pitch } = wasmOf(shape.dtype).layout([shape.N, shape.K]);
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left }) => {
    for (const panel of panels) {
      const [bytes, outputs] = [panel * pitch, panel * PANEL_COLUMNS];
      const after = (at: Local<"i32">) => at.plus(4 * outputs);
      const [of, rest] = [w.plus(bytes), left.minus(outputs)];
      const args = { y: after(y), x, w: of, bias: after(bias), gate: after(gate), left: rest };
      f.do(call(one, args));
    }
  });
}

/** Defines the product of panels, block by block in parallel. */
function define(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  { N, K, dtype, relaxed, options }: MatmulWasm,
  form: BlockForm,
  panels: readonly number[],
): BlockProduct {
  const { pitch } = wasmOf(dtype).layout([N, K]);
  const columns = panels.flatMap((panel) =>
    [0, 4, 8, 12].map((column) => panel * PANEL_COLUMNS + column)
  );
  const tile = columns.map((column) => ({ row: 0, column, ofRow: 4 * column }));
  const storeAll = storeTileWasm(m, math, tile, options);
  const inputs = form.parts.reduce((sum, part) => sum + part.inputs, 0);
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left }) => {
    const end = f.local("i32", "end");
    const sums = f.array("v128", "sum", columns.length);
    const bases = panels.map((panel) => panel === 0 ? w : f.local("i32", `w${panel}`));
    for (const [i, base] of bases.entries()) base.set(w.plus(panels[i] * pitch));
    const quads = bases.flatMap((base) => [0, 1, 2, 3].map((quad) => fieldsOf(form, base, quad)));
    const dot = { words: wordDots, bytes: byteDots }[dotFormOf(form, relaxed)](f, x, quads);
    const scale = partScaler(f, math, { x, quads, sums });
    end.set(x.plus(quantisedBytes(K)));
    // Multiply, block by block.
    f.for(x, x, end, quantisedBytes(inputs), () => {
      eachPart(form, (part, first) => scale(part, first, dot(part, first)));
      for (const base of bases) base.advance(panelBlockBytes(form));
    });
    // Epilogue.
    f.if(
      left.geS(columns[columns.length - 1] + 4),
      () => f.do(call(storeAll, { ...sumArgs(sums), y, bias, gate })),
      () => {
        for (const [i, { ofRow, column }] of tile.entries()) {
          f.do(call(store, {
            v: sums[i],
            y: y.plus(ofRow),
            bias: bias.plus(4 * column),
            gate: gate.plus(ofRow),
            left: left.minus(column),
          }));
        }
      },
    );
  });
}

/** Byte of a part's record of x, and the index of its sum. */
function recordOf({ inputs }: BlockPart, first: number): [record: number, sum: number] {
  return [Math.floor(first / INPUTS) * RECORD, inputs === INPUTS ? 2 : first / 16 % 2];
}

/** Emitter of a part's dot products for all quads: Σ q·xq + o · Σ xq, as I32. */
type Dots = (part: BlockPart, first: number) => readonly Local<"v128">[];

/** The offset's share of a part's dot products. */
function offsetOf(x: Local<"i32">, part: BlockPart, first: number): Value<"v128"> {
  const [record, sum] = recordOf(part, first);
  return i32x4.splat(part.offset === 0 ? 0 : i32.load(x, record + SUMS[sum]).times(part.offset));
}

/** The form "words". */
function wordDots(f: FunctionBuilder, x: Local<"i32">, quads: readonly BlockFields[]): Dots {
  const dots = f.array("v128", "dot", quads.length);
  const xs = f.array("v128", "pair", 4);
  const { word, codes, offset } = f.locals(vectors("word", "codes", "offset"));
  return (part, first) => {
    const [record] = recordOf(part, first);
    offset.set(offsetOf(x, part, first));
    for (const dot of dots) dot.set(offset);
    for (const index of part.codeWords) {
      for (const [i, { group }] of part.codes(word, index, quads[0]).entries()) {
        const at = record + 2 * (first % INPUTS) + 8 * group;
        xs[2 * i].set(v128.load32Splat(x, at));
        xs[2 * i + 1].set(v128.load32Splat(x, at + 4));
      }
      for (const [q, fields] of quads.entries()) {
        word.set(fields.word(index));
        for (const [i, four] of part.codes(word, index, fields).entries()) {
          const { even, odd } = pairsOf(four, part, codes);
          dots[q].set(i32x4.add(dots[q], i32x4.dotI16x8S(even, xs[2 * i])));
          dots[q].set(i32x4.add(dots[q], i32x4.dotI16x8S(odd, xs[2 * i + 1])));
        }
      }
    }
    return dots;
  };
}

/**
 * The form "bytes". A 16-bit sum takes the dots of some words before it is widened: one of them is
 * at most 2 · 128 · `most`.
 */
function byteDots(f: FunctionBuilder, x: Local<"i32">, quads: readonly BlockFields[]): Dots {
  const dots = f.array("v128", "dot", quads.length);
  const high = f.array("v128", "high", quads.length);
  const low = f.array("v128", "low", quads.length);
  const xs = f.array("v128", "x", 4);
  const { word, codes, offset } = f.locals(vectors("word", "codes", "offset"));
  return (part, first) => {
    const [record] = recordOf(part, first);
    const room = Math.floor(32767 / (256 * part.most!));
    let held = 0;
    /** Adds a dot of bytes to a sum of 16 bits, which it starts if it is empty. */
    const add = (sum: Local<"v128">, x: Local<"v128">, isEmpty: boolean) => {
      const dot = i16x8.relaxedDotI8x16I7x16S(x, codes);
      sum.set(isEmpty ? dot : i16x8.add(sum, dot));
    };
    const widen = () => {
      for (const [q, dot] of dots.entries()) {
        const [upper, lower] = [high[q], low[q]].map(i32x4.extaddPairwiseI16x8S);
        dot.set(i32x4.add(dot, i32x4.add(i32x4.shl(upper, 8), lower)));
      }
      held = 0;
    };
    offset.set(offsetOf(x, part, first));
    for (const dot of dots) dot.set(offset);
    for (const index of part.codeWords) {
      const groups = part.codes(word, index, quads[0]);
      for (const [i, { group }] of groups.entries()) {
        const at = record + first % INPUTS + 4 * group;
        xs[2 * i].set(v128.load32Splat(x, at));
        xs[2 * i + 1].set(v128.load32Splat(x, at + LOW));
      }
      if (held + groups.length > room) widen();
      for (const [q, fields] of quads.entries()) {
        word.set(fields.word(index));
        for (const [i, { bytes }] of part.codes(word, index, fields).entries()) {
          codes.set(bytes);
          add(high[q], xs[2 * i], held + i === 0);
          add(low[q], xs[2 * i + 1], held + i === 0);
        }
      }
      held += groups.length;
    }
    widen();
    return dots;
  };
}

/** Emitter of a part's scales: adds its scaled dot products and its minimum to the sums. */
function partScaler(
  f: FunctionBuilder,
  math: VectorMath,
  { x, quads, sums }: {
    readonly x: Local<"i32">;
    readonly quads: readonly BlockFields[];
    readonly sums: readonly Local<"v128">[];
  },
) {
  const scale = f.local("v128", "scale");
  return (part: BlockPart, first: number, dots: readonly Local<"v128">[]): void => {
    const [record, sum] = recordOf(part, first);
    scale.set(v128.load32Splat(x, record + SCALE));
    for (const [q, fields] of quads.entries()) {
      const scaled = part.scale(fields).times(scale);
      sums[q].set(math.madd(f32x4.convertI32x4S(dots[q]), scaled, sums[q]));
    }
    if (!part.min) return;
    scale.set(v128.load32Splat(x, record + SCALED_SUMS[sum]));
    for (const [q, fields] of quads.entries()) {
      sums[q].set(math.madd(part.min(fields), scale, sums[q]));
    }
  };
}

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
import { eachPart, pairsOf, range } from "../../formats/wasm_blocks.ts";
import { type MatmulWasm, type Store, storeTileWasm, sumArgs } from "./wasm_epilogue.ts";

/** Inputs that share a scale of x. */
const INPUTS = 32;

/** Bytes of 32 quantised inputs. */
const RECORD = 96;

/** Byte of the scale and the sums in a record: of inputs 0 … 15, 16 … 31, and all. */
const [SCALE, SUMS, SCALED_SUMS] = [64, [68, 72, 76], [80, 84, 88]];

/** Byte of the lower parts of x in a record of bytes. */
const LOW = 32;

/** Largest magnitude of a quantised x; under "exact", its upper part fits a signed byte. */
const MOST = { exact: 32639, int8: 127 } as const;

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
function dotFormOf({ parts }: BlockForm, { relaxed, activations }: Precision): DotForm {
  const isSmall = ({ most }: BlockPart) => most !== null;
  const isNibble = parts.length === 1 && parts[0].most === 15;
  const inWords = isNibble && activations === "exact";
  return relaxed && parts.every(isSmall) && !inWords ? "bytes" : "words";
}

/** What the form and the bits of x depend on. */
type Precision = Pick<MatmulWasm, "relaxed" | "activations">;

/** Defines the quantisation of rows x [rows, K] for a weight's blocks. */
export function quantiseWasm(
  m: ModuleBuilder,
  { K, ...precision }: Precision & Pick<MatmulWasm, "K">,
  form: BlockForm,
): Func<Ints<"to" | "x" | "rows">> {
  const { activations } = precision;
  const storeParts = activations === "exact" ? storeBytes : storeByte;
  const storeCodes = dotFormOf(form, precision) === "bytes" ? storeParts : storeWords;
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
      scale.set(f32x4.extractLane(most, 0).div(MOST[activations]));
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

/** Sixteen integers of four vectors as signed bytes. */
function packBytes([a, b, c, d]: readonly Local<"v128">[]): Value<"v128"> {
  return i8x16.narrowI16x8S(i16x8.narrowI32x4S(a, b), i16x8.narrowI32x4S(c, d));
}

/** Stores 32 integers of 8 bits. */
function storeByte(f: FunctionBuilder, to: Local<"i32">, inputs: readonly Local<"v128">[]): void {
  f.store(to, packBytes(inputs.slice(0, 4)));
  f.store(to, packBytes(inputs.slice(4)), 16);
}

/** Stores 32 integers as bytes: upper parts, then lower parts, from −128 to 127 each. */
function storeBytes(f: FunctionBuilder, to: Local<"i32">, inputs: readonly Local<"v128">[]): void {
  const high = f.array("v128", "high", 4);
  for (let i = 0; i < inputs.length; i += 4) {
    const low = inputs.slice(i, i + 4);
    for (const [j, v] of low.entries()) {
      high[j].set(i32x4.shrS(i32x4.add(v, i32x4.splat(128)), 8));
      v.set(i32x4.sub(v, i32x4.shl(high[j], 8)));
    }
    f.store(to, packBytes(high), 4 * i);
    f.store(to, packBytes(low), LOW + 4 * i);
  }
}

function sumI32(v: Local<"v128">): Value<"i32"> {
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => i32x4.extractLane(v, lane));
  return a.plus(b).plus(c.plus(d));
}

/** Multiplies quantised rows by panels; parameters as `panelsWasm`. */
type BlockProduct = Func<Ints<"y" | "x" | "w" | "bias" | "gate" | "left">>;
const PRODUCT = ints("y", "x", "w", "bias", "gate", "left");

/**
 * Multiplies neighbouring quantised rows by several panels; parameters as `panelsWasm`, with the
 * quantised rows in place of x.
 */
export function blockPanelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  form: BlockForm,
  panels: readonly number[],
  rows = 1,
): BlockProduct {
  // Two panels have eight sums; bytes in two parts take eight registers for the dots of one.
  const isSingle = dotFormOf(form, shape) === "words" || shape.activations === "int8";
  const together = isSingle && form.parts.length === 1;
  const define = (panels: readonly number[]) =>
    defineProduct(m, math, store, shape, { form, panels, rows });
  if (together || panels.length === 1) return define(panels);
  const one = define([0]);
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

/** Panels and rows of a product. */
interface ProductTile {
  readonly form: BlockForm;
  readonly panels: readonly number[];
  /** Number of rows; each code is unpacked once for all of them. */
  readonly rows: number;
}

/** Defines the product of rows and panels, block by block in parallel. */
function defineProduct(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  { form, panels, rows }: ProductTile,
): BlockProduct {
  const { N, K, dtype, options, columns: { width } } = shape;
  const { pitch } = wasmOf(dtype).layout([N, K]);
  const columns = panels.flatMap((panel) =>
    [0, 4, 8, 12].map((column) => panel * PANEL_COLUMNS + column)
  );
  const tile = range(0, rows).flatMap((row) =>
    columns.map((column) => ({ row, column, ofRow: 4 * (row * width + column) }))
  );
  const storeAll = storeTileWasm(m, math, tile, options);
  const inputs = form.parts.reduce((sum, part) => sum + part.inputs, 0);
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left }) => {
    const end = f.local("i32", "end");
    const sums = f.array("v128", "sum", tile.length);
    const bases = panels.map((panel) => panel === 0 ? w : f.local("i32", `w${panel}`));
    for (const [i, base] of bases.entries()) base.set(w.plus(panels[i] * pitch));
    const quads = bases.flatMap((base) => [0, 1, 2, 3].map((quad) => fieldsOf(form, base, quad)));
    const operands = { x, rows: range(0, rows).map((row) => row * quantisedBytes(K)), quads };
    const { activations } = shape;
    const dot = dotFormOf(form, shape) === "words"
      ? wordDots(f, operands)
      : byteDots(f, operands, activations === "exact" ? 2 : 1);
    const scale = partScaler(f, math, operands, sums);
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

/** Operands of a product's dots. */
interface DotOperands {
  /** Address of the first row's record. */
  readonly x: Local<"i32">;
  /** Byte offset of each row's record. */
  readonly rows: readonly number[];
  readonly quads: readonly BlockFields[];
}

/** Byte of a part's record of x, and the index of its sum. */
function recordOf({ inputs }: BlockPart, first: number): [record: number, sum: number] {
  return [Math.floor(first / INPUTS) * RECORD, inputs === INPUTS ? 2 : first / 16 % 2];
}

/**
 * Emitter of a part's dot products, Σ q·xq + o · Σ xq as I32: of all quads with the first row, then
 * with the second …
 */
type Dots = (part: BlockPart, first: number) => readonly Local<"v128">[];

/** Sets each row's dots to the offset's share. */
function startDots(
  { x, rows, quads }: DotOperands,
  dots: readonly Local<"v128">[],
  part: BlockPart,
  first: number,
): void {
  const [record, sum] = recordOf(part, first);
  for (const [r, row] of rows.entries()) {
    const [start, ...others] = dots.slice(r * quads.length, (r + 1) * quads.length);
    const offset = i32.load(x, row + record + SUMS[sum]).times(part.offset);
    start.set(i32x4.splat(part.offset === 0 ? 0 : offset));
    for (const dot of others) dot.set(start);
  }
}

/** The form "words". */
function wordDots(f: FunctionBuilder, operands: DotOperands): Dots {
  const { x, rows, quads } = operands;
  const dots = f.array("v128", "dot", rows.length * quads.length);
  const xs = rows.map((_, r) => f.array("v128", `pair${r}_`, 4));
  const { word, codes, ...pair } = f.locals(vectors("word", "codes", "even", "odd"));
  return (part, first) => {
    const [record] = recordOf(part, first);
    startDots(operands, dots, part, first);
    for (const index of part.codeWords) {
      const groups = part.codes(word, index, quads[0]);
      for (const [r, row] of rows.entries()) {
        for (const [i, { group }] of groups.entries()) {
          const at = row + record + 2 * (first % INPUTS) + 8 * group;
          xs[r][2 * i].set(v128.load32Splat(x, at));
          xs[r][2 * i + 1].set(v128.load32Splat(x, at + 4));
        }
      }
      for (const [q, fields] of quads.entries()) {
        word.set(fields.word(index));
        for (const [i, four] of part.codes(word, index, fields).entries()) {
          let { even, odd } = pairsOf(four, part, codes);
          if (rows.length > 1) {
            pair.even.set(even);
            pair.odd.set(odd);
            ({ even, odd } = pair);
          }
          for (const [r, x] of xs.entries()) {
            const dot = dots[r * quads.length + q];
            dot.set(i32x4.add(dot, i32x4.dotI16x8S(even, x[2 * i])));
            dot.set(i32x4.add(dot, i32x4.dotI16x8S(odd, x[2 * i + 1])));
          }
        }
      }
    }
    return dots;
  };
}

/**
 * The form "bytes". A 16-bit sum takes the dots of some words before it is widened: one of them is
 * at most 2 · 128 · `most`.
 * @param count bytes of x per input: 2 (high and low) or 1.
 */
function byteDots(f: FunctionBuilder, operands: DotOperands, count: 1 | 2): Dots {
  const { x, rows, quads } = operands;
  const dots = f.array("v128", "dot", rows.length * quads.length);
  const sums = dots.map((_, i) => f.array("v128", `bytes${i}_`, count));
  const xs = rows.map((_, r) => f.array("v128", `x${r}_`, 4));
  const { word, codes } = f.locals(vectors("word", "codes"));
  return (part, first) => {
    const [record] = recordOf(part, first);
    const room = Math.floor(32767 / (256 * part.most!));
    let held = 0;
    const widen = () => {
      for (const [i, dot] of dots.entries()) {
        const [high, low] = sums[i].map(i32x4.extaddPairwiseI16x8S);
        dot.set(i32x4.add(dot, low ? i32x4.add(i32x4.shl(high, 8), low) : high));
      }
      held = 0;
    };
    startDots(operands, dots, part, first);
    for (const index of part.codeWords) {
      const groups = part.codes(word, index, quads[0]);
      for (const [r, row] of rows.entries()) {
        for (const [i, { group }] of groups.entries()) {
          const at = row + record + first % INPUTS + 4 * group;
          for (let byte = 0; byte < count; byte++) {
            xs[r][count * i + byte].set(v128.load32Splat(x, at + LOW * byte));
          }
        }
      }
      if (held + groups.length > room) widen();
      for (const [q, fields] of quads.entries()) {
        word.set(fields.word(index));
        for (const [i, { bytes }] of part.codes(word, index, fields).entries()) {
          codes.set(bytes);
          for (const [r, x] of xs.entries()) {
            for (const [byte, sum] of sums[r * quads.length + q].entries()) {
              const dot = i16x8.relaxedDotI8x16I7x16S(x[count * i + byte], codes);
              sum.set(held + i === 0 ? dot : i16x8.add(sum, dot));
            }
          }
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
  { x, rows, quads }: DotOperands,
  sums: readonly Local<"v128">[],
) {
  const ofX = f.array("v128", "ofX", rows.length);
  const ofWeight = f.local("v128", "ofWeight");
  const loadOfX = (byte: number) => {
    for (const [r, row] of rows.entries()) ofX[r].set(v128.load32Splat(x, row + byte));
  };
  return (part: BlockPart, first: number, dots: readonly Local<"v128">[]): void => {
    const [record, index] = recordOf(part, first);
    loadOfX(record + SCALE);
    for (const [q, fields] of quads.entries()) {
      ofWeight.set(part.scale(fields));
      for (const [r, scale] of ofX.entries()) {
        const i = r * quads.length + q;
        sums[i].set(math.madd(f32x4.convertI32x4S(dots[i]), ofWeight.times(scale), sums[i]));
      }
    }
    if (!part.min) return;
    loadOfX(record + SCALED_SUMS[index]);
    for (const [q, fields] of quads.entries()) {
      ofWeight.set(part.min(fields));
      for (const [r, sum] of ofX.entries()) {
        const i = r * quads.length + q;
        sums[i].set(math.madd(ofWeight, sum, sums[i]));
      }
    }
  };
}

/**
 * Matmul of few rows in WASM over blocked weights: integer dot products, one scale per block.
 *
 *     x ≈ dx · xq        per 32 inputs; xq an integer (`wasm_quantise.ts`)
 *     w = d · (q + o) + m        per part of a block (`BlockForm`)
 *     Σ w·x = Σ parts  d · dx · (Σ q·xq + o · Σ xq)  +  m · dx · Σ xq
 *
 * The offset and the minimum cost one operation per part. Integer sums are exact, so the forms
 * below give equal bits.
 *
 *     form     x          engine          codes        method
 *     words    any        any             any          16-bit integers, i32x4.dot_i16x8_s
 *     bytes    int8       relaxed SIMD    0 … 63       dots of bytes, summed in 16 bits
 *
 * A code of Q8_0 has a sign, and the second operand of a relaxed dot must not.
 *
 * The processor is bound by the number of instructions, not by memory: what counts is how few of
 * them a word of codes takes. So x is loaded four words at a time and spread by shuffles: a splat
 * load takes four instructions, with the check of its bounds. Parts that share words (`stripes`)
 * are multiplied together, and so are two panels of a format with one part. Without bounds checks,
 * V8 joins neighbouring vectors to 256 bits (`asm/join.ts`), which halves the instructions.
 *
 * @module
 */
import { wasmOf } from "../../formats/mod.ts";
import { call, f32x4, i16x8, i32, i32x4, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
} from "../../asm/assembler.ts";
import { f32PairLoads, joinPairs } from "../../asm/join.ts";
import { spread } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { fieldsOf, LINE, panelBlockBytes } from "../../formats/block_panels.ts";
import type {
  BlockCodes,
  BlockFields,
  BlockForm,
  BlockPairs,
  BlockPart,
} from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { eachPart, pairsOf, range } from "../../formats/wasm_blocks.ts";
import { heldScales, ownScales, type ScaledPart, type Scales } from "./wasm_block_scales.ts";
import {
  type MatmulWasm,
  type Store,
  storeParts,
  storeTileWasm,
  sumArgs,
} from "./wasm_epilogue.ts";
import {
  dotFormOf,
  EVEN_SUM,
  heldBytes,
  INPUTS,
  quantisedBytes,
  RECORD,
  SCALE,
  SCALED_SUMS,
  SUMS,
} from "./wasm_quantise.ts";

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
  // Two panels have eight sums, as many as registers hold.
  const together = form.parts.length === 1;
  const define = (panels: readonly number[]) =>
    defineProduct(m, math, store, shape, { form, panels, rows });
  if (together || panels.length === 1) return define(panels);
  const one = define([0]);
  const { pitch } = wasmOf(shape.dtype).layout([shape.N, shape.K]);
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left }) => {
    for (const panel of panels) {
      const [bytes, outputs] = [panel * pitch, panel * PANEL_COLUMNS];
      const after = (at: Local<Int>) => at.plus(4 * outputs);
      const [of, rest] = [w.plus(bytes), left.minus(outputs)];
      const args = { y: after(y), x, w: of, bias: after(bias), gate: after(gate), left: rest };
      f.do(call(one, args));
    }
  });
}

/** Panels and rows of a product. */
interface ProductTile {
  /** The form of the panels that are multiplied. */
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
  // With checks, a load of neighbouring words is not joined.
  const joined = shape.simd === "256, unchecked";
  const inputs = form.parts.reduce((sum, part) => sum + part.inputs, 0);
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left }) => {
    const { end, held } = f.locals(ints("end", "held"));
    const sums = f.array("v128", "sum", tile.length);
    const bases = panels.map((panel) => panel === 0 ? w : f.local("int", `w${panel}`));
    for (const [i, base] of bases.entries()) base.set(w.plus(panels[i] * pitch));
    const quads = bases.flatMap((base) => [0, 1, 2, 3].map((quad) => fieldsOf(form, base, quad)));
    const operands = {
      x,
      rows: range(0, rows).map((row) => row * quantisedBytes(shape, form)),
      quads,
      joined,
    };
    const { count, apart } = form.pieces ?? { count: 1, apart: 0 };
    const all = stripesOf(form, rows);
    const stripes = all.slice(0, all.length / count);
    const most = Math.max(...stripes.map(({ length }) => length));
    const makeDots = dotFormOf(form, shape) === "words" ? wordDots : byteDots;
    const dot = makeDots(f, form, operands, most, shape.activations === "int8");
    const isHeld = form.parts.length > 1;
    const scales = isHeld ? heldScales(f, form, all.flat(), quads, held) : ownScales(quads);
    const scale = partScaler(f, math, operands, scales, sums);
    const multiplyPiece = () => {
      for (const stripe of stripes) {
        for (const [i, dots] of dot(stripe).entries()) scale(stripe[i], dots);
      }
      x.advance(inputs / count / INPUTS * RECORD);
    };
    const multiplyPieces = () => {
      const last = f.local("int", "last");
      last.set(x.plus(inputs / INPUTS * RECORD));
      f.while(x.lt(last), () => {
        multiplyPiece();
        for (const base of bases) base.advance(apart * LINE);
        held.advance(heldBytes(form) / count);
      });
    };
    end.set(x.plus(K / INPUTS * RECORD));
    held.set(end);
    // Multiply, block by block.
    f.while(x.lt(end), () => {
      scales.prepare();
      if (count === 1) multiplyPiece();
      else multiplyPieces();
      for (const base of bases) base.advance(panelBlockBytes(form) - count * apart * LINE);
      if (count > 1) held.set(end);
    });
    if (joined) joinPairs(f, w, sums, f32PairLoads(f, shape.simd));
    // Epilogue.
    f.if(
      left.geS(columns[columns.length - 1] + 4),
      () => f.do(call(storeAll, { ...sumArgs(sums), y, bias, gate })),
      () => storeParts(f, store, tile, sums, { y, bias, gate, left }),
    );
  });
}

/** Operands of a product's dots. */
interface DotOperands {
  /** Address of the first row's record. */
  readonly x: Local<Int>;
  /** Byte offset of each row's record. */
  readonly rows: readonly number[];
  readonly quads: readonly BlockFields[];
  /** Whether V8 joins neighbouring quads to vectors of 256 bits. */
  readonly joined: boolean;
}

/** A part of a block, and where its x is. */
interface PlacedPart extends ScaledPart {
  /** Byte of the record of x. */
  readonly record: number;
  /** Index of the part's sum in the record. */
  readonly sum: number;
  /** Index of its first group of four inputs in the record. */
  readonly firstGroup: number;
}

/** Parts whose dots are made side by side; those of several rows leave no registers for two. */
function stripesOf({ parts, stripes }: BlockForm, rows: number): PlacedPart[][] {
  const placed: PlacedPart[] = [];
  eachPart({ parts }, (part, first) =>
    placed.push({
      ...part,
      index: placed.length,
      record: Math.floor(first / INPUTS) * RECORD,
      sum: part.inputs === INPUTS ? 2 : first / 16 % 2,
      firstGroup: first % INPUTS / 4,
    }));
  const together = stripes?.map((all) => all.map((i) => placed[i])) ?? placed.map((part) => [part]);
  // In the same order, so that each row has the same bits as alone.
  return rows > 1 ? together.flat().map((part) => [part]) : together;
}

/**
 * Emitter of the dot products of a stripe, Σ q·xq + o · Σ xq as I32, by part: of all quads with the
 * first row, then with the second …
 */
type Dots = (stripe: readonly PlacedPart[]) => readonly (readonly Local<"v128">[])[];

/** Variables of the dots of up to `parts` parts. */
function dotsOf(f: FunctionBuilder, { rows, quads }: DotOperands, parts: number) {
  return range(0, parts).map((part) => f.array("v128", `dot${part}_`, rows.length * quads.length));
}

/** Sets each row's dots to the offset's share. */
function startDots(
  { x, rows, quads }: DotOperands,
  { flipped }: BlockForm,
  dots: readonly Local<"v128">[],
  { record, sum, offset }: PlacedPart,
): void {
  for (const [r, row] of rows.entries()) {
    const [start, ...others] = dots.slice(r * quads.length, (r + 1) * quads.length);
    const share = flipped
      ? i32.load(x, row + record + EVEN_SUM).times(-128)
      : i32.load(x, row + record + SUMS[sum]).times(offset);
    start.set(i32x4.splat(offset === 0 && !flipped ? 0 : share));
    for (const dot of others) dot.set(start);
  }
}

/**
 * Loader of words of x, spread to all lanes: four neighbouring words are loaded at once. `slot` is
 * a variable for them: a load of the same four in the same slot is left out. Where vectors are
 * joined, and accesses not checked, a splat load is one operation of 256 bits.
 */
function spreader(f: FunctionBuilder, x: Local<Int>, joined: boolean) {
  const slots: { readonly four: Local<"v128">; at: number }[] = [];
  return {
    spread(slot: number, at: number) {
      if (joined) return v128.load32Splat(x, at);
      const lane = at % 16 / 4;
      slots[slot] ??= { four: f.local("v128", `x${slot}_`), at: -1 };
      const held = slots[slot];
      if (held.at !== at - 4 * lane) held.four.set(v128.load(x, held.at = at - 4 * lane));
      return spread(held.four, lane);
    },
    /** Forgets what the slots hold: x advances. */
    clear: () => slots.forEach((slot) => slot.at = -1),
  };
}

/** Codes as 16-bit integers of the panel's word; `joined` leaves the odd code in the even ones. */
function flippedPairs(word: Local<"v128">, joined: boolean): BlockPairs {
  return {
    even: joined ? word : word.and(i32x4.splat(0x00ff00ff)),
    odd: i16x8.shrS(word, 8),
  };
}

/**
 * The form "words". Codes of a flipped form are signed bytes, the even ones plus 128. With x of 8
 * bits, a 16-bit lane is multiplied as it is, which saves an operation:
 *
 *     (256·q_odd + q_even) · x_even + q_odd · (x_odd − 256·x_even) = q_even·x_even + q_odd·x_odd
 */
function wordDots(
  f: FunctionBuilder,
  form: BlockForm,
  operands: DotOperands,
  parts: number,
  int8: boolean,
): Dots {
  const { x, rows, quads, joined } = operands;
  const all = dotsOf(f, operands, parts);
  const spread = spreader(f, x, joined);
  const xs = f.array("v128", "pair", 4 * rows.length * parts);
  const { word, codes, ...pair } = f.locals(vectors("word", "codes", "even", "odd"));
  const pairsIn = (four: BlockCodes, part: BlockPart) =>
    form.flipped && !four.pairs ? flippedPairs(word, int8) : pairsOf(four, part, codes);
  return (stripe) => {
    spread.clear();
    for (const [p, part] of stripe.entries()) startDots(operands, form, all[p], part);
    for (const [w, index] of stripe[0].codeWords.entries()) {
      // Words of x in the order of their use: by part, row, group of codes; even, odd.
      let slot = 0, used = 0;
      const places = stripe.map((part) =>
        rows.map((row) =>
          part.codes(word, part.codeWords[w], quads[0]).map(({ group }) => {
            const at = row + part.record + 8 * (part.firstGroup + group);
            const [even, odd] = xs.slice(used, used += 2);
            even.set(spread.spread(slot, at));
            odd.set(spread.spread(slot++, at + 4));
            return { even, odd };
          })
        )
      );
      for (const [q, fields] of quads.entries()) {
        word.set(form.flipped ? fields.stored(index) : fields.word(index));
        for (const [p, part] of stripe.entries()) {
          for (const [i, four] of part.codes(word, index, fields).entries()) {
            let { even, odd } = pairsIn(four, part);
            if (rows.length > 1) { // set once for all rows
              pair.even.set(even);
              pair.odd.set(odd);
              ({ even, odd } = pair);
            }
            for (const [r, groups] of places[p].entries()) {
              const dot = all[p][r * quads.length + q];
              dot.set(i32x4.add(dot, i32x4.dotI16x8S(even, groups[i].even)));
              dot.set(i32x4.add(dot, i32x4.dotI16x8S(odd, groups[i].odd)));
            }
          }
        }
      }
    }
    return all.slice(0, stripe.length);
  };
}

/**
 * The form "bytes", of x in 8 bits. A 16-bit sum takes the dots of some words before it is widened:
 * one of them is at most 2 · 128 · `most`.
 */
function byteDots(
  f: FunctionBuilder,
  form: BlockForm,
  operands: DotOperands,
  parts: number,
): Dots {
  const { x, rows, quads, joined } = operands;
  const all = dotsOf(f, operands, parts);
  const sums = all.map((dots, p) => f.array("v128", `bytes${p}_`, dots.length));
  const spread = spreader(f, x, joined);
  const xs = f.array("v128", "four", 2 * rows.length * parts);
  const { word, codes } = f.locals(vectors("word", "codes"));
  return (stripe) => {
    spread.clear();
    const room = Math.floor(32767 / (256 * stripe[0].most!));
    let held = 0;
    const widen = () => {
      for (const p of stripe.keys()) {
        for (const [i, dot] of all[p].entries()) {
          dot.set(i32x4.add(dot, i32x4.extaddPairwiseI16x8S(sums[p][i])));
        }
      }
      held = 0;
    };
    for (const [p, part] of stripe.entries()) startDots(operands, form, all[p], part);
    for (const [w, index] of stripe[0].codeWords.entries()) {
      let slot = 0;
      const places = stripe.map((part) =>
        rows.map((row) =>
          part.codes(word, part.codeWords[w], quads[0]).map(({ group }) => {
            xs[slot].set(spread.spread(slot, row + part.record + 4 * (part.firstGroup + group)));
            return xs[slot++];
          })
        )
      );
      const groups = places[0][0].length;
      if (held + groups > room) widen();
      for (const [q, fields] of quads.entries()) {
        word.set(fields.word(index));
        for (const [p, part] of stripe.entries()) {
          for (const [i, { bytes }] of part.codes(word, index, fields).entries()) {
            codes.set(bytes);
            for (const [r, xs] of places[p].entries()) {
              const sum = sums[p][r * quads.length + q];
              const dot = i16x8.relaxedDotI8x16I7x16S(xs[i], codes);
              sum.set(held + i === 0 ? dot : i16x8.add(sum, dot));
            }
          }
        }
      }
      held += groups;
    }
    widen();
    return all.slice(0, stripe.length);
  };
}

/** Emitter of a part's scales: adds its scaled dot products and its minimum to the sums. */
function partScaler(
  f: FunctionBuilder,
  math: VectorMath,
  { x, rows, quads }: DotOperands,
  scales: Scales,
  sums: readonly Local<"v128">[],
) {
  const ofX = f.array("v128", "ofX", rows.length);
  const ofWeight = f.local("v128", "ofWeight");
  const loadOfX = (byte: number) => {
    for (const [r, row] of rows.entries()) ofX[r].set(v128.load32Splat(x, row + byte));
  };
  return (part: PlacedPart, dots: readonly Local<"v128">[]): void => {
    const { record, sum } = part;
    loadOfX(record + SCALE);
    for (const q of quads.keys()) {
      ofWeight.set(scales.scale(part, q));
      for (const [r, scale] of ofX.entries()) {
        const i = r * quads.length + q;
        sums[i].set(math.madd(f32x4.convertI32x4S(dots[i]), ofWeight.times(scale), sums[i]));
      }
    }
    if (!part.min) return;
    loadOfX(record + SCALED_SUMS[sum]);
    for (const q of quads.keys()) {
      ofWeight.set(scales.min(part, q));
      for (const [r, ofRow] of ofX.entries()) {
        const i = r * quads.length + q;
        sums[i].set(math.madd(ofWeight, ofRow, sums[i]));
      }
    }
  };
}
